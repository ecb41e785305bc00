package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Many writers append to few feeds while readers follow each feed page by page. The readers
// must see the feed grow without a hole, and in the end exactly the acknowledged events.
func testConcurrent(t *testing.T, open Opener) {
	s := start(t, open)
	feeds := []string{"red", "green", "blue"}
	told := newLedger()
	var writers, readers sync.WaitGroup
	written, done := context.WithCancel(t.Context())
	for w := range 8 {
		writers.Go(func() {
			if err := write(t.Context(), s, fmt.Sprintf("writer %d", w), feeds, told); err != nil {
				t.Error(err)
			}
		})
	}
	for _, name := range feeds {
		for range 2 {
			readers.Go(func() {
				events, err := follow(t.Context(), s, name, written)
				if err != nil {
					t.Errorf("follow %s: %v", name, err)
				} else if err := told.check(name, events); err != nil {
					t.Errorf("feed %s: %v", name, err)
				}
			})
		}
	}
	writers.Wait()
	done()
	readers.Wait()
}

// write appends to all feeds, several batches at a time, and checks the store's bounds
// against the acknowledged events.
func write(ctx context.Context, s feed.Store, who string, feeds []string, told *ledger) error {
	for n := range 40 {
		var batches []feed.Batch
		for range 1 + rand.IntN(3) {
			var b feed.Batch
			for range 1 + rand.IntN(4) {
				d := feed.Draft{Feed: feeds[rand.IntN(len(feeds))], Data: fmt.Sprintf("%s, append %d", who, n)}
				b.Drafts = append(b.Drafts, d)
			}
			batches = append(batches, b)
		}
		results, err := s.Append(ctx, batches)
		if err != nil {
			return err
		}
		last := make(map[string]feed.ID)
		for i, r := range results {
			if err := errors.Join(r.Err, answers(r.Events, batches[i].Drafts)); err != nil {
				return err
			}
			for _, e := range r.Events {
				last[e.Feed] = e.ID
			}
			if err := told.enter(r.Events); err != nil {
				return err
			}
		}
		bounds, err := s.Bounds(ctx, feeds)
		if err != nil {
			return err
		}
		for i, b := range bounds {
			if b.Last < last[feeds[i]] {
				return fmt.Errorf("feed %s ends at %d after %d was acknowledged", feeds[i], b.Last, last[feeds[i]])
			}
		}
	}
	return nil
}

// follow reads the feed in pages of random sizes, until written has ended and no event
// remains.
func follow(ctx context.Context, s feed.Store, name string, written context.Context) ([]feed.Event, error) {
	var events []feed.Event
	var last feed.ID
	for {
		ended := written.Err() != nil
		page, err := s.Read(ctx, name, feed.ID(len(events)), feed.Limit{Events: 1 + rand.IntN(9), Bytes: 1000})
		if err != nil {
			return nil, err
		}
		if err := soundPage(page, name, feed.ID(len(events))); err != nil {
			return nil, err
		}
		if page.Last < last {
			return nil, fmt.Errorf("the end went back from %d to %d", last, page.Last)
		}
		last = page.Last
		if len(page.Events) == 0 {
			if ended {
				return events, nil
			}
			runtime.Gosched()
		}
		events = append(events, page.Events...)
	}
}

// ledger holds the events that a store has acknowledged.
type ledger struct {
	mu     sync.Mutex
	events map[string]map[feed.ID]feed.Event
}

func newLedger() *ledger { return &ledger{events: make(map[string]map[feed.ID]feed.Event)} }

// enter records acknowledged events, and fails if an id was given twice.
func (l *ledger) enter(events []feed.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if l.events[e.Feed] == nil {
			l.events[e.Feed] = make(map[feed.ID]feed.Event)
		}
		if had, ok := l.events[e.Feed][e.ID]; ok {
			return fmt.Errorf("id %d of feed %s was given to %q and to %q", e.ID, e.Feed, had.Data, e.Data)
		}
		l.events[e.Feed][e.ID] = e
	}
	return nil
}

// check fails unless the events read from a feed, from its first on, are exactly those
// that were acknowledged, in order, with the same bytes.
func (l *ledger) check(name string, read []feed.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.events[name]
	for i, e := range read {
		if e.ID != feed.ID(i+1) {
			return fmt.Errorf("event %d has id %d", i+1, e.ID)
		}
		if had, ok := told[e.ID]; !ok {
			return fmt.Errorf("event %d is stored and was not acknowledged", e.ID)
		} else if !sameEvent(had, e) {
			return fmt.Errorf("event %d was acknowledged as %v and read as %v", e.ID, had, e)
		}
	}
	if len(told) != len(read) {
		return fmt.Errorf("%d events were acknowledged and %d are stored", len(told), len(read))
	}
	return nil
}

// checkAll checks all of a feed.
func (l *ledger) checkAll(t *testing.T, s feed.Store, name string) {
	t.Helper()
	if err := l.check(name, read(t, s, name, 0, everything).Events); err != nil {
		t.Errorf("feed %s: %v", name, err)
	}
}

// The context has ended before the call. The append stores all or nothing, and its
// answer is true.
func testEndedContext(t *testing.T, open Opener) {
	s := start(t, open)
	told := newLedger()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	publish(t, s, numbered("news", 0, 3))
	for _, ctx := range []context.Context{canceled, expired} {
		for range 10 {
			appendUnder(t, ctx, s, told)
			if page, err := s.Read(ctx, "news", 0, everything); err == nil && len(page.Events) != 3 {
				t.Errorf("read without an error: got %d events, want 3", len(page.Events))
			}
			if b, err := s.Bounds(ctx, []string{"news"}); err == nil && b[0].Last != 3 {
				t.Errorf("bounds without an error: got %v, want the end at 3", b[0])
			}
			if c, err := s.Seek(ctx, "news", time.Unix(1<<40, 0)); err == nil && c != 3 {
				t.Errorf("seek without an error: got %d, want 3", c)
			}
		}
	}
	told.checkAll(t, s, "chat")
}

// The context ends at any moment of an append.
func testEndingContext(t *testing.T, open Opener) {
	s := start(t, open)
	told := newLedger()
	began := time.Now()
	appendUnder(t, t.Context(), s, told)
	usual := time.Since(began)
	for range 150 {
		ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*usual))
		appendUnder(t, ctx, s, told)
		cancel()
	}
	// The store still works.
	appendUnder(t, t.Context(), s, told)
	told.checkAll(t, s, "chat")
}

// appendUnder appends two batches under ctx, and enters them into the ledger if the
// answer shows that they are stored.
func appendUnder(t *testing.T, ctx context.Context, s feed.Store, told *ledger) {
	t.Helper()
	batches := []feed.Batch{{Drafts: numbered("chat", 0, 3)}, {Drafts: numbered("chat", 3, 4)}}
	results, err := s.Append(ctx, batches)
	if errors.Is(err, feed.ErrUncertain) {
		t.Fatalf("no test of this suite makes an outcome unknown: %v", err)
	}
	if err != nil {
		if err := soundError(err); err != nil {
			t.Error(err)
		}
		return
	}
	for i, r := range results {
		if err := errors.Join(r.Err, answers(r.Events, batches[i].Drafts), told.enter(r.Events)); err != nil {
			t.Fatal(err)
		}
	}
}

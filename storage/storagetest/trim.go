package storagetest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

// wantKept checks every method that reads the feed against the events that are kept.
func wantKept(t *testing.T, s feed.Store, name string, first feed.ID, all []feed.Event) {
	t.Helper()
	last := feed.ID(len(all))
	wantBounds(t, s, name, feed.Bounds{First: first, Last: last})
	kept := all[first-1:]
	for _, after := range []feed.ID{0, 1, first - 1, first, last - 1, last, last + 1, feed.MaxID} {
		page := read(t, s, name, after, everything)
		if diff := cmp.Diff(all[min(max(after, first-1), last):], page.Events, sameEmpty); diff != "" {
			t.Errorf("read after %d (-want +got):\n%s", after, diff)
		}
	}
	if page := read(t, s, name, 0, feed.Limit{Events: 2, Bytes: 1 << 20}); len(page.Events) != min(2, len(kept)) {
		t.Errorf("a page of two has %d events", len(page.Events))
	}
	times := []time.Time{{}, all[last-1].Time.Add(time.Hour)}
	for _, e := range all {
		times = append(times, e.Time, e.Time.Add(1), e.Time.Add(-1))
	}
	for _, at := range times {
		want := last
		if i := slices.IndexFunc(kept, func(e feed.Event) bool { return !e.Time.Before(at) }); i >= 0 {
			want = kept[i].ID - 1
		}
		if got, err := s.Seek(t.Context(), name, at); err != nil || got != want {
			t.Errorf("seek %v: got %d, %v; want %d", at, got, err, want)
		}
	}
}

func testTrim(t *testing.T, open Opener, sweeping bool) {
	s := keep(t, open)
	var all []feed.Event
	grow := func(n int) {
		all = append(all, publish(t, s, numbered("chat", len(all), n))...)
		waitUntil(all[len(all)-1].Time.Add(2 * time.Millisecond))
	}
	neighbours := map[string][]feed.Event{"chas": nil, "chat:1": nil, "Chat": nil}
	for name := range neighbours {
		neighbours[name] = publish(t, s, numbered(name, 0, 30))
	}
	for range 5 {
		grow(4)
	}
	for _, step := range []struct{ before, first feed.ID }{
		{0, 1}, {1, 1}, {2, 2}, {6, 6}, {5, 6}, {0, 6}, {6, 6}, {20, 20}, {21, 21}, {3, 21}, {21, 21}, {22, 21},
	} {
		trim(t, s, "chat", step.before)
		if sweeping {
			sweep(t, s, 3, time.Hour)
		}
		wantKept(t, s, "chat", step.first, all)
	}
	for _, huge := range []feed.ID{1000, math.MaxInt64 - 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		grow(3)
		wantKept(t, s, "chat", feed.ID(len(all)-2), all) // the numbering goes on
		trim(t, s, "chat", huge)
		if sweeping {
			sweep(t, s, 3, time.Hour)
		}
		wantKept(t, s, "chat", feed.ID(len(all)+1), all)
	}
	grow(2)
	for name, events := range neighbours {
		expect(t, s, name, events)
	}
	store(t, s, closing(feed.Batch{Feed: "chat"}))
	trim(t, s, "chat", math.MaxUint64)
	last := feed.ID(len(all))
	wantBounds(t, s, "chat", feed.Bounds{First: last + 1, Last: last, Closed: true})
	refuse(t, s, on("chat", "x"), feed.ErrClosed)
}

func testTrimMissing(t *testing.T, open Opener) {
	s := keep(t, open)
	for _, before := range []feed.ID{0, 1, 7, math.MaxUint64} {
		trim(t, s, "nowhere", before)
	}
	wantBounds(t, s, "nowhere", feed.Unwritten)
	if infos := list(t, s, "", "", 10); len(infos) != 0 {
		t.Errorf("got the list %v, want none", infos)
	}
	expect(t, s, "nowhere", publish(t, s, numbered("nowhere", 0, 2)))
	store(t, s, closing(on("never")))
	trim(t, s, "never", math.MaxUint64)
	wantBounds(t, s, "never", feed.Bounds{First: 1, Last: 0, Closed: true})
}

func testTrimUnderLoad(t *testing.T, open Opener) { loadAndTrim(t, keep(t, open)) }

// loadAndTrim runs appends, trims, sweeps and reads at the same time. Each page must have no
// hole within its bounds, and in the end only trimmed events may be missing.
func loadAndTrim(t *testing.T, keepers ...feed.RetentionStore) {
	feeds := []string{"red", "green"}
	told := newLedger()
	var writers, others sync.WaitGroup
	written, done := context.WithCancel(t.Context())
	for w := range 4 {
		writers.Go(func() {
			if err := write(t.Context(), keepers[w%len(keepers)], fmt.Sprintf("writer %d", w), feeds, told); err != nil {
				t.Error(err)
			}
		})
	}
	for i, name := range feeds {
		k := keepers[i%len(keepers)]
		others.Go(func() {
			if err := trimOften(t.Context(), k, name, written); err != nil {
				t.Errorf("trim %s: %v", name, err)
			}
		})
		for range 2 {
			others.Go(func() {
				if err := readTrimmed(t.Context(), k, name, written); err != nil {
					t.Errorf("read %s: %v", name, err)
				}
			})
		}
	}
	writers.Wait()
	done()
	others.Wait()
	for _, k := range keepers {
		sweep(t, k, 100, time.Hour)
	}
	for _, name := range feeds {
		page := read(t, keepers[0], name, 0, everything)
		if err := told.checkSome(page.Events); err != nil {
			t.Errorf("feed %s: %v", name, err)
		}
		if last := feed.ID(len(told.events[name])); page.Last != last || page.First == 1 {
			t.Errorf("feed %s: got bounds %v, want the end at %d, and something trimmed", name, page.Bounds, last)
		}
		if got, want := bytesOf(t, keepers[0], name), dataBytes(page.Events); got != want {
			t.Errorf("feed %s has %d bytes, want %d", name, got, want)
		}
	}
}

// trimOften trims a part of the feed, and sweeps, again and again until written has ended.
func trimOften(ctx context.Context, k feed.RetentionStore, name string, written context.Context) error {
	for ended := false; !ended; {
		ended = written.Err() != nil
		bounds, err := k.Bounds(ctx, []string{name})
		if err != nil {
			return err
		}
		if err := k.Trim(ctx, name, bounds[0].Last-min(bounds[0].Last, feed.ID(rand.Uint64N(20)))); err != nil {
			return err
		}
		after, err := k.Bounds(ctx, []string{name})
		if err != nil {
			return err
		}
		if after[0].First < bounds[0].First || after[0].Last < bounds[0].Last {
			return fmt.Errorf("bounds went back from %v to %v", bounds[0], after[0])
		}
		if _, err := k.Sweep(ctx, 1+rand.IntN(10), time.Hour); err != nil {
			return err
		}
	}
	return nil
}

// readTrimmed reads pages from random cursors until written has ended, and checks each
// against its bounds.
func readTrimmed(ctx context.Context, k feed.RetentionStore, name string, written context.Context) error {
	var bounds feed.Bounds
	for written.Err() == nil {
		after := bounds.First - min(bounds.First, feed.ID(rand.Uint64N(10)))
		page, err := k.Read(ctx, name, after, feed.Limit{Events: 1 + rand.IntN(30), Bytes: 1000})
		if err == nil {
			err = soundPage(page, name, after)
		}
		if err != nil {
			return err
		}
		if page.First < bounds.First || page.Last < bounds.Last {
			return fmt.Errorf("bounds went back from %v to %v", bounds, page.Bounds)
		}
		bounds = page.Bounds
	}
	return nil
}

// checkSome checks events that were read against the acknowledged ones.
func (l *ledger) checkSome(read []feed.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range read {
		if had, ok := l.events[e.Feed][e.ID]; !ok || !sameEvent(had, e) {
			return fmt.Errorf("read %v, and acknowledged was %v", e, had)
		}
	}
	return nil
}

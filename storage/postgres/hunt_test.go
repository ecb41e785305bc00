package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Two nodes use every method on the same few feeds and keys at once, for a while.
// They never deadlock, which Postgres would end with an error, and the store agrees
// with every answer.
func TestHunt(t *testing.T) {
	t.Parallel()
	const lasts, window = 3 * time.Second, 400 * time.Millisecond
	url := newDatabase(t)
	h := &hunt{events: make(map[eventName]feed.Event), answers: make(map[feed.KeyName][]answer), window: window}
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var work sync.WaitGroup
	do := func(s *Store, n int, once func(*Store) error) {
		for range n {
			work.Go(func() {
				for ctx.Err() == nil {
					if err := once(s); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	for range 2 {
		s := start(t, url, Options{LockTimeout: 20 * time.Second})
		do(s, 6, h.append)
		do(s, 1, h.trim)
		do(s, 2, h.sweep)
	}
	work.Wait()
	sound(t, url)
	h.checkKeys(t, int(lasts/window)+2)
	s := start(t, url, Options{})
	l, err := s.List(t.Context(), "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	kept, given := 0, feed.ID(0)
	for _, info := range l.Feeds {
		page, err := s.Read(t.Context(), info.Feed, 0, feed.Limit{Events: 1 << 20, Bytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if told := h.events[eventName{e.Feed, e.ID}]; told != e {
				t.Errorf("acknowledged as %v, and stored as %v", told, e)
			}
		}
		kept, given = kept+len(page.Events), given+info.Last
	}
	if int(given) != len(h.events) {
		t.Errorf("%d events were acknowledged, and %d ids given", len(h.events), given)
	}
	t.Logf("%d feeds, %d events, %d of them kept, %d keys, %d replays", len(l.Feeds), given, kept, len(h.answers), h.replays)
	if kept == int(given) || h.replays == 0 || h.busy == 0 || h.refused == 0 {
		t.Error("something has not happened that the test is about")
	}
}

// hunt records the answers.
type hunt struct {
	window time.Duration

	mu                     sync.Mutex
	events                 map[eventName]feed.Event
	answers                map[feed.KeyName][]answer
	replays, busy, refused int
}

type eventName struct {
	feed string
	id   feed.ID
}

type answer struct {
	events   []feed.Event
	replayed bool
}

// append appends a few batches from a small set.
func (h *hunt) append(s *Store) error {
	batches := make([]feed.Batch, 1+rand.IntN(3))
	patient := rand.IntN(2) == 0
	for i := range batches {
		batches[i] = h.batch()
		batches[i].NoWait = !patient
	}
	results, err := s.Append(context.Background(), batches)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, r := range results {
		if err := h.note(batches[i], r); err != nil {
			return err
		}
	}
	return nil
}

// batch returns a batch from a small set, in which a key always belongs to the same
// batch.
func (h *hunt) batch() feed.Batch {
	n := rand.IntN(30)
	key := fmt.Sprint("key ", n)
	name := func(i int) string { return fmt.Sprintf("chat:%d", (n*7+i*5)%8) }
	var b feed.Batch
	switch rand.IntN(5) {
	case 0:
		b = keyed(key, several(key, name(0), name(1), name(2), name(0)))
	case 1:
		b = keyed(key, on(name(0), key))
	case 2:
		b = keyed(key, closing(on(fmt.Sprintf("end:%d", n), key)))
	case 3:
		return closing(on(fmt.Sprintf("end:%d", n)))
	default:
		return several("x", name(3), name(1), name(4))
	}
	b.Key.Window = h.window
	return b
}

func (h *hunt) note(b feed.Batch, r feed.Result) error {
	switch {
	case b.NoWait && errors.Is(r.Err, feed.ErrBusy):
		h.busy++
		return nil
	case b.Close && errors.Is(r.Err, feed.ErrClosed):
		h.refused++
		return nil
	case r.Err != nil:
		return r.Err
	case r.Replayed:
		h.replays++
	}
	if b.Key != nil {
		name := feed.KeyName{Feed: b.Feed, Name: b.Key.Name}
		h.answers[name] = append(h.answers[name], answer{r.Events, r.Replayed})
	}
	for _, e := range r.Events {
		name := eventName{e.Feed, e.ID}
		if _, ok := h.events[name]; ok && !r.Replayed {
			return fmt.Errorf("id %d of feed %s was given twice", e.ID, e.Feed)
		}
		if !r.Replayed {
			h.events[name] = e
		}
	}
	return nil
}

// checkKeys demands that each replay has events that were stored with its key, and
// that no key was stored more than most times.
func (h *hunt) checkKeys(t *testing.T, most int) {
	t.Helper()
	for name, answers := range h.answers {
		var first []answer
		for _, a := range answers {
			if !a.replayed {
				first = append(first, a)
			}
		}
		if len(first) > most {
			t.Errorf("%v was stored %d times", name, len(first))
		}
		for _, a := range answers {
			if !slices.ContainsFunc(first, func(f answer) bool { return slices.Equal(f.events, a.events) }) {
				t.Errorf("%v was answered with %v, which was not stored", name, a.events)
			}
		}
	}
}

func (h *hunt) trim(s *Store) error {
	name := fmt.Sprintf("chat:%d", rand.IntN(8))
	bounds, err := s.Bounds(context.Background(), []string{name})
	if err != nil {
		return err
	}
	last := bounds[0].Last
	return s.Trim(context.Background(), name, last-min(last, feed.ID(rand.Uint64N(50))))
}

func (h *hunt) sweep(s *Store) error {
	_, err := s.Sweep(context.Background(), 1+rand.IntN(40), h.window)
	return err
}

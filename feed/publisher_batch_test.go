package feed_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

func keyed(key string, data ...string) feed.Publication {
	b := feed.Publication{Feed: "a", Key: key}
	for _, d := range data {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: "a", Data: d})
	}
	return b
}

func (r *rig) batch(b feed.Publication) feed.Result {
	r.t.Helper()
	result, err := r.pub.PublishBatch(r.t.Context(), b)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

// A batch that is repeated with its key is published once: its events are counted
// once, sent to the bus once and delivered once.
func TestReplayedIsPublishedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var told sync.Map
		r.bus.tell = func(_ context.Context, events []feed.Event) error {
			for _, e := range events {
				if _, again := told.LoadOrStore(e.ID, true); again {
					t.Errorf("event %d was sent to the bus again", e.ID)
				}
			}
			return nil
		}
		s := r.subscribe("a", feed.From{})
		first := r.batch(keyed("k", "1", "2"))
		for range 3 {
			again := r.batch(keyed("k", "1", "2"))
			if !again.Replayed || len(again.Events) != 2 || again.Events[0] != first.Events[0] || again.Events[1] != first.Events[1] {
				t.Errorf("got %+v, want %+v", again, first)
			}
		}
		r.batch(keyed("other", "1", "2"))
		if first.Replayed || r.pub.Published() != 4 {
			t.Errorf("first: replayed %t; %d published", first.Replayed, r.pub.Published())
		}
		if got := seen(t, s, time.Second); got != "1 2 3 4" {
			t.Errorf("saw %q", got)
		}
	})
}

// A client repeats on this node a batch that another node has stored. Its next
// subscription starts after the events, as if it had published them here.
func TestReplayedThenSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		waits := r.subscribe("a", feed.From{})
		hub := feed.NewHub(r.store, &quietBus{}, feed.HubOptions{Logger: quiet})
		pub := feed.NewPublisher(r.store, hub, &quietBus{}, feed.PublisherOptions{Logger: quiet})
		if _, err := pub.PublishBatch(t.Context(), keyed("k", "1")); err != nil {
			t.Fatal(err)
		}
		pub.Close()
		hub.Close()
		if again := r.batch(keyed("k", "1")); !again.Replayed {
			t.Errorf("got %+v", again)
		}
		if s := r.subscribe("a", feed.From{}); s.Cursor() != 1 {
			t.Errorf("now is %d, want 1", s.Cursor())
		}
		reach(t, waits, 1, time.Millisecond)
	})
}

func TestPublishConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		at := func(last feed.ID) feed.Publication {
			return feed.Publication{Feed: "a", Drafts: []feed.Draft{{Feed: "a"}}, IfLast: &last}
		}
		refused := func(b feed.Publication, last feed.ID) {
			t.Helper()
			_, err := r.pub.PublishBatch(t.Context(), b)
			if e, ok := errors.AsType[*feed.LastError](err); !ok || e.Last != last {
				t.Errorf("got %v, want that the last is %d", err, last)
			}
		}
		refused(at(1), 0)
		if e := r.batch(at(0)).Events[0]; e.ID != 1 {
			t.Errorf("the first event is %d", e.ID)
		}
		refused(at(0), 1)
		refused(at(2), 1)
		r.batch(at(1))
		b := at(2)
		b.Key = "k"
		first := r.batch(b)
		if again := r.batch(b); !again.Replayed || again.Events[0] != first.Events[0] {
			t.Errorf("a condition that was met is checked again: %+v", again)
		}
		b = at(2)
		b.Key = "refused"
		refused(b, 3)
		b.IfLast = new(feed.ID(3))
		if again := r.batch(b); again.Replayed || again.Events[0].ID != 4 {
			t.Errorf("a batch that was refused left its key behind: %+v", again)
		}
	})
}

func TestPublishRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		refused := func(b feed.Publication, want error) {
			t.Helper()
			if _, err := r.pub.PublishBatch(t.Context(), b); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		r.batch(keyed("k", "1"))
		refused(keyed("k", "2"), feed.ErrKeyReused)
		refused(keyed("k", "1", "1"), feed.ErrKeyReused)
		closing := keyed("close", "2")
		closing.Close = true
		r.batch(closing)
		refused(keyed("k2", "3"), feed.ErrClosed)
		refused(feed.Publication{Feed: "a", Drafts: []feed.Draft{{Feed: "a"}}, Close: true}, feed.ErrClosed)
		refused(feed.Publication{Drafts: []feed.Draft{{Feed: "b"}, {Feed: "a"}}}, feed.ErrClosed)
		refused(feed.Publication{Feed: "a", Drafts: []feed.Draft{{Feed: "a"}}, IfLast: new(feed.ID(9))}, feed.ErrClosed)
		// A known key alone decides, and a second close is no error.
		if got := r.batch(keyed("k", "1")); !got.Replayed {
			t.Errorf("got %+v", got)
		}
		if got := r.batch(closing); !got.Replayed || got.Events[0].ID != 2 {
			t.Errorf("got %+v", got)
		}
		r.batch(feed.Publication{Feed: "a", Close: true})
		if p := r.store.History("a"); p.Last != 2 || !p.Closed || r.store.History("b").Last != 0 {
			t.Errorf("the feed is %+v", p.Bounds)
		}
	})
}

// A refused batch fails alone in its commit.
func TestRefusedBatchesFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		results := make([]error, 5)
		var answers sync.WaitGroup
		for i, b := range []feed.Publication{
			keyed("first", "alone in its commit"),
			{Feed: "a", Close: true},
			keyed("late", "1"),
			{Drafts: []feed.Draft{{Feed: "b"}}},
			{Feed: "b", Drafts: []feed.Draft{{Feed: "b"}}, IfLast: new(feed.ID(7))},
		} {
			answers.Go(func() { _, results[i] = r.pub.PublishBatch(t.Context(), b) })
			synctest.Wait()
		}
		pass()
		answers.Wait()
		last, _ := errors.AsType[*feed.LastError](results[4])
		if results[0] != nil || results[1] != nil || !errors.Is(results[2], feed.ErrClosed) || results[3] != nil || last == nil || last.Last != 1 {
			t.Errorf("got %v", results)
		}
		if n := r.count(feedtest.AppendAsked); n != 2 {
			t.Errorf("%d appends", n)
		}
	})
}

// Batches that only close are bounded in a commit as well.
func TestCommitOfClosesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		var answers sync.WaitGroup
		for range 1 + 5000 {
			answers.Go(func() { r.batch(feed.Publication{Feed: "a", Close: true}) })
		}
		synctest.Wait()
		pass()
		answers.Wait()
		if n := r.count(feedtest.AppendAsked); n != 3 {
			t.Errorf("%d appends, want 3", n)
		}
	})
}

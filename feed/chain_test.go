package feed_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func chainTo(name string, last *feed.ID, data ...string) (chain []feed.Publication) {
	for _, d := range data {
		chain = append(chain, feed.Publication{Feed: name, Key: "k/" + d, IfLast: last, Drafts: []feed.Draft{{Feed: name, Data: d}}})
	}
	return chain
}

// TestPublishChain: a chain is stored up to the first publication that is refused.
func TestPublishChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		none := new(feed.ID(0))
		results, err := r.pub.PublishChain(t.Context(), chainTo("a", none, "1", "2"))
		if err != nil || len(results) != 2 || results[1].Events[0].ID != 2 {
			t.Fatalf("got %+v, %v", results, err)
		}
		results, err = r.pub.PublishChain(t.Context(), chainTo("a", none, "1", "2", "3"))
		if err != nil || len(results) != 3 || !results[1].Replayed || results[2].Replayed || results[2].Events[0].ID != 3 {
			t.Errorf("repeated: %+v, %v", results, err)
		}
		r.batch(keyed("other", "4"))
		results, err = r.pub.PublishChain(t.Context(), chainTo("a", none, "1", "2", "3", "5", "6"))
		if last, ok := errors.AsType[*feed.LastError](err); !ok || last.Last != 4 || len(results) != 3 {
			t.Errorf("with another event behind it: %+v, %v", results, err)
		}
		// One that is not sound ends the chain as well.
		bad := chainTo("a", nil, "5", "6", "7")
		bad[1].Drafts[0].Data = "\xff"
		results, err = r.pub.PublishChain(t.Context(), bad)
		if !errors.Is(err, feed.ErrInvalid) || len(results) != 1 || results[0].Events[0].ID != 5 {
			t.Errorf("with a bad one: %+v, %v", results, err)
		}
	})
}

// TestPublishChainHeld: a chain waits for a feed that is held, and keeps its order.
func TestPublishChainHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, pub := holdFeed(t)
		time.AfterFunc(2*time.Second, func() { close(store.released) })
		results, err := pub.PublishChain(t.Context(), chainTo("held", new(feed.ID(0)), "1", "2", "3"))
		if err != nil || len(results) != 3 {
			t.Fatalf("got %+v, %v", results, err)
		}
		for i, r := range results {
			if r.Replayed || r.Events[0].ID != feed.ID(i+1) {
				t.Errorf("%d: %+v", i, r)
			}
		}
	})
}

// TestWatchClose: a watch reports a close of this node at once, one of another node
// with the next comparison, and one from before it.
func TestWatchClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		watch := func(name string) *feed.CloseWatch {
			w, err := r.hub.WatchClose(name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.Stop)
			synctest.Wait()
			return w
		}
		await := func(w *feed.CloseWatch, limit time.Duration) {
			t.Helper()
			select {
			case <-w.Closed():
			case <-time.After(limit):
				t.Errorf("the close is not there within %v", limit)
			}
		}
		here, elsewhere := watch("a"), watch("b")
		if !here.WasOpen() {
			t.Error("the feed was not open")
		}
		select {
		case <-here.Closed():
			t.Error("it is closed before it is")
		default:
		}
		r.batch(feed.Publication{Feed: "a", Close: true})
		await(here, time.Millisecond)
		if _, err := r.store.Append(t.Context(), []feed.Batch{{Feed: "b", Close: true}}); err != nil {
			t.Fatal(err)
		}
		await(elsewhere, 2*time.Second)
		late := watch("a")
		await(late, time.Millisecond)
		if late.WasOpen() {
			t.Error("a feed that was closed before was open")
		}
	})
}

// TestWatchCloseBehind: a feed that was closed before a watch began was not open, even if
// this node learns of the close only afterwards.
func TestWatchCloseBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		subscriber, err := r.hub.Subscribe(t.Context(), "a", feed.From{})
		if err != nil {
			t.Fatal(err)
		}
		defer subscriber.Close()
		if _, err := r.store.Append(t.Context(), []feed.Batch{{Feed: "a", Close: true}}); err != nil {
			t.Fatal(err)
		}
		w, err := r.hub.WatchClose("a")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		<-w.Closed()
		synctest.Wait()
		if w.WasOpen() {
			t.Error("a feed that was closed before was open")
		}
	})
}

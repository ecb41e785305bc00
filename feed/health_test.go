package feed_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// TestHealthOfAClosedHub: a hub is closed before its store, which may be gone when a
// probe asks for its health.
func TestHealthOfAClosedHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if h := r.hub.Health(t.Context()); h.Store != nil || h.Bus != nil {
			t.Errorf("got %v", h)
		}
		r.holdAt(feedtest.BoundsAsked)
		asked := make(chan feed.Health)
		go func() { asked <- r.hub.Health(t.Context()) }()
		synctest.Wait()
		r.pub.Close()
		r.hub.Close() // it does not wait for the store
		if h := <-asked; h.Store == nil {
			t.Error("a store works whose answer was not waited for")
		}
		before := r.count(feedtest.BoundsAsked)
		if h := r.hub.Health(t.Context()); !errors.Is(h.Store, feed.ErrStopped) || !errors.Is(h.Bus, feed.ErrStopped) {
			t.Errorf("got %v, want ErrStopped", h)
		}
		if n := r.count(feedtest.BoundsAsked) - before; n != 0 {
			t.Errorf("the store was asked %d times after the hub was closed", n)
		}
	})
}

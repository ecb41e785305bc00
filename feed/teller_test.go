package feed_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// renamed is a store whose id changes.
type renamed struct {
	*feedtest.Store
	id atomic.Pointer[string]
}

func (s *renamed) ID() string { return *s.id.Load() }

// Queued events are dropped when the store becomes another one, in which the same ids
// may be of other events.
func TestTellOfOneStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &renamed{Store: feedtest.NewStore()}
		store.id.Store(new("first"))
		var told []feed.ID
		release := make(chan struct{})
		bus := &quietBus{tell: func(_ context.Context, events []feed.Event) error {
			for _, e := range events {
				told = append(told, e.ID)
			}
			<-release
			return nil
		}}
		hub := feed.NewHub(store, bus, feed.HubOptions{Logger: quiet})
		pub := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
		publish := func() {
			t.Helper()
			if _, err := pub.Publish(t.Context(), feed.Draft{Feed: "a", Data: "x"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		publish() // the bus is busy with this one
		publish() // waits in the queue
		store.id.Store(new("second"))
		close(release)
		time.Sleep(time.Second)
		publish() // an event of the new store
		store.id.Store(new("third"))
		time.Sleep(time.Second)
		publish()
		pub.Close()
		hub.Close()
		if want := []feed.ID{1, 3, 4}; !slices.Equal(told, want) {
			t.Errorf("told %d, want %d", told, want)
		}
	})
}

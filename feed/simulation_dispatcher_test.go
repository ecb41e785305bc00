package feed_test

import (
	"context"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// onLane reads a group by way of a lane, as a server does that writes to many
// subscribers from one goroutine. This one has a lane of its own and steps through
// it itself.
type onLane struct {
	lane   *feed.Dispatcher
	called bool
}

// Notify implements [feed.Notifier].
func (r *onLane) Notify() { r.called = true }

// next is [feed.BlockingSubscriber] Next.
func (r *onLane) next(g *feed.Subscriber) nextFunc {
	return func(ctx context.Context, tick <-chan time.Time) (int, feed.Delivery, error) {
		for {
			if i, d, err := g.Poll(); i >= 0 || err != nil {
				return i, d, err
			}
			for r.called = false; !r.called; {
				if r.lane.Step() || r.called {
					continue
				}
				select {
				case <-r.lane.C():
				case <-tick:
					return -1, feed.Delivery{}, nil
				case <-ctx.Done():
					return -1, feed.Delivery{}, ctx.Err()
				}
			}
		}
	}
}

package feed_test

import (
	"context"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// dispatched reads a subscriber of a dispatcher, as a server does that writes to many
// subscribers from one goroutine. Here each has a dispatcher of its own.
type dispatched struct {
	dispatcher *feed.Dispatcher
	notified   bool
}

// Notify implements [feed.Notifier].
func (r *dispatched) Notify() { r.notified = true }

// next does what Next of a [feed.BlockingSubscriber] does.
func (r *dispatched) next(s *feed.Subscriber) nextFunc {
	return func(ctx context.Context, tick <-chan time.Time) (int, feed.Delivery, error) {
		for {
			if i, d, err := s.Poll(); i >= 0 || err != nil {
				return i, d, err
			}
			for r.notified = false; !r.notified; {
				if r.dispatcher.Step() || r.notified {
					continue
				}
				select {
				case <-r.dispatcher.C():
				case <-tick:
					return -1, feed.Delivery{}, nil
				case <-ctx.Done():
					return -1, feed.Delivery{}, ctx.Err()
				}
			}
		}
	}
}

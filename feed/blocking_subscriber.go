package feed

import (
	"context"
	"time"
)

// BlockingSubscriber is a [Subscriber] whose owner can wait for it, on a goroutine of
// its own.
type BlockingSubscriber struct {
	*Subscriber
	woken tokens
}

// Next is a blocking Poll. It returns when there is something to read, when ctx ends,
// and when a value comes from tick, which may be nil: then the index is -1.
func (s *BlockingSubscriber) Next(ctx context.Context, tick <-chan time.Time) (index int, d Delivery, err error) {
	for {
		if index, d, err = s.Poll(); index >= 0 || err != nil {
			return index, d, err
		}
		if ticked, err := s.Wait(ctx, tick); ticked || err != nil {
			return -1, Delivery{}, err
		}
	}
}

// Wait returns when Poll may return something, or when a value has come from tick,
// which may be nil. Its errors are the context's and ErrStopped.
func (s *BlockingSubscriber) Wait(ctx context.Context, tick <-chan time.Time) (ticked bool, err error) {
	return s.woken.wait(ctx, tick, s.dispatcher.hub)
}

// tokens is the Notifier of a subscriber whose owner waits.
type tokens chan struct{}

// Notify implements [Notifier].
func (t tokens) Notify() { poke(t) }

// wait waits for a call of Notify.
func (t tokens) wait(ctx context.Context, tick <-chan time.Time, h *Hub) (ticked bool, err error) {
	select {
	case <-t:
		return false, nil
	case <-tick:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-h.ctx.Done():
		return false, ErrStopped
	}
}

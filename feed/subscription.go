package feed

import (
	"context"
	"sync/atomic"
	"time"
)

// Subscription is one subscriber's way through a feed: a cursor that moves from
// n to n+1 and in no other way, unless a Gap says so. It pulls: it holds no
// queue, and however far it is behind, it costs no memory.
//
// Its methods are for one goroutine, except for Close.
type Subscription struct {
	hub    *Hub
	log    *log
	place  int // in log.subs, under its lock
	bounds Bounds
	woken  chan struct{}
	closed atomic.Bool

	cursor  Cursor
	heard   uint64           // ephemeral events of the log that are behind it
	hinted  bool             // the last delivery was one of them
	gap     *Gap             // found at the start, yet to be handed out
	reading *flight[page]    // what the store was asked for
	retry   <-chan time.Time // when to ask it again after it failed
	wait    backoff
}

// Feed returns the name of the feed.
func (s *Subscription) Feed() string { return s.log.feed }

// Cursor returns the id of the last event that Next handed out; before that,
// the cursor that the subscription starts from.
func (s *Subscription) Cursor() Cursor { return s.cursor }

// Bounds returns which events existed when the subscription was made.
func (s *Subscription) Bounds() Bounds { return s.bounds }

// Gap returns the gap that the subscription starts with, and nil if there is
// none or Next has handed it out.
func (s *Subscription) Gap() *Gap { return s.gap }

// Close ends the subscription, and a Next that waits. It may be called from any
// goroutine, and more than once.
func (s *Subscription) Close() {
	if s.closed.CompareAndSwap(false, true) {
		s.log.detach(s)
		s.hub.release(s.log)
		s.hub.counts.subscribers.Add(-1)
		signal(s.woken)
	}
}

// Next returns what follows the cursor and moves the cursor behind it. At the
// end of the feed it waits: for an event, or until a value comes from tick
// (which may be nil), when it returns an empty Delivery.
//
// It returns the context's error when ctx ends, ErrClosed when the feed is
// closed and was handed out whole, and ErrStopped when the hub or the
// subscription is closed. A store that cannot be read is not an error here:
// it is asked again until it answers.
func (s *Subscription) Next(ctx context.Context, tick <-chan time.Time) (Delivery, error) {
	for !s.closed.Load() && s.hub.ctx.Err() == nil {
		d, ok, err := s.poll()
		if ok || err != nil {
			return d, err
		}
		var read chan struct{}
		if s.reading != nil {
			read = s.reading.done
		}
		select {
		case <-read:
		case <-s.retry:
			s.retry = nil
		case <-s.woken:
		case <-tick:
			return Delivery{}, nil
		case <-ctx.Done():
			return Delivery{}, ctx.Err()
		case <-s.hub.ctx.Done():
			return Delivery{}, ErrStopped
		}
	}
	return Delivery{}, ErrStopped
}

// poll returns what there is for the subscription at this moment.
func (s *Subscription) poll() (d Delivery, ok bool, err error) {
	if s.gap != nil {
		return s.pass(s.gap), true, nil
	}
	// By turns: neither kind of event keeps the other waiting.
	if s.hinted {
		s.hinted = false
		if d, ok, _ := s.stored(); ok {
			return d, true, nil
		}
	}
	if d, ok := s.log.hint(s); ok {
		s.hinted = true
		return d, true, nil
	}
	return s.stored()
}

// stored returns what the log or the store has for the subscription.
func (s *Subscription) stored() (d Delivery, ok bool, err error) {
	if s.reading != nil {
		select {
		case <-s.reading.done:
			if d, ok := s.take(s.reading); ok {
				return d, true, nil
			}
		default:
			return Delivery{}, false, nil
		}
	}
	if s.retry != nil {
		return Delivery{}, false, nil
	}
	return s.look()
}

// look returns what the log has after the cursor. Where only the store can
// tell what follows, it asks the store.
func (s *Subscription) look() (Delivery, bool, error) {
	d, view := s.log.after(s.cursor)
	switch view {
	case viewEvents:
		s.cursor += Cursor(len(d.Events()))
		s.hub.counts.fromLog.Add(uint64(len(d.Events())))
		return d, true, nil
	case viewClosed:
		return Delivery{}, false, ErrClosed
	case viewBehind:
		s.reading = s.hub.readPage(s.log, s.cursor)
	case viewAhead:
		s.reading = s.hub.askBounds(s.log)
	}
	return Delivery{}, false, nil
}

// take returns what the store's answer brings the subscription.
func (s *Subscription) take(answer *flight[page]) (Delivery, bool) {
	s.reading = nil
	if answer.err != nil {
		s.retry = time.After(s.wait.next())
		return Delivery{}, false
	}
	s.wait = backoff{}
	if gap := gapAfter(s.cursor, answer.value.Bounds); gap != nil {
		return s.pass(gap), true
	}
	if answer.value.segment == nil {
		return Delivery{}, false
	}
	d := answer.value.segment.since(s.cursor)
	s.cursor += Cursor(len(d.Events()))
	s.hub.counts.fromStore.Add(uint64(len(d.Events())))
	return d, true
}

func (s *Subscription) pass(gap *Gap) Delivery {
	s.gap = nil
	s.hub.counts.gap(gap.Reason)
	s.cursor = gap.Cursor()
	return Delivery{Gap: gap}
}

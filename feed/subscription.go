package feed

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"
)

// Subscription is one subscriber's way through a feed: a cursor that moves from
// n to n+1, or across a Gap, and in no other way. It pulls: it holds no
// queue, and however far it is behind, it costs no memory.
//
// Its methods are for one goroutine, except for Close.
type Subscription struct {
	subscriber    *Subscriber
	log           *log
	bounds        Bounds
	marks         atomic.Uint32 // pendingMark and closedMark
	unread        uint32        // events that Unread took back, and that counts has counted
	index         int32         // in its audience, under the log's subsMu
	ended         bool          // Poll has returned the end of the closed feed
	gaveEphemeral bool          // the last delivery was an ephemeral event
	rollbacksSeen uint16        // the rollbacks of the log that cursor takes into account

	cursor        ID
	ephemeralSeen uint64            // how many ephemeral events of the log it has passed
	gap           *Gap              // that it starts with, until it is delivered
	reading       *call[sharedPage] // a call of the store whose result it has yet to take
	retry         *retryState       // while the store fails to answer it
}

const (
	pendingMark uint32 = 1 << iota // it may have something new
	closedMark
)

func (s *Subscription) setPending() { s.marks.Or(pendingMark) }

func (s *Subscription) pending() bool { return s.marks.Load()&pendingMark != 0 }

func (s *Subscription) isClosed() bool { return s.marks.Load()&closedMark != 0 }

// retryState spaces the calls of a store that fails to answer.
type retryState struct {
	wait  backoff
	until time.Time // no call before
}

// Feed returns the name of the feed.
func (s *Subscription) Feed() string { return s.log.feed }

// Cursor returns the id of the last event that Next returned; before that,
// the cursor that the subscription starts from.
func (s *Subscription) Cursor() ID { return s.cursor }

// Bounds returns which events existed when the subscription was made.
func (s *Subscription) Bounds() Bounds { return s.bounds }

// Gap returns the gap that the subscription starts with, and nil if there is
// none or Next has returned it.
func (s *Subscription) Gap() *Gap { return s.gap }

// Close ends the subscription, and a Next that waits. Any goroutine may call it,
// and more than once.
func (s *Subscription) Close() {
	if s.marks.Or(closedMark)&closedMark == 0 {
		s.log.detach(s)
		s.hub().release(s.log)
		s.hub().counts.subscribers.Add(-1)
		s.wake()
	}
}

func (s *Subscription) hub() *Hub { return s.subscriber.dispatcher.hub }

// wake makes the subscriber poll.
func (s *Subscription) wake() {
	s.setPending()
	s.subscriber.Wake()
}

// Next returns what follows the cursor and moves the cursor behind it. At the
// end of the feed it waits: for an event, or until a value comes from tick
// (which may be nil), when it returns an empty Delivery.
//
// It returns the context's error when ctx ends, ErrClosed at the end of a closed
// feed, and ErrStopped when the hub or the subscription is closed. A store that
// cannot be read is not an error here: Next asks it again until it answers.
func (s *Subscription) Next(ctx context.Context, tick <-chan time.Time) (Delivery, error) {
	woken := s.subscriber.notifier.(tokens) // Hub.Subscribe made it: no other returns a Subscription
	for !s.isClosed() && s.hub().ctx.Err() == nil {
		if d, ok, err := s.poll(); ok || err != nil {
			return d, err
		}
		if ticked, err := woken.wait(ctx, tick, s.hub()); ticked || err != nil {
			return Delivery{}, err
		}
	}
	return Delivery{}, ErrStopped
}

// All returns an iterator over the deliveries of Next. It ends at the end of a closed
// feed. Any other error of Next comes as the last pair.
func (s *Subscription) All(ctx context.Context) iter.Seq2[Delivery, error] {
	return func(yield func(Delivery, error) bool) {
		for {
			d, err := s.Next(ctx, nil)
			if errors.Is(err, ErrClosed) || !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// poll returns what there is for the subscription at this moment. If there is
// nothing, wake is called when that may have changed.
func (s *Subscription) poll() (d Delivery, ok bool, err error) {
	s.marks.And(^pendingMark)
	if s.gap != nil {
		return s.passGap(s.gap), true, nil
	}
	// Stored and ephemeral events take turns, so that neither can keep the
	// other from a slow subscriber.
	turn := s.gaveEphemeral
	if s.gaveEphemeral = false; !turn {
		if d, s.gaveEphemeral = s.log.nextEphemeral(s); s.gaveEphemeral {
			return d, true, nil
		}
	}
	if d, ok, err = s.nextStored(); ok || !turn {
		return d, ok, err
	}
	if ephemeral, ok := s.log.nextEphemeral(s); ok {
		s.gaveEphemeral = true
		return ephemeral, true, nil
	}
	return d, false, err
}

// nextStored returns the stored events after the cursor, or the gap.
func (s *Subscription) nextStored() (d Delivery, ok bool, err error) {
	if s.reading != nil {
		select {
		case <-s.reading.done:
			if d, ok := s.takeAnswer(); ok {
				return d, true, nil
			}
		default:
			return Delivery{}, false, nil
		}
	}
	if s.retry != nil && time.Now().Before(s.retry.until) {
		return Delivery{}, false, nil
	}
	return s.readLog()
}

// readLog returns what the log has after the cursor. Where only the store knows
// what follows, it asks the store.
func (s *Subscription) readLog() (Delivery, bool, error) {
	d, view := s.log.read(s.cursor)
	for gap, changed := s.rollbackGap(); changed; gap, changed = s.rollbackGap() {
		if gap != nil {
			return s.passGap(gap), true, nil
		}
		d, view = s.log.read(s.cursor)
	}
	switch view {
	case viewEvents:
		s.advance(d, &s.hub().counts.fromLog)
		return d, true, nil
	case viewTrimmed:
		return s.passGap(d.Gap), true, nil
	case viewClosed:
		return Delivery{}, false, ErrClosed
	case viewBehind:
		s.ask(s.hub().readPage(s.log, s.cursor))
	case viewAhead:
		s.ask(s.hub().askBounds(s.log))
	}
	return Delivery{}, false, nil
}

// ask notes a call of the store, and wakes the subscriber when it ends.
func (s *Subscription) ask(call *call[sharedPage]) {
	s.reading = call
	call.then(s.wake)
}

// advance moves the cursor behind a delivery, and counts its events once.
func (s *Subscription) advance(d Delivery, count *atomic.Uint64) {
	n := uint32(len(d.Events()))
	s.cursor += ID(n)
	again := min(s.unread, n)
	s.unread -= again
	count.Add(uint64(n - again))
}

// abandon leaves the call of the store whose result the subscription has yet to
// take: the result takes memory.
func (s *Subscription) abandon() {
	if s.reading != nil {
		s.leave()
		s.setPending()
	}
}

func (s *Subscription) leave() {
	s.hub().pages.leave(s.reading)
	s.reading = nil
}

// takeAnswer takes the result of the call of the store, and returns the delivery that
// follows from it, if any.
func (s *Subscription) takeAnswer() (Delivery, bool) {
	answer, err, ok := s.hub().pages.result(s.reading)
	s.leave()
	if !ok {
		return Delivery{}, false
	}
	if err != nil {
		if s.retry == nil {
			s.retry = &retryState{}
		}
		wait := s.retry.wait.next()
		s.retry.until = time.Now().Add(wait)
		time.AfterFunc(wait, s.wake)
		return Delivery{}, false
	}
	s.retry = nil
	if s.outdated() {
		return Delivery{}, false
	}
	// The page may be older than a trim that the log knows of.
	if d, view := s.log.read(s.cursor); view == viewTrimmed {
		return s.passGap(d.Gap), true
	}
	if gap := gapAfter(s.cursor, answer.Bounds); gap != nil {
		return s.passGap(gap), true
	}
	if answer.segment == nil {
		return Delivery{}, false
	}
	d := answer.segment.since(s.cursor)
	d.stored = true
	s.advance(d, &s.hub().counts.fromStore)
	return d, true
}

// passGap moves the cursor across a gap, and returns the delivery that announces it.
func (s *Subscription) passGap(gap *Gap) Delivery {
	s.gap = nil
	s.hub().counts.gap(gap.Reason)
	s.cursor = gap.Cursor()
	return Delivery{Gap: gap}
}

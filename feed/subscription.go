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
	subscriber    *Subscriber
	log           *log
	bounds        Bounds
	marks         atomic.Uint32 // of stirred and closed
	unread        uint32        // events that were taken back, and counted as handed out
	index         int32         // in its audience, under the log's subsMu
	ended         bool          // the feed is closed, and was handed out whole
	gaveEphemeral bool          // what was handed out last was an ephemeral event
	rollbacksSeen uint16        // of the log, that the cursor has been brought in line with

	cursor        Cursor
	ephemeralSeen uint64            // ephemeral events of the log that are behind it
	gap           *Gap              // found at the start, yet to be handed out
	reading       *call[sharedPage] // what the store was asked for
	retry         *retryState       // that the store had with it, until it has not
}

const (
	pendingMark uint32 = 1 << iota // it may have something new
	closedMark
)

func (s *Subscription) setPending() { s.marks.Or(pendingMark) }

func (s *Subscription) pending() bool { return s.marks.Load()&pendingMark != 0 }

func (s *Subscription) isClosed() bool { return s.marks.Load()&closedMark != 0 }

// retryState is a store that fails to answer.
type retryState struct {
	wait  backoff
	until time.Time // when it may be asked again
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
	if s.marks.Or(closedMark)&closedMark == 0 {
		s.log.detach(s)
		s.hub().release(s.log)
		s.hub().counts.subscribers.Add(-1)
		s.wake()
	}
}

func (s *Subscription) hub() *Hub { return s.subscriber.dispatcher.hub }

// wake has the reader poll.
func (s *Subscription) wake() {
	s.setPending()
	s.subscriber.Wake()
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
	woken := s.subscriber.notifier.(tokens) // only Hub.Subscribe hands subscriptions out
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

// poll returns what there is for the subscription at this moment. If there is
// nothing, or no more, it is woken when that may have changed.
func (s *Subscription) poll() (d Delivery, ok bool, err error) {
	s.marks.And(^pendingMark)
	if s.gap != nil {
		return s.passGap(s.gap), true, nil
	}
	// What is stored and what is not take turns, so that neither can keep the
	// other from a slow reader.
	turn := s.gaveEphemeral
	if s.gaveEphemeral = false; !turn {
		if d, s.gaveEphemeral = s.log.nextEphemeral(s); s.gaveEphemeral {
			return d, true, nil
		}
	}
	if d, ok, err = s.nextStored(); ok || !turn {
		return d, ok, err
	}
	if hint, ok := s.log.nextEphemeral(s); ok {
		s.gaveEphemeral = true
		return hint, true, nil
	}
	return d, false, err
}

// stored returns what there is after the cursor.
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

// look returns what the log has after the cursor. Where only the store can
// tell what follows, it asks the store.
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

// ask has the subscription wait for an answer of the store.
func (s *Subscription) ask(call *call[sharedPage]) {
	s.reading = call
	call.then(s.wake)
}

// advance moves the cursor behind a delivery, and counts its events once.
func (s *Subscription) advance(d Delivery, count *atomic.Uint64) {
	n := uint32(len(d.Events()))
	s.cursor += Cursor(n)
	again := min(s.unread, n)
	s.unread -= again
	count.Add(uint64(n - again))
}

// abandon no longer waits for an answer of the store, which takes memory.
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

// take returns what the store's answer brings the subscription.
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
	// The page may be from before a trim that the log has heard of.
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
	s.advance(d, &s.hub().counts.fromStore)
	return d, true
}

func (s *Subscription) passGap(gap *Gap) Delivery {
	s.gap = nil
	s.hub().counts.gap(gap.Reason)
	s.cursor = gap.Cursor()
	return Delivery{Gap: gap}
}

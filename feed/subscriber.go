package feed

import (
	"context"
	"fmt"
	"sync/atomic"
)

// SubscribeRequest names a feed, and where a subscription to it starts.
type SubscribeRequest struct {
	Feed string
	From From
}

// Subscriber holds one client's subscriptions to one feed or several, and reads them as
// one with Poll. Each subscription has a cursor and gaps of its own. There is no order
// between feeds.
//
// Its methods are for one goroutine, except for Wake and Close.
type Subscriber struct {
	dispatcher *Dispatcher
	notifier   Notifier
	queued     atomic.Bool // the dispatcher has it in ready or queue
	remaining  int32       // subscriptions that have not ended
	turn       int32       // the next one to poll, so that no busy feed holds up the others
	subs       []Subscription
}

// single is a subscriber with one subscription, in one piece of memory.
type single struct {
	Subscriber
	sub [1]Subscription
}

// SubscribeAll subscribes to several feeds, all or none of them. Its errors are those
// of Subscribe. There is at least one request, and no two name the same feed.
func (h *Hub) SubscribeAll(ctx context.Context, requests []SubscribeRequest) (*BlockingSubscriber, error) {
	woken := make(tokens, 1)
	s, err := h.dispatcher.SubscribeAll(ctx, requests, woken)
	if err != nil {
		return nil, err
	}
	return &BlockingSubscriber{s, woken}, nil
}

// SubscribeAll is SubscribeAll of the hub, for a subscriber that does not wait: the
// dispatcher calls the notifier when Poll may return something.
func (d *Dispatcher) SubscribeAll(ctx context.Context, requests []SubscribeRequest, notifier Notifier) (*Subscriber, error) {
	for _, r := range requests {
		if err := CheckName(r.Feed); err != nil {
			return nil, err
		}
	}
	if err := d.hub.loadLogs(ctx, requests); err != nil {
		if d.hub.ctx.Err() != nil && ctx.Err() == nil {
			err = ErrStopped
		}
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	s := newSubscriber(len(requests))
	s.dispatcher, s.notifier = d, notifier
	for i, r := range requests {
		s.subs[i].subscriber = s
		if err := d.hub.subscribe(ctx, &s.subs[i], r); err != nil {
			s.subs = s.subs[:i]
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func newSubscriber(size int) *Subscriber {
	if size == 1 {
		s := &single{}
		s.subs, s.remaining = s.sub[:], 1
		return &s.Subscriber
	}
	return &Subscriber{subs: make([]Subscription, size), remaining: int32(size)}
}

// loadLogs loads the logs of several feeds that have none here yet, with one call of
// the store instead of one for each.
func (h *Hub) loadLogs(ctx context.Context, requests []SubscribeRequest) error {
	if len(requests) == 1 {
		return nil // subscribe shares its call with others
	}
	var unknown []*log
	for _, r := range requests {
		l, err := h.acquire(r.Feed)
		if err != nil {
			return err
		}
		defer h.work.Done()
		defer h.release(l)
		if _, loaded := l.confirmed(); !loaded {
			unknown = append(unknown, l)
		}
	}
	ctx, cancel := h.until(ctx)
	defer cancel()
	return h.compare(ctx, unknown)
}

// Size returns how many subscriptions there are.
func (s *Subscriber) Size() int { return len(s.subs) }

// At returns the position of one of the subscriptions, in the order of the requests.
func (s *Subscriber) At(index int) Position { return Position{&s.subs[index]} }

// Position shows how far one subscription of a subscriber has come. It moves as the
// subscriber reads.
type Position struct{ s *Subscription }

// Feed returns the name of the feed.
func (p Position) Feed() string { return p.s.Feed() }

// Cursor returns the cursor of the subscription.
func (p Position) Cursor() ID { return p.s.Cursor() }

// Bounds returns which events existed when the subscription was made.
func (p Position) Bounds() Bounds { return p.s.Bounds() }

// Gap returns the gap that the subscription starts with, and nil if there is none or
// Poll has returned it.
func (p Position) Gap() *Gap { return p.s.Gap() }

// Close ends all subscriptions.
func (s *Subscriber) Close() {
	for i := range s.subs {
		s.subs[i].Close()
	}
}

// Wake notifies the subscriber, so that it polls once more. It does not wait.
func (s *Subscriber) Wake() {
	if woken, waits := s.notifier.(tokens); waits {
		woken.Notify()
		return
	}
	s.dispatcher.addReady(s)
}

// Poll returns what follows the cursor of one of the subscriptions at this moment, and
// the index of that subscription. If there is nothing, the index is -1, and the
// Notifier is called when there may be something. At the end of a closed feed, Poll
// returns one Delivery that is Closed; at the end of all feeds, ErrClosed.
func (s *Subscriber) Poll() (index int, d Delivery, err error) {
	if s.dispatcher.hub.ctx.Err() != nil {
		return -1, Delivery{}, ErrStopped
	}
	for range s.subs {
		i := int(s.turn)
		if s.turn++; int(s.turn) == len(s.subs) {
			s.turn = 0
		}
		sub := &s.subs[i]
		if sub.ended || !sub.pending() {
			continue
		}
		if sub.isClosed() {
			return -1, Delivery{}, ErrStopped
		}
		d, ok, err := sub.poll()
		switch {
		case err != nil: // ErrClosed: poll returns no other
			sub.ended = true
			s.remaining--
			return i, Delivery{Closed: true}, nil
		case ok:
			if !d.newest || sub.hasEphemeral() {
				sub.setPending()
			}
			return i, d, nil
		}
	}
	if s.remaining == 0 {
		return -1, Delivery{}, ErrClosed
	}
	return -1, Delivery{}, nil
}

// PollAt is Poll of one subscription, for stored events and nothing else. It is for a
// subscriber that has begun to write an event, took the rest of its delivery back with
// Unread, and has to go on with that event.
func (s *Subscriber) PollAt(index int) (d Delivery, ok bool, err error) {
	if s.dispatcher.hub.ctx.Err() != nil {
		return Delivery{}, false, ErrStopped
	}
	sub := &s.subs[index]
	sub.marks.And(^pendingMark)
	if d, ok, err = sub.nextStored(); ok {
		sub.setPending() // there may be more, of any kind
	}
	return d, ok, err
}

// Unread moves a subscription back to the cursor c: the events behind it are delivered
// again. It is for a subscriber that cannot write them now.
func (s *Subscriber) Unread(index int, c ID) {
	sub := &s.subs[index]
	sub.unread += uint32(sub.cursor - c)
	sub.cursor = c
	sub.setPending()
}

// Abandon frees the pages of the store that the subscriptions have asked for and not
// read yet. The next Poll asks for them again.
func (s *Subscriber) Abandon() {
	for i := range s.subs {
		s.subs[i].abandon()
	}
}

// Pending reports whether Poll may return something.
func (s *Subscriber) Pending() bool {
	for i := range s.subs {
		if s.subs[i].pending() {
			return true
		}
	}
	return s.remaining == 0 // Poll returns ErrClosed
}

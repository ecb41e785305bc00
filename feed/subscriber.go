package feed

import (
	"context"
	"fmt"
	"sync/atomic"
)

// SubscribeRequest is a feed, and where a subscription to it starts.
type SubscribeRequest struct {
	Feed string
	From From
}

// Subscriber is the subscriptions of one subscriber to one feed or several, read as
// one with Poll. Each of them has a cursor and gaps of its own; there is no order
// between feeds.
//
// Its methods are for one goroutine, except for Wake and Close.
type Subscriber struct {
	dispatcher *Dispatcher
	notifier   Notifier
	queued     atomic.Bool // to be called by the lane
	remaining  int32       // subscriptions that have not ended
	turn       int32       // whose turn it is, so that one busy feed cannot hold up the others
	subs       []Subscription
}

// single is a group of one, in one piece of memory.
type single struct {
	Subscriber
	sub [1]Subscription
}

// SubscribeAll returns subscriptions to several feeds, or none of them: then
// the error is as of Subscribe. The feeds are not empty and all different.
func (h *Hub) SubscribeAll(ctx context.Context, starts []SubscribeRequest) (*BlockingSubscriber, error) {
	woken := make(tokens, 1)
	g, err := h.dispatcher.SubscribeAll(ctx, starts, woken)
	if err != nil {
		return nil, err
	}
	return &BlockingSubscriber{g, woken}, nil
}

// SubscribeAll is the hub's, of a group whose reader is called by the lane.
// Nothing else wakes it, so there is no waiting for it.
func (l *Dispatcher) SubscribeAll(ctx context.Context, starts []SubscribeRequest, reader Notifier) (*Subscriber, error) {
	g := newGroup(len(starts))
	g.dispatcher, g.notifier, g.remaining = l, reader, int32(len(starts))
	if err := l.hub.loadLogs(ctx, starts); err != nil {
		if l.hub.ctx.Err() != nil && ctx.Err() == nil {
			err = ErrStopped
		}
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	for i, start := range starts {
		g.subs[i].subscriber = g
		if err := l.hub.subscribe(ctx, &g.subs[i], start); err != nil {
			g.subs = g.subs[:i]
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

func newGroup(size int) *Subscriber {
	if size == 1 {
		s := &single{}
		s.subs = s.sub[:]
		return &s.Subscriber
	}
	return &Subscriber{subs: make([]Subscription, size)}
}

// introduce has one call of the store say where the feeds are that nobody
// follows here yet, instead of one call for each.
func (h *Hub) loadLogs(ctx context.Context, starts []SubscribeRequest) error {
	if len(starts) == 1 {
		return nil // Subscribe shares its call with others
	}
	var unknown []*log
	for _, start := range starts {
		if err := CheckName(start.Feed); err != nil {
			return err
		}
		l, err := h.acquire(start.Feed)
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
func (g *Subscriber) Size() int { return len(g.subs) }

// At returns where one of the subscriptions stands. They are in the order of
// their starts.
func (g *Subscriber) At(index int) Position { return Position{&g.subs[index]} }

// Position is where a subscription of a group stands. It moves with the group,
// which alone reads and closes its subscriptions.
type Position struct{ s *Subscription }

// Feed returns the name of the feed.
func (p Position) Feed() string { return p.s.Feed() }

// Cursor returns the cursor of the subscription.
func (p Position) Cursor() Cursor { return p.s.Cursor() }

// Bounds returns which events existed when the subscription was made.
func (p Position) Bounds() Bounds { return p.s.Bounds() }

// Gap returns the gap that the subscription starts with and that has not been
// handed out yet, or nil.
func (p Position) Gap() *Gap { return p.s.Gap() }

// Close ends all subscriptions.
func (g *Subscriber) Close() {
	for i := range g.subs {
		g.subs[i].Close()
	}
}

// Wake has the reader called, and Poll asked once more. It does not wait.
func (g *Subscriber) Wake() {
	if woken, waits := g.notifier.(tokens); waits {
		woken.Notify()
		return
	}
	g.dispatcher.call(g)
}

// Poll returns what follows the cursor of one of the subscriptions at this
// moment: that at the index. If there is nothing, the index is -1, and the reader
// is called when there may be something. Of a feed that is closed and was handed
// out whole it returns one Delivery that says Closed; when all are, ErrClosed.
func (g *Subscriber) Poll() (index int, d Delivery, err error) {
	if g.dispatcher.hub.ctx.Err() != nil {
		return -1, Delivery{}, ErrStopped
	}
	for range g.subs {
		i := int(g.turn)
		if g.turn++; int(g.turn) == len(g.subs) {
			g.turn = 0
		}
		s := &g.subs[i]
		if s.ended || !s.pending() {
			continue
		}
		if s.isClosed() {
			return -1, Delivery{}, ErrStopped
		}
		d, ok, err := s.poll()
		switch {
		case err != nil: // ErrClosed, which is all that poll returns
			s.ended = true
			g.remaining--
			return i, Delivery{Closed: true}, nil
		case ok:
			if !d.newest || s.hasEphemeral() {
				s.setPending()
			}
			return i, d, nil
		}
	}
	if g.remaining == 0 {
		return -1, Delivery{}, ErrClosed
	}
	return -1, Delivery{}, nil
}

// PollAt is Poll of the one subscription, for events that are stored and nothing
// else: it is for a reader that has begun to write an event, took the rest back with
// Unread and has to go on with it.
func (g *Subscriber) PollAt(index int) (d Delivery, ok bool, err error) {
	if g.dispatcher.hub.ctx.Err() != nil {
		return Delivery{}, false, ErrStopped
	}
	s := &g.subs[index]
	s.marks.And(^pendingMark)
	if d, ok, err = s.nextStored(); ok {
		s.setPending() // for whatever else there is
	}
	return d, ok, err
}

// Unread takes back what one of the subscriptions has handed out behind the cursor
// c: it is handed out again. It is for a reader that cannot get rid of it now.
func (g *Subscriber) Unread(index int, c Cursor) {
	s := &g.subs[index]
	s.unread += uint32(s.cursor - c)
	s.cursor = c
	s.setPending()
}

// Abandon lets go of what the subscriptions hold beside their cursors: pages of the
// store that were asked for, and are asked for again by the next Poll.
func (g *Subscriber) Abandon() {
	for i := range g.subs {
		g.subs[i].abandon()
	}
}

// Stirred says whether Poll may have something.
func (g *Subscriber) Pending() bool {
	for i := range g.subs {
		if g.subs[i].pending() {
			return true
		}
	}
	return g.remaining == 0 // then it says so
}

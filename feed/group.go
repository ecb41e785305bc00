package feed

import (
	"context"
	"fmt"
	"time"
)

// Start is a feed, and where a subscription to it starts.
type Start struct {
	Feed string
	From From
}

// Group is the subscriptions of one subscriber to one feed or several, read as
// one. Each of them has a cursor and gaps of its own; there is no order between
// feeds.
//
// Its methods are for one goroutine, except for Close.
type Group struct {
	hub   *Hub
	subs  []*Subscription
	ended []bool // closed, and handed out whole
	left  int    // that have not ended
	turn  int    // whose turn it is, so that one busy feed cannot hold up the others
	woken chan struct{}
}

// SubscribeAll returns subscriptions to several feeds, or none of them: then
// the error is as of Subscribe. The feeds are not empty and all different.
func (h *Hub) SubscribeAll(ctx context.Context, starts []Start) (*Group, error) {
	g := &Group{
		hub:   h,
		subs:  make([]*Subscription, 0, len(starts)),
		ended: make([]bool, len(starts)),
		left:  len(starts),
		woken: make(chan struct{}, 1),
	}
	if err := h.introduce(ctx, starts); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	for _, start := range starts {
		s, err := h.subscribeTo(ctx, start, g.woken)
		if err != nil {
			g.Close()
			return nil, err
		}
		s.stirred.Store(true) // it has not been polled yet
		g.subs = append(g.subs, s)
	}
	return g, nil
}

// introduce has one call of the store say where the feeds are that nobody
// follows here yet, instead of one call for each.
func (h *Hub) introduce(ctx context.Context, starts []Start) error {
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
		if _, loaded := l.proven(); !loaded {
			unknown = append(unknown, l)
		}
	}
	ctx, cancel := h.until(ctx)
	defer cancel()
	return h.compare(ctx, unknown)
}

// Subscriptions returns the subscriptions in the order of their starts. They
// are read and closed by the group alone.
func (g *Group) Subscriptions() []*Subscription { return g.subs }

// Close ends all subscriptions.
func (g *Group) Close() {
	for _, s := range g.subs {
		s.Close()
	}
}

// Next returns what follows the cursor of one of the subscriptions, which is
// the one at the index, as [Subscription] Next does. Of a feed that is closed
// and was handed out whole it returns one Delivery that says Closed; when all
// are, ErrClosed. On a tick, the index is -1.
func (g *Group) Next(ctx context.Context, tick <-chan time.Time) (index int, d Delivery, err error) {
	for g.hub.ctx.Err() == nil {
		if index, d, err = g.poll(); index >= 0 || err != nil {
			return index, d, err
		}
		if ticked, err := g.hub.await(ctx, g.woken, tick); ticked || err != nil {
			return -1, Delivery{}, err
		}
	}
	return -1, Delivery{}, ErrStopped
}

// poll returns what there is at this moment, and -1 if there is nothing.
func (g *Group) poll() (index int, d Delivery, err error) {
	for range g.subs {
		i := g.turn
		g.turn = (g.turn + 1) % len(g.subs)
		s := g.subs[i]
		if g.ended[i] || !s.stirred.Load() {
			continue
		}
		if s.closed.Load() {
			return -1, Delivery{}, ErrStopped
		}
		d, ok, err := s.poll()
		switch {
		case err != nil: // ErrClosed, which is all that poll returns
			g.ended[i] = true
			g.left--
			return i, Delivery{Closed: true}, nil
		case ok:
			s.stirred.Store(true) // there may be more
			return i, d, nil
		}
	}
	if g.left == 0 {
		return -1, Delivery{}, ErrClosed
	}
	return -1, Delivery{}, nil
}

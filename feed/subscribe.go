package feed

import (
	"context"
	"fmt"
)

// Subscribe returns a subscription to the feed that starts at from. It reads
// the store only if this node's memory does not show where that is.
//
// Its errors wrap ErrInvalid for a bad name, ErrStopped for a closed hub, the
// context's, or the store's: then the same call may succeed later.
func (h *Hub) Subscribe(ctx context.Context, feed string, from From) (*Subscription, error) {
	s, err := h.SubscribeAll(ctx, []SubscribeRequest{{feed, from}})
	if err != nil {
		return nil, err
	}
	return &s.subs[0], nil
}

// subscribe starts s, which belongs to a subscriber and has nothing else yet.
func (h *Hub) subscribe(ctx context.Context, s *Subscription, r SubscribeRequest) error {
	l, err := h.acquire(r.Feed)
	if err != nil {
		return err
	}
	defer h.work.Done()
	if err := h.startAt(ctx, s, l, r.From); err != nil {
		h.release(l)
		if h.ctx.Err() != nil && ctx.Err() == nil {
			err = ErrStopped
		}
		return fmt.Errorf("subscribe to %s: %w", r.Feed, err)
	}
	return nil
}

// startAt finds the cursor that the subscription starts from, and attaches it to its log.
func (h *Hub) startAt(ctx context.Context, s *Subscription, l *log, from From) error {
	rollbacks := uint16(l.rollbackCount.Load())
	b, err := h.boundsFor(ctx, l, from)
	if err != nil {
		return err
	}
	if from.kind != fromCursor {
		rollbacks = uint16(l.rollbackCount.Load()) // it has seen no event that could be undone
	}
	found, err := h.seek(ctx, l.feed, from)
	if err != nil {
		return err
	}
	// The bounds may be shared, and older than what seek has found or the log has.
	b.Last = max(b.Last, found)
	if c, ok := l.confirmed(); ok {
		b.First = min(max(b.First, c.first), b.Last+1)
	}
	s.log, s.bounds, s.rollbacksSeen = l, b, rollbacks
	s.cursor, s.gap = locate(from, b, found)
	s.setPending() // it has not been polled yet
	l.attach(s)
	h.counts.subscribers.Add(1)
	if l.reserved {
		poke(h.watched)
	}
	return nil
}

// seek returns the cursor before the time of from, and 0 if from has no time.
func (h *Hub) seek(ctx context.Context, feed string, from From) (ID, error) {
	if from.kind != fromTime && from.kind != fromMoment || Reserved(feed) {
		return 0, nil
	}
	ctx, cancel := h.until(ctx)
	defer cancel()
	seek := h.store.Seek
	if from.kind == fromMoment {
		seek = h.seekMoment
	}
	c, err := seek(ctx, feed, from.time)
	h.noteFeed(ctx, err, seekingInFeed, feed)
	return c, err
}

// boundsFor returns bounds that are recent enough to decide where from is.
func (h *Hub) boundsFor(ctx context.Context, l *log, from From) (Bounds, error) {
	resumes := from.kind == fromCursor
	if b, complete, loaded := l.bounds(); loaded {
		if from.kind == fromNow && complete || resumes && from.cursor <= b.Last {
			return b, nil
		}
	}
	b, err := h.bounds.do(l.feed, h.goWork, func() (Bounds, error) { return h.readBounds(h.ctx, l) }).wait(ctx)
	if err != nil {
		return Bounds{}, err
	}
	if resumes && from.cursor > b.Last {
		// The shared answer may be older than the event that this cursor
		// stands for. Only an answer to a later question can prove "ahead".
		ctx, cancel := h.until(ctx)
		defer cancel()
		return h.readBounds(ctx, l)
	}
	// The call that was shared may have been for a log that has since been dropped.
	h.apply(l, l.setBounds(b, confirmed{}))
	return b, nil
}

// readBounds asks the store for the bounds of the log's feed, and compares the log
// with them.
func (h *Hub) readBounds(ctx context.Context, l *log) (Bounds, error) {
	if h.ctx.Err() != nil {
		return Bounds{}, ErrStopped
	}
	if l.reserved {
		return Bounds{First: 1}, nil
	}
	all, err := h.compareLogs(ctx, []*log{l})
	h.noteFeed(ctx, err, locatingFeed, l.feed)
	if err != nil {
		return Bounds{}, err
	}
	return all[0], nil
}

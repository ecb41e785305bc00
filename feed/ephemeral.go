package feed

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Ephemeral events are not stored and have no id. They reach the subscribers that are
// connected when they are published, and leave every cursor where it is.

const (
	// What a log keeps of them, for subscribers that are not quick enough.
	ephemeraEvents = 64
	ephemeraBytes  = 256 << 10

	// How long an ephemeral publish waits for the store to answer whether the feed
	// is closed.
	closedPatience = 250 * time.Millisecond
)

// ephemera holds the newest ephemeral events of one feed, under the lock of its
// log. Each is in a segment of its own, so that its encoded bytes are shared.
type ephemera struct {
	total  atomic.Uint64 // how many there ever were; may be read without the lock
	newest []*segment
	bytes  int
	at     time.Time // of the newest
}

// add adds the segment of one event.
func (e *ephemera) add(s *segment, c *cache, now time.Time) {
	e.newest = append(e.newest, s)
	e.bytes += s.bytes
	e.total.Add(1)
	e.at = now
	for len(e.newest) > ephemeraEvents || e.bytes > ephemeraBytes && len(e.newest) > 1 {
		e.discard(c, 1)
	}
}

// discard drops the oldest n events.
func (e *ephemera) discard(c *cache, n int) {
	for _, s := range e.newest[:n] {
		e.bytes -= s.bytes
		c.remove(s)
	}
	e.newest = slices.Delete(e.newest, 0, n)
}

// since returns the oldest event that is kept after the first seen ones, and how many
// the subscriber has passed then.
func (e *ephemera) since(seen uint64) (d Delivery, now uint64, ok bool) {
	total := e.total.Load()
	kept := total - uint64(len(e.newest))
	if seen = max(seen, kept); seen == total {
		return Delivery{}, seen, false
	}
	s := e.newest[seen-kept]
	return Delivery{Ephemeral: true, segment: s, seen: s.events}, seen + 1, true
}

// nextEphemeral returns the oldest ephemeral event that s has not passed.
func (l *log) nextEphemeral(s *Subscription) (d Delivery, ok bool) {
	if !s.hasEphemeral() {
		return Delivery{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d, s.ephemeralSeen, ok = l.ephemera.since(s.ephemeralSeen)
	return d, ok
}

// hasEphemeral reports whether there are ephemeral events that s has not passed.
func (s *Subscription) hasEphemeral() bool { return s.log.ephemera.total.Load() != s.ephemeralSeen }

// PublishEphemeral sends the draft to the feed's subscribers, on this node and
// on every other that the bus reaches at this moment, and stores nothing. Its
// errors wrap ErrInvalid, ErrTooLarge, ErrClosed (the feed is closed) and
// ErrStopped.
func (p *Publisher) PublishEphemeral(ctx context.Context, d Draft) error {
	d, err := d.clean(int(p.limit.Load()))
	if err != nil {
		return err
	}
	p.mu.Lock()
	stopped := p.closed
	p.mu.Unlock()
	if stopped {
		return ErrStopped
	}
	return p.hub.publishEphemeral(ctx, Event{Feed: d.Feed, Type: d.Type, Data: d.Data, JSON: d.JSON})
}

// publishEphemeral hands the event to the subscribers of every node. It is the only way
// of an ephemeral publish into the hub.
func (h *Hub) publishEphemeral(ctx context.Context, e Event) error {
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if h.isClosed(ctx, e.Feed) {
		return ErrClosed
	}
	e.Time = time.Now().UTC().Truncate(time.Millisecond)
	h.ephemeral(e)
	h.signals.send(note{Kind: signalEphemeral, Event: &e})
	return nil
}

// ephemeral reports whether e, which came from another node, can be an ephemeral event.
// The bus is not trusted with data that a browser would take for something else.
func (e *Event) ephemeral() bool {
	const limit = 1 << 29 // the other node's limit is not known
	d := Draft{Feed: e.Feed, Type: e.Type, Data: e.Data, JSON: e.JSON}
	clean, err := d.clean(limit)
	return err == nil && clean == d && e.ID == 0
}

// isClosed reports whether the feed is known to be closed. While the store does
// not answer, none is.
func (h *Hub) isClosed(ctx context.Context, feed string) bool {
	if l := h.lookup(feed); l != nil {
		if b, _, ok := l.bounds(); ok {
			return b.Closed
		}
	}
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	b, err := h.bounds.do(feed, h.goWork, func() (Bounds, error) {
		if h.ctx.Err() != nil {
			return Bounds{}, ErrStopped
		}
		all, err := h.store.Bounds(h.ctx, []string{feed})
		if err != nil {
			return Bounds{}, err
		}
		return all[0], nil
	}).wait(ctx)
	return err == nil && b.Closed
}

// ephemeral delivers the event to the subscribers of this node.
func (h *Hub) ephemeral(e Event) {
	l := h.lookup(e.Feed)
	if l == nil {
		return
	}
	l.mu.Lock()
	e.Feed = l.feed
	l.ephemera.add(l.beginSegment(0, []Event{e}), l.cache, time.Now())
	l.mu.Unlock()
	h.apply(l, logChange{grew: true})
}

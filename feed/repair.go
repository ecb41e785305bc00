package feed

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a hub does by itself: it takes events from wherever they come, wakes
// the subscribers, and keeps every log in step with the store.

// accept takes events that the store has committed into the logs that want
// them, and returns how many were taken. Events of one feed that stand together
// are taken together. own says that this node has committed them just now.
func (h *Hub) accept(events []Event, own bool) (taken int) {
	now := time.Now()
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Feed == events[0].Feed {
			n++
		}
		if l := h.lookup(events[0].Feed); l != nil {
			if l.conflicts(events[:n], own) {
				h.suspect(l)
				h.noteEvents(events[n-1 : n])
			} else {
				o := l.accept(events[:n], now)
				h.apply(l, o)
				taken += o.taken
			}
		}
		events = events[n:]
	}
	return taken
}

// appendOutcome is what became of an append by a publisher of this node.
type appendOutcome struct {
	batches []Batch
	results []Result // none after an error
	err     error
	epoch   uint64 // of the hub, before the append
	blocked string // the feed that the append has waited for; empty if it does not wait
}

// takeAppend takes the outcome of an append, and returns the events that it stored. It
// is the only way of a publish into the hub.
func (h *Hub) takeAppend(a appendOutcome) (stored []Event) {
	if a.blocked == "" {
		h.noteStoring(a.err)
	} else {
		h.noteFeed(context.Background(), a.err, storingInFeed, a.blocked)
	}
	if errors.Is(a.err, ErrUncertain) {
		h.recheckAll() // which finds out what was stored
	}
	stored = make([]Event, 0, len(a.results))
	for _, r := range a.results {
		if r.Err == nil && !r.Replayed {
			stored = append(stored, r.Events...)
		}
	}
	if a.epoch == h.epoch() {
		h.accept(stored, true)
	} else {
		h.noteEvents(stored) // the store may have been replaced since: the logs read it
	}
	for i, r := range a.results {
		if r.Replayed {
			h.noteEvents(r.Events)
		}
		if errors.Is(r.Err, ErrUncertain) {
			h.recheckAll()
		}
		if r.Err == nil && a.batches[i].Close {
			h.changed(a.batches[i].Feed)
		}
	}
	return stored
}

// noteEvents has the logs ask for events that the store has, but this node may not.
func (h *Hub) noteEvents(events []Event) {
	for i := range events {
		receiver{h}.Grew(events[i].Feed, events[i].ID)
	}
}

// receiver is the hub as the bus sees it.
type receiver struct{ *Hub }

func (r receiver) Cursor(feed string) (Cursor, bool) {
	l := r.lookup(feed)
	if l == nil {
		return 0, false
	}
	p, ok := l.confirmed()
	return p.tail, ok
}

func (r receiver) Receive(events []Event) { r.counts.fromBus.Add(uint64(r.accept(events, false))) }

func (r receiver) Grew(feed string, last uint64) {
	if l := r.lookup(feed); l != nil {
		r.apply(l, l.noteLast(last))
	}
}

func (r receiver) Missed() { r.recheckAll() }

// tailLoop listens to the bus for as long as the hub lives.
func (h *Hub) tailLoop() {
	for {
		err := h.bus.Tail(h.ctx, receiver{h})
		if h.ctx.Err() != nil {
			return
		}
		h.logger.Error("tailing the bus ended; events of other nodes arrive late until it works again", "error", err)
		h.pause(time.Second)
	}
}

// fill reads from the store what a log lacks, until it has all that is known
// to exist, or nobody needs the log any more.
func (h *Hub) fill(l *log) {
	wait := backoff{}
	for h.ctx.Err() == nil {
		if h.lookup(l.feed) != l {
			return
		}
		w := l.toFill()
		epoch := h.epoch()
		p, same, err := h.readFill(l.feed, w)
		h.noteRead(h.ctx, err, l.feed, w.tail)
		if err != nil {
			h.failures.Add(1)
		}
		if err != nil || epoch != h.epoch() {
			h.pause(wait.next()) // the store may have been replaced meanwhile
			continue
		}
		wait = backoff{}
		if !same {
			l.freeze(w)
			h.suspect(l)
		}
		grew, done := l.fill(w, p, time.Now())
		h.apply(l, logChange{grew: grew})
		if grew {
			h.counts.repairs.Add(1)
		}
		if done {
			return
		}
	}
}

// readPage asks the store for the page of a log's feed after the cursor. Pages
// end at round ids, so that subscribers that came from anywhere soon share them.
func (h *Hub) readPage(l *log, after Cursor) *call[sharedPage] {
	feed := l.feed
	return h.pages.do(pageKey{feed, after, l.toFill().generation}, h.goWork, func() (sharedPage, error) {
		if h.ctx.Err() != nil {
			return sharedPage{}, ErrStopped
		}
		limit := pageLimit
		limit.Events -= int(after % Cursor(limit.Events))
		p, err := h.store.Read(h.ctx, feed, after, limit)
		if err == nil {
			err = checkPage(feed, after, p)
		}
		h.noteRead(h.ctx, err, feed, after)
		if err != nil {
			return sharedPage{}, err
		}
		if uint64(after) >= p.Last {
			// The log has been further than that: the store was replaced. Where
			// that leaves the subscriber is not for a shared answer to say; the
			// log is about to find out.
			h.recheckAll()
			return sharedPage{}, fmt.Errorf("read %s after %d: the store ends with %d", feed, after, p.Last)
		}
		if len(p.Events) == 0 {
			return sharedPage{Bounds: p.Bounds}, nil
		}
		return sharedPage{p.Bounds, newSegment(Cursor(p.Events[0].ID-1), p.Events)}, nil
	})
}

// checkPage holds a store to what Read promises: ids without a hole, and an
// event if there is one.
func checkPage(feed string, after Cursor, p Page) error {
	start := max(uint64(after)+1, p.First)
	next := start
	for i := range p.Events {
		if p.Events[i].ID != next {
			break
		}
		next++
	}
	if next-start == uint64(len(p.Events)) && (next > start || start > p.Last) {
		return nil
	}
	return fmt.Errorf("the store broke its promise: read %s after %d: the page of %d events lacks event %d of %d", feed, after, len(p.Events), next, p.Last)
}

// askBounds asks the store for the bounds of a log's feed as they are now:
// unlike a page, the answer is not shared.
func (h *Hub) askBounds(l *log) *call[sharedPage] {
	call := &call[sharedPage]{done: make(chan struct{})}
	h.goWork(func() {
		call.value.Bounds, call.err = h.readBounds(h.ctx, l)
		call.finish()
	})
	return call
}

// pause waits for d, or until the hub is closed.
func (h *Hub) pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(h.ctx, d)
	defer cancel()
	<-ctx.Done()
}

// backoff is how long to wait before the next try: longer each time, up to a
// bound that keeps recovery quick once the store is back.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 25*time.Millisecond), time.Second)
	return b.last
}

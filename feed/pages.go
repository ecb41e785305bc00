package feed

import "fmt"

// pageLimit is what one read from the store returns at most. A page stays small, as
// many are held at one time.
var pageLimit = Limit{Events: 512, Bytes: 64 << 10}

const (
	pageCost  = 512 << 10 // what a page takes in memory, with its encoded events, roughly
	pagesMost = 32        // pages at one time
)

// pageKey names the page of a feed that begins after a cursor.
type pageKey struct {
	feed       string
	after      ID
	generation int // of the log: a page that was read in another may be of another store
}

// sharedPage is a page read from the store, in a form that subscribers can share.
type sharedPage struct {
	Bounds
	segment *segment // nil without events
}

// readPage asks the store for the page of a log's feed after the cursor. Pages
// end at round ids, so that subscribers that came from anywhere soon share them.
func (h *Hub) readPage(l *log, after ID) *call[sharedPage] {
	feed := l.feed
	return h.pages.do(pageKey{feed, after, l.toFill().generation}, h.goWork, func() (sharedPage, error) {
		if h.ctx.Err() != nil {
			return sharedPage{}, ErrStopped
		}
		limit := pageLimit
		limit.Events -= int(after % ID(limit.Events))
		p, err := h.store.Read(h.ctx, feed, after, limit)
		if err == nil {
			err = checkPage(feed, after, p)
		}
		h.noteRead(h.ctx, err, feed, after)
		if err != nil {
			return sharedPage{}, err
		}
		if after >= p.Last {
			// The log has been further than that: the store was replaced. A shared
			// answer cannot decide what that means for each subscriber. The hub
			// compares the log, which then can.
			h.recheckAll()
			return sharedPage{}, fmt.Errorf("read %s after %d: the store ends with %d", feed, after, p.Last)
		}
		if len(p.Events) == 0 {
			return sharedPage{Bounds: p.Bounds}, nil
		}
		return sharedPage{p.Bounds, newSegment(p.Events[0].ID-1, p.Events)}, nil
	})
}

// checkPage holds a store to what Read promises: ids without a hole, and at least one
// event if there is any.
func checkPage(feed string, after ID, p Page) error {
	start := max(after+1, p.First)
	next := start
	for i := range p.Events {
		if p.Events[i].ID != next {
			break
		}
		next++
	}
	if next-start == ID(len(p.Events)) && (next > start || start > p.Last) {
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

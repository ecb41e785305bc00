package feed

import (
	"slices"
	"sync/atomic"
)

// CloseWatch reports the close of one feed. It costs no goroutine while it waits.
type CloseWatch struct {
	hub     *Hub
	log     *log
	closed  chan struct{}
	open    atomic.Bool
	stopped atomic.Bool
}

// WatchClose watches the feed until Stop. A close by this node is reported at once, one
// by another node as soon as that node's signal or a comparison with the store shows it
// (HubOptions.Verify). The error wraps ErrInvalid for a bad name, or ErrStopped.
func (h *Hub) WatchClose(feed string) (*CloseWatch, error) {
	if err := CheckName(feed); err != nil {
		return nil, err
	}
	l, err := h.acquire(feed)
	if err != nil {
		return nil, err
	}
	defer h.work.Done()
	w := &CloseWatch{hub: h, log: l, closed: make(chan struct{}, 1)}
	l.mu.Lock()
	l.watches = append(l.watches, w)
	w.note(l.closed)
	l.mu.Unlock()
	h.goWork(w.look)
	return w, nil
}

// look asks the store whether the feed is open, which the log may have yet to learn. It
// also loads the log: one that is not loaded takes no part in comparisons.
func (w *CloseWatch) look() {
	for !w.stopped.Load() && w.hub.ctx.Err() == nil {
		b, err := w.hub.readBounds(w.hub.ctx, w.log)
		if err == nil {
			w.open.Store(!b.Closed)
			return
		}
		w.hub.pause(w.hub.verify)
	}
}

// Closed gets one value when the feed is closed, also if it was before the watch began.
func (w *CloseWatch) Closed() <-chan struct{} { return w.closed }

// WasOpen reports whether the store has said since the watch began that the feed is open.
func (w *CloseWatch) WasOpen() bool { return w.open.Load() }

// Stop ends the watch. It is called once.
func (w *CloseWatch) Stop() {
	w.stopped.Store(true)
	w.log.mu.Lock()
	i := slices.Index(w.log.watches, w)
	w.log.watches = slices.Delete(w.log.watches, i, i+1)
	w.log.mu.Unlock()
	w.hub.release(w.log)
}

// note takes whether the log knows that the feed is closed. The caller holds the log's mu.
func (w *CloseWatch) note(closed bool) {
	if closed {
		poke(w.closed)
	}
}

// noteWatches tells the watches whether the feed is closed. The caller holds mu.
func (l *log) noteWatches() {
	for _, w := range l.watches {
		w.note(l.closed)
	}
}

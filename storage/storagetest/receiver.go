package storagetest

import (
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// receiver is a node that follows feeds and records what the bus passes to it.
type receiver struct {
	mu      sync.Mutex
	cursors map[string]feed.ID // of the open feeds
	events  map[string]map[feed.ID]feed.Event
	grew    map[string]feed.ID
	missed  int
	calls   int // that run now
	overlap bool
	changed chan struct{} // closed and replaced as something arrives
	held    chan struct{} // closed unless the receiver stands still
}

func newReceiver(feeds ...string) *receiver {
	r := &receiver{
		cursors: make(map[string]feed.ID),
		events:  make(map[string]map[feed.ID]feed.Event),
		grew:    make(map[string]feed.ID),
		changed: make(chan struct{}),
		held:    make(chan struct{}),
	}
	close(r.held)
	for _, name := range feeds {
		r.cursors[name] = 0
	}
	return r
}

// call registers a call of the bus other than of Cursor, and detects concurrent calls.
func (r *receiver) call(f func()) {
	r.mu.Lock()
	r.calls++
	r.overlap = r.overlap || r.calls > 1
	held := r.held
	r.mu.Unlock()
	<-held
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.calls--
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *receiver) Cursor(name string) (after feed.ID, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	after, open = r.cursors[name]
	return after, open
}

func (r *receiver) Receive(events []feed.Event) {
	r.call(func() {
		for _, e := range events {
			if r.events[e.Feed] == nil {
				r.events[e.Feed] = make(map[feed.ID]feed.Event)
			}
			r.events[e.Feed][e.ID] = e
			// Like a hub, it moves only to the next event.
			if c, open := r.cursors[e.Feed]; open && e.ID == c+1 {
				r.cursors[e.Feed]++
			}
		}
	})
}

func (r *receiver) Grew(name string, last feed.ID) {
	r.call(func() { r.grew[name] = max(r.grew[name], last) })
}

func (r *receiver) Missed() { r.call(func() { r.missed++ }) }

// wait returns true once ok holds, and false after the limit. It calls ok with r
// locked.
func (r *receiver) wait(limit time.Duration, ok func() bool) bool {
	timeout := time.After(limit)
	for {
		r.mu.Lock()
		done, changed := ok(), r.changed
		r.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// has reports whether the receiver has got exactly these events.
func (r *receiver) has(events []feed.Event) bool {
	for _, e := range events {
		got, ok := r.events[e.Feed][e.ID]
		if !ok || !sameEvent(got, e) {
			return false
		}
	}
	return true
}

// hold blocks the receiver until it is released. It returns the number of calls of Missed
// until then.
func (r *receiver) hold() (missed int, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make(chan struct{})
	r.held = held
	return r.missed, sync.OnceFunc(func() { close(held) })
}

package storagetest

import (
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// callee is what a bus calls. It detects concurrent calls, and may stand still.
type callee struct {
	mu      sync.Mutex
	calls   int // that run now
	overlap bool
	changed chan struct{} // closed and replaced as something arrives
	held    chan struct{} // closed unless the callee stands still
}

func newCallee() *callee {
	c := &callee{changed: make(chan struct{}), held: make(chan struct{})}
	close(c.held)
	return c
}

// call runs f as a call of the bus, with c locked.
func (c *callee) call(f func()) {
	c.mu.Lock()
	c.calls++
	c.overlap = c.overlap || c.calls > 1
	held := c.held
	c.mu.Unlock()
	<-held
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.calls--
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns true once ok holds, and false after the limit. It calls ok with c locked.
func (c *callee) wait(limit time.Duration, ok func() bool) bool {
	timeout := time.After(limit)
	for {
		c.mu.Lock()
		done, changed := ok(), c.changed
		c.mu.Unlock()
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

// hold blocks calls until they are released.
func (c *callee) hold() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := make(chan struct{})
	c.held = held
	return sync.OnceFunc(func() { close(held) })
}

// receiver is a node that follows feeds and records what the bus passes to it.
type receiver struct {
	*callee
	cursors map[string]feed.ID // of the open feeds
	events  map[string]map[feed.ID]feed.Event
	grew    map[string]feed.ID
	missed  int
}

func newReceiver(feeds ...string) *receiver {
	r := &receiver{
		callee:  newCallee(),
		cursors: make(map[string]feed.ID),
		events:  make(map[string]map[feed.ID]feed.Event),
		grew:    make(map[string]feed.ID),
	}
	for _, name := range feeds {
		r.cursors[name] = 0
	}
	return r
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

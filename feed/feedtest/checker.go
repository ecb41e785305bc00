package feedtest

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// Checker judges deliveries from outside. A test reports the answers that
// publishers got, the changes of the store, and the events that each subscriber
// received; the checker does not know how events travel. It requires that each
// subscriber receives consecutive ids from its opening cursor on, with the bytes
// that are stored under them, gaps only where events are gone, and exactly as
// large, and everything in the end. It requires that the store has every
// acknowledged event.
//
// A Checker is safe for concurrent use.
type Checker struct {
	mu        sync.Mutex
	feeds     map[string]*record
	followers []*Follower
	faults    []error
}

// mostFaults bounds the report: the first faults tell the story.
const mostFaults = 20

// record holds what the checker knows of a feed.
type record struct {
	stored   map[feed.ID][]feed.Event // what was ever stored under an id, as far as known
	acked    map[feed.ID]feed.Event   // what has to be stored now, unless trimmed
	unproven map[feed.ID]feed.Event   // seen by subscribers, but not known to be stored
	unsure   []feed.Draft             // published, with an unknown outcome
	highest  feed.ID                  // the highest id that ever existed, as far as known
	trimmed  feed.ID                  // the events before it may be gone
	ends     []feed.ID                // where rollbacks made the feed end
	closes   []feed.ID                // where the feed was closed: once, unless it was rolled back
	closed   bool                     // it is now
	keys     map[string]*key
	keyOf    map[body]string
}

// NewChecker returns a checker that has seen nothing yet.
func NewChecker() *Checker { return &Checker{feeds: make(map[string]*record)} }

func (c *Checker) record(name string) *record {
	r := c.feeds[name]
	if r == nil {
		r = &record{
			stored:   make(map[feed.ID][]feed.Event),
			acked:    make(map[feed.ID]feed.Event),
			unproven: make(map[feed.ID]feed.Event),
			keys:     make(map[string]*key),
			keyOf:    make(map[body]string),
		}
		c.feeds[name] = r
	}
	return r
}

func (c *Checker) fault(format string, args ...any) {
	if len(c.faults) < mostFaults {
		c.faults = append(c.faults, fmt.Errorf(format, args...))
	}
}

// Err returns the faults found so far, or nil.
func (c *Checker) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.faults...)
}

// Acked notes that a publish was answered with these events.
func (c *Checker) Acked(events ...feed.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		r := c.record(e.Feed)
		if old, ok := r.acked[e.ID]; ok {
			c.fault("%s: event %d was acknowledged twice: %s and %s", e.Feed, e.ID, show(old), show(e))
		}
		r.acked[e.ID] = e
		c.keep(e)
	}
}

// Stored notes that the store holds these events. It is not needed for events
// that are acknowledged.
func (c *Checker) Stored(events ...feed.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range events {
		c.keep(e)
	}
}

// Unsure notes that a publish of these drafts had an unknown outcome.
func (c *Checker) Unsure(drafts ...feed.Draft) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range drafts {
		r := c.record(d.Feed)
		r.unsure = append(r.unsure, d)
	}
}

// keep notes that e is, or was, in the store.
func (c *Checker) keep(e feed.Event) {
	r := c.record(e.Feed)
	if end, closed := r.end(); closed && e.ID > end {
		c.fault("%s: event %d was stored after the close at %d", e.Feed, e.ID, end)
	}
	c.keepOnce(r, e)
	if slices.ContainsFunc(r.stored[e.ID], func(old feed.Event) bool { return same(old, e) }) {
		return
	}
	if old := r.stored[e.ID]; len(old) > 0 && len(r.ends) == 0 {
		c.fault("%s: event %d is %s and %s", e.Feed, e.ID, show(old[0]), show(e))
	}
	if seen, ok := r.unproven[e.ID]; ok {
		if !same(seen, e) && len(r.ends) == 0 {
			c.fault("%s: event %d was delivered as %s, but is %s", e.Feed, e.ID, show(seen), show(e))
		}
		delete(r.unproven, e.ID)
	}
	r.stored[e.ID] = append(r.stored[e.ID], e)
	r.highest = max(r.highest, e.ID)
}

// Trimming notes that the store may delete the feed's events with ids below
// before from now on. Call it before the store does.
func (c *Checker) Trimming(name string, before feed.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record(name)
	r.trimmed = max(r.trimmed, before)
}

// RolledBack notes that an older store took the place of the store, in which the
// feed ends with last. Later events may still arrive where they were under way,
// and trimmed ones may be back. Call it when the old store can no longer be
// written, and before the new one can be read.
func (c *Checker) RolledBack(name string, last feed.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record(name)
	r.ends = append(r.ends, last)
	for id := range r.acked {
		if id > last {
			delete(r.acked, id)
		}
	}
	r.closed = false
	r.forgetKeys(last)
	c.untrimmed(name)
}

// Untrimmed notes that an older store took the place of the store, in which the
// feed still has the events that were trimmed since, and all others.
func (c *Checker) Untrimmed(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untrimmed(name)
}

func (c *Checker) untrimmed(name string) {
	for _, f := range c.followers {
		if f.feed == name {
			f.gone = 0
		}
	}
}

// Closed notes that the store has closed the feed after the event last. Call it
// before a subscriber can learn of it.
func (c *Checker) Closed(name string, last feed.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record(name)
	if end, closed := r.end(); closed {
		c.fault("%s: was closed at %d and at %d", name, end, last)
	}
	r.closes, r.closed = append(r.closes, last), true
}

// RefusedClosed notes that a publish was refused because the feed is closed.
func (c *Checker) RefusedClosed(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.record(name).closes) == 0 {
		c.fault("%s: refuses as closed, which it never was", name)
	}
}

// end returns the last id of a feed that is closed.
func (r *record) end() (last feed.ID, closed bool) {
	if !r.closed {
		return 0, false
	}
	return r.closes[len(r.closes)-1], true
}

// End compares everything with what the feed holds when all is quiet: its
// bounds and all events in them. Subscribers that did not leave must have
// reached the end.
func (c *Checker) End(name string, p feed.Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record(name)
	held := c.held(name, p)
	for id := feed.ID(1); id <= p.Last; id++ {
		e, acked := r.acked[id]
		switch now, ok := held[id]; {
		case ok && acked && !same(e, now):
			c.fault("%s: event %d was acknowledged as %s, but is %s", name, id, show(e), show(now))
		case !ok && acked && id >= max(1, r.trimmed):
			c.fault("%s: event %d was acknowledged and is not stored", name, id)
		}
		delete(r.acked, id)
	}
	for id := range r.acked {
		c.fault("%s: event %d was acknowledged, but the feed ends with %d", name, id, p.Last)
	}
	for id, e := range r.unproven {
		if id >= p.First || !r.expected(e) {
			c.fault("%s: event %d %s was delivered, but never stored", name, id, show(e))
		}
	}
	if p.Closed != r.closed {
		c.fault("%s: closed is %t, should be %t", name, p.Closed, r.closed)
	}
	for _, f := range c.followers {
		if f.feed == name && f.open && !f.left {
			f.judgeSeen(held)
		}
		switch {
		case f.feed != name || !f.open || f.left:
		case f.cursor != p.Last:
			c.fault("%s: stopped after %d, the feed ends with %d", f.name, f.cursor, p.Last)
		case f.closed != p.Closed:
			c.fault("%s: learned that the feed is closed: %t, which is %t", f.name, f.closed, p.Closed)
		}
	}
}

// held returns the events of the page by id, and holds them to what a page has
// to be.
func (c *Checker) held(name string, p feed.Page) map[feed.ID]feed.Event {
	if p.First == 0 || p.First > p.Last+1 {
		c.fault("%s: has impossible bounds %d to %d", name, p.First, p.Last)
	}
	held := make(map[feed.ID]feed.Event, len(p.Events))
	next := p.First
	for _, e := range p.Events {
		if e.ID != next {
			c.fault("%s: event %d stands where %d belongs", name, e.ID, next)
		}
		next = e.ID + 1
		held[e.ID] = e
		c.keep(e)
	}
	if next != p.Last+1 {
		c.fault("%s: the events end before %d, the bounds with %d", name, next, p.Last)
	}
	return held
}

// expected reports whether a publish of unknown outcome accounts for e.
func (r *record) expected(e feed.Event) bool {
	return slices.ContainsFunc(r.unsure, func(d feed.Draft) bool { return d.Type == e.Type && d.Data == e.Data })
}

// newest returns the largest id that was acknowledged.
func (r *record) newest() (id feed.ID) {
	for acked := range r.acked {
		id = max(id, acked)
	}
	return id
}

// same reports whether two sights of an event agree. An event without a time was
// read off the wire, which carries neither time nor the JSON mark.
func same(a, b feed.Event) bool {
	if a.Feed != b.Feed || a.ID != b.ID || a.Type != b.Type || a.Data != b.Data {
		return false
	}
	return a.Time.IsZero() || b.Time.IsZero() || a.Time.Equal(b.Time) && a.JSON == b.JSON
}

func show(e feed.Event) string {
	data := e.Data
	if len(data) > 40 {
		data = fmt.Sprintf("%s… (%d bytes)", data[:40], len(data))
	}
	return fmt.Sprintf("[%s %q]", e.Type, data)
}

package feedtest

import (
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Filter notes that the client asks for events of some types only; "" is the
// type of events without one.
func (l *DeliveryLog) Filter(types ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.types = make(map[string]bool)
	for _, t := range types {
		l.types[t] = true
	}
}

// Passed notes that the client's cursor moved over events that it was not shown.
func (l *DeliveryLog) Passed(feed string, cursor feed.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(passed, at)
	i := l.feed(feed)
	l.id(cursor)
	l.reached[i] = cursor
}

// passed judges a cursor that moved without an event.
func (c *clientJudge) passed(r *reader, e entry) {
	switch {
	case !r.open:
		c.find(BadStream, r, e.id, "a cursor came before the stream was open")
	case e.id < r.cursor:
		c.find(Repeated, r, e.id+1, "the cursor went back from %d to %d", r.cursor, e.id)
	default:
		c.over(r, r.cursor+1, e.id)
	}
	r.first = false
	r.cursor = max(r.cursor, e.id)
	r.furthest = max(r.furthest, r.cursor)
}

// over judges that the client was not shown the events from one id to another.
func (c *clientJudge) over(r *reader, from, to feed.ID) {
	if c.log.types == nil {
		if from <= to {
			c.skipped(r, from, to)
		}
		return
	}
	if last := r.truth.last; to > last {
		c.find(NotStored, r, to, "the cursor came to %d, and the store ends with %d", to, last)
		to = last
	}
	for id := from; id <= to; id++ {
		if e := r.truth.eventAt(id); e != nil && c.log.types[e.kind] {
			c.skipped(r, id, id)
		}
	}
}

// unasked refuses an event whose type the filter leaves out.
func (c *clientJudge) unasked(r *reader, e entry) {
	if sent := r.truth.sums[e.sum]; sent != nil && c.log.types != nil && !c.log.types[sent.kind] {
		c.find(BadStream, r, e.id, "event %d is of the type %q, which the client does not ask for", e.id, sent.kind)
	}
}

// eventAt returns what is known to be under an id; nil if that is nothing.
func (t *truth) eventAt(id feed.ID) *intent {
	if sum, ok := t.heldAt(id); ok {
		return t.sums[sum]
	}
	return t.acks[id]
}

package feedtest

import (
	"encoding/binary"
	"time"
)

// Ephemeral is an event that is not stored, sent once. It may be lost. It comes
// without an id, on no connection twice or behind a later one of its series, and
// never on a connection that was begun long after it.
type Ephemeral struct {
	Feed string
	Type string
	Sum  Sum
	// Series are events that one publisher sent one after another, each when
	// the one before it had been accepted, through one node.
	Series string
	Number int       // in the series, from 1 on
	Gone   time.Time // connections begun later must not bring it; zero if that is unknown
}

// Sent adds an ephemeral event. The events of a run differ from each other, and
// from those that are stored, in their bytes.
func (r *Recording) Sent(e Ephemeral) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed(e.Feed).ephemeral[e.Sum] = &e
}

// Hinted notes that an event without an id came.
func (l *DeliveryLog) Hinted(feed string, sum Sum, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(hinted, at)
	l.feed(feed)
	l.tail = binary.LittleEndian.AppendUint64(l.tail, uint64(sum))
}

// hinted judges an event that has no id.
func (c *clientJudge) hinted(r *reader, e entry) {
	sent := r.truth.ephemeral[e.sum]
	switch {
	case r.truth.sums[e.sum] != nil:
		c.find(BadStream, r, 0, "an event that is stored came without its id")
		return
	case r.truth.elsewhere[e.sum]:
		c.find(OtherStore, r, 0, "an ephemeral event was published to another store")
		return
	case sent == nil:
		c.find(Foreign, r, 0, "an ephemeral event was published by nobody")
		return
	case !r.open:
		c.find(BadStream, r, 0, "an ephemeral event came before the stream was open")
	case c.log.types != nil && !c.log.types[sent.Type]:
		c.find(BadStream, r, 0, "an ephemeral event is of the type %q, which the client does not ask for", sent.Type)
	case !sent.Gone.IsZero() && c.began > c.since(sent.Gone):
		c.find(Stale, r, 0, "ephemeral event %d of %s came on a connection that was made long after it", sent.Number, sent.Series)
	}
	if r.heard == nil {
		r.heard = make(map[string]int)
	}
	switch newest := r.heard[sent.Series]; {
	case sent.Number == newest:
		c.find(Repeated, r, 0, "ephemeral event %d of %s came again", sent.Number, sent.Series)
	case sent.Number < newest:
		c.find(Reordered, r, 0, "ephemeral event %d of %s came after %d", sent.Number, sent.Series, newest)
	}
	r.heard[sent.Series] = max(r.heard[sent.Series], sent.Number)
}

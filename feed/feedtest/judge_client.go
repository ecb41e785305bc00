package feedtest

import (
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// reader is where a client stands in one feed.
type reader struct {
	truth *truth

	// On its present connection:
	asked   bool
	cursor  feed.ID
	open    bool
	since   int64 // when it opened, in µs
	first   bool  // nothing has come yet
	closed  bool  // and nothing may come any more
	missing []span
	heard   map[string]int // of each series of ephemeral events, the newest

	known    bool    // it has been open, ever
	furthest feed.ID // it has everything up to here, or knows that it is gone
}

// span is the events from one id to another that did not come when it was their
// turn, and what it is called if they never do.
type span struct {
	from, to feed.ID
	kind     string
}

// mostMissing bounds what may still turn up: a connection that misses more is
// past telling.
const mostMissing = 1000

// clientJudge follows one client through its log.
type clientJudge struct {
	*judge
	log     *DeliveryLog
	readers []reader
	began   int64 // when its present connection was begun
}

func (j *judge) judgeClient(log *DeliveryLog) {
	c := &clientJudge{judge: j, log: log, readers: make([]reader, len(log.feeds))}
	for i, name := range log.feeds {
		if c.readers[i].truth = j.truths[name]; c.readers[i].truth == nil {
			c.readers[i].truth = &truth{sent: &sent{name: name}, allowed: 1}
		}
	}
	log.entries(c.entry)
	c.end()
	for i := range c.readers {
		r := &c.readers[i]
		if t := r.truth; t.held != nil && !log.left && r.furthest < t.last {
			c.find(Unfinished, r, t.last, "got as far as %d, the feed ends with %d", r.furthest, t.last)
		}
	}
}

func (c *clientJudge) find(kind string, r *reader, id feed.ID, format string, args ...any) {
	c.judge.find(Finding{Kind: kind, Feed: r.truth.name, Client: c.log.name, ID: id, Detail: fmt.Sprintf(format, args...)})
}

func (c *clientJudge) entry(e entry) {
	switch e.kind {
	case connected:
		c.end()
		c.began = e.at
		c.report.Connections++
	case cut:
		c.end()
	case broken:
		c.judge.find(Finding{Kind: BadStream, Client: c.log.name, Detail: e.text})
	case asked:
		r := &c.readers[e.feed]
		if r.known && e.id > r.furthest {
			c.find(Overreached, r, e.id, "asks for what follows %d, and has seen %d", e.id, r.furthest)
		}
		r.asked, r.cursor = true, e.id
	case opened:
		c.opened(&c.readers[e.feed], e)
	case delivered:
		c.report.Deliveries++
		c.delivered(&c.readers[e.feed], e)
	case gapped:
		c.report.Gaps++
		c.gap(&c.readers[e.feed], e)
	case passed:
		c.passed(&c.readers[e.feed], e)
	case closed:
		c.closed(&c.readers[e.feed], e)
	case turnedAway:
		c.turnedAway()
	case hinted:
		c.report.Ephemeral++
		c.hinted(&c.readers[e.feed], e)
	case looked:
		c.report.Deliveries++
		c.bytes(&c.readers[e.feed], e)
		c.resurrected(&c.readers[e.feed], e)
	case lookedBelow:
		c.lookedBelow(&c.readers[e.feed], e)
	}
}

// end ends the present connection: what is missing by then was skipped.
func (c *clientJudge) end() {
	for i := range c.readers {
		r := &c.readers[i]
		for _, m := range r.missing {
			c.find(m.kind, r, m.from, "events %d to %d did not come, later ones did", m.from, m.to)
		}
		r.asked, r.open, r.closed, r.missing, r.heard = false, false, false, r.missing[:0], nil
	}
}

func (c *clientJudge) opened(r *reader, e entry) {
	switch {
	case r.open:
		c.find(BadStream, r, e.id, "a connection opened twice")
	case r.asked && e.id > r.cursor:
		c.find(LostAtReconnect, r, r.cursor+1, "asked for what follows %d, and was put at %d", r.cursor, e.id)
	case r.asked && e.id < r.cursor:
		c.find(Repeated, r, e.id+1, "asked for what follows %d, and was put at %d", r.cursor, e.id)
	}
	if !r.known {
		r.furthest = e.id
	}
	r.known, r.open, r.first, r.cursor, r.since = true, true, true, e.id, e.at
}

func (c *clientJudge) delivered(r *reader, e entry) {
	if !r.open {
		c.find(BadStream, r, e.id, "event %d came before the stream was open", e.id)
		return
	}
	if r.closed {
		c.find(AfterClose, r, e.id, "event %d came after the feed was said to be closed", e.id)
	}
	switch want := r.cursor + 1; {
	case e.id == want:
	case e.id > want:
		c.over(r, want, e.id-1)
	case r.found(e.id):
		c.find(Reordered, r, e.id, "event %d came after %d", e.id, r.cursor)
	default:
		c.find(Repeated, r, e.id, "event %d came after %d, again", e.id, r.cursor)
	}
	r.first = false
	r.cursor = max(r.cursor, e.id)
	r.furthest = max(r.furthest, r.cursor)
	c.unasked(r, e)
	c.bytes(r, e)
	c.resurrected(r, e)
	c.delayed(r, e)
}

func (c *clientJudge) skipped(r *reader, from, to feed.ID) {
	m := span{from, to, Skipped}
	if to < r.truth.allowed {
		m.kind = JumpedTrim
	} else if r.first {
		m.kind = LostAtReconnect
	}
	if len(r.missing) < mostMissing {
		r.missing = append(r.missing, m)
		return
	}
	c.find(m.kind, r, from, "events %d to %d did not come, later ones did", from, to)
}

// found reports whether an event was missing, and takes it off what is.
func (r *reader) found(id feed.ID) bool {
	for i, m := range r.missing {
		if id < m.from || id > m.to {
			continue
		}
		r.missing = append(r.missing[:i], r.missing[i+1:]...)
		if m.from < id {
			r.missing = append(r.missing, span{m.from, id - 1, m.kind})
		}
		if id < m.to {
			r.missing = append(r.missing, span{id + 1, m.to, m.kind})
		}
		return true
	}
	return false
}

// bytes compares an event with what everybody else knows of it.
func (c *clientJudge) bytes(r *reader, e entry) {
	t := r.truth
	if t.elsewhere[e.sum] {
		c.find(OtherStore, r, e.id, "event %d was published to another store", e.id)
		return
	}
	if e.id > t.last {
		c.find(NotStored, r, e.id, "event %d was delivered, and the store ends with %d", e.id, t.last)
		return
	}
	want, ok := t.heldAt(e.id)
	if !ok {
		if acked := t.acks[e.id]; acked != nil {
			want, ok = acked.sum, true
		} else if want, ok = t.trimmed[e.id]; !ok && t.trimmed != nil {
			t.trimmed[e.id] = e.sum
		}
	}
	if ok {
		if want != e.sum {
			c.find(WrongBytes, r, e.id, "event %d came with other bytes than it has elsewhere", e.id)
		}
		return
	}
	if t.held != nil && e.id >= t.allowed {
		c.find(NotStored, r, e.id, "event %d was delivered, and the store does not have it", e.id)
	}
	if sent := t.sums[e.sum]; sent == nil {
		c.find(Foreign, r, e.id, "event %d was published by nobody", e.id)
	} else {
		c.judgePlace(t, sent, e.id)
	}
}

// resurrected refuses what was gone for everybody when the client connected.
func (c *clientJudge) resurrected(r *reader, e entry) {
	for _, trim := range r.truth.trims {
		if e.id < trim.Before && !trim.Gone.IsZero() && c.began > c.since(trim.Gone) {
			c.find(Resurrected, r, e.id, "event %d came on a connection made after those before %d were gone", e.id, trim.Before)
			return
		}
	}
}

func (c *clientJudge) delayed(r *reader, e entry) {
	acked := r.truth.acks[e.id]
	switch {
	case acked == nil || c.log.slow:
	case acked.at < r.since:
		c.report.Replays++
	default:
		c.delay(acked.at, e.at, c.log)
	}
}

func (c *clientJudge) gap(r *reader, e entry) {
	if !r.open {
		c.find(BadStream, r, e.id, "a gap came before the stream was open")
		return
	}
	if e.id > r.cursor && c.log.types != nil {
		// The gap comes after what the filter left out.
		c.over(r, r.cursor+1, e.id)
		r.cursor = e.id
	}
	gone := c.gone(r, e.at)
	switch {
	case !e.trim:
		c.find(LyingGap, r, e.id, "a gap after %d says that the feed was rolled back, which it was not", e.id)
	case e.id != r.cursor:
		c.find(LyingGap, r, e.id, "a gap is said to come after %d, and comes after %d", e.id, r.cursor)
	case e.resume <= e.id+1:
		c.find(LyingGap, r, e.id, "a gap after %d resumes with %d", e.id, e.resume)
	case e.resume > gone:
		c.find(LyingGap, r, e.id, "the gap after %d resumes with %d, but only the events before %d were gone", e.id, e.resume, gone)
	}
	r.first = false
	r.cursor = max(r.cursor, e.resume-1)
	r.furthest = max(r.furthest, r.cursor)
}

// gone returns the first id that has to be there at a time.
func (c *clientJudge) gone(r *reader, at int64) feed.ID {
	gone := feed.ID(1)
	for _, trim := range r.truth.trims {
		if c.since(trim.Asked) <= at {
			gone = max(gone, trim.Before)
		}
	}
	if c.Retention {
		gone = max(gone, r.truth.allowed)
	}
	return gone
}

// WorstByFault returns the worst delay under each fault, alone or with others.
func (r *Report) WorstByFault() map[string]time.Duration {
	worst := make(map[string]time.Duration)
	for _, d := range r.Faults {
		for _, name := range d.Names {
			worst[name] = max(worst[name], d.Worst)
		}
	}
	return worst
}

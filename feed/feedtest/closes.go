package feedtest

import (
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Close is an order to close a feed.
type Close struct {
	Feed  string
	Asked time.Time
	Done  time.Time // when it was acknowledged; zero if it never was
	Last  feed.ID   // the id of the event that closed it; 0 if there was none
}

// closing is what is known of a feed's close.
type closing struct {
	asked bool
	done  int64   // in µs; 0 if it was never acknowledged
	last  feed.ID // 0 if it is not known
}

// Closed adds an order to close a feed. It may be given again.
func (r *Recording) Closed(order Close) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.feed(order.Feed).closing
	c.asked = true
	if done := r.since(order.Done); !order.Done.IsZero() && (c.done == 0 || done < c.done) {
		c.done, c.last = done, max(c.last, order.Last)
	}
}

// HeldClosed says, after Holds, whether the feed is closed in the end.
func (r *Recording) HeldClosed(feed string, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed(feed).held.closed = closed
}

// Closed notes that the stream calls a feed closed, after its last event.
func (l *DeliveryLog) Closed(feed string, last feed.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(closed, at)
	i := l.feed(feed)
	l.id(last)
	l.reached[i] = last
}

// TurnedAway notes that the client was refused a stream because nothing follows
// any of the cursors that it asks for.
func (l *DeliveryLog) TurnedAway(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(turnedAway, at)
}

// judgeClosing looks at what the store holds of a feed that was closed, or not.
func (j *judge) judgeClosing(t *truth) {
	find := func(kind string, id feed.ID, format string, args ...any) {
		j.find(Finding{Kind: kind, Feed: t.name, ID: id, Detail: fmt.Sprintf(format, args...)})
	}
	c := t.closing
	switch {
	case t.held.closed && !c.asked:
		find(NotClosed, t.last, "the store has it closed, and nobody closed it")
	case c.done != 0 && !t.held.closed:
		find(NotClosed, t.last, "it was closed, and the store has it open")
	case c.last != 0 && t.last != c.last:
		find(AfterClose, t.last, "event %d closed it, and the store ends with %d", c.last, t.last)
	}
	if c.done == 0 {
		return
	}
	for _, key := range sortedKeys(t.keys) {
		if e := t.keys[key]; e.began > c.done && (len(e.ids) > 0 || e.place != 0) {
			find(AfterClose, max(e.place, t.first), "the key %s was first sent after the feed was closed, and stored", e.key)
		}
	}
}

// closed judges that a stream calls a feed closed.
func (c *clientJudge) closed(r *reader, e entry) {
	t := r.truth
	switch {
	case !r.open:
		c.find(BadStream, r, e.id, "a close came before the stream was open")
	case !t.closing.asked:
		c.find(NotClosed, r, e.id, "it is called closed, and nobody closed it")
	case t.held != nil && e.id != t.last:
		c.find(NotClosed, r, e.id, "it is called closed at event %d, and ends with %d", e.id, t.last)
	case e.id < r.cursor:
		c.find(AfterClose, r, r.cursor, "it is called closed at event %d, and %d has come", e.id, r.cursor)
	default:
		c.over(r, r.cursor+1, e.id)
	}
	r.first, r.closed = false, true
	r.cursor = max(r.cursor, e.id)
	r.furthest = max(r.furthest, r.cursor)
}

// turnedAway judges that nothing is to follow what the client asked for.
func (c *clientJudge) turnedAway() {
	for i := range c.readers {
		switch r := &c.readers[i]; {
		case !r.asked:
		case !r.truth.closing.asked:
			c.find(NotClosed, r, r.cursor, "the client was turned away at event %d of a feed that nobody closed", r.cursor)
		case r.truth.held != nil && r.cursor < r.truth.last:
			c.find(NotClosed, r, r.cursor, "the client was turned away at event %d, the feed ends with %d", r.cursor, r.truth.last)
		}
	}
}

package feed

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// segmentBytes is how large a segment becomes: when it has reached that, it
// takes no more events.
const segmentBytes = 32 << 10

// log holds the newest events of one feed in memory, for its subscribers here.
// It takes an event only if it is the next one; when it hears of one beyond
// that, the hub fills the hole from the store.
type log struct {
	feed  string
	cache *cache // of all logs' segments

	// users and idle belong to the hub's lock.
	users int       // subscriptions, and calls of Subscribe
	idle  time.Time // since when there are no users

	mu         sync.Mutex
	loaded     bool   // first, base and tail are set
	first      uint64 // the oldest id that the store keeps, as far as known
	known      uint64 // the newest id that exists, as far as known; at least tail
	base       Cursor // the segments hold the events after base …
	tail       Cursor // … up to tail
	segments   []*segment
	closed     bool      // the feed is, for good …
	end        uint64    // … and ends with this id
	generation int       // how often it started again
	filling    bool      // a goroutine is bringing tail up to known
	grown      time.Time // when tail last moved
	history              // that the events are from

	ephemera ephemera

	// Apart from mu, so that waking many subscribers does not hold up those
	// that already read.
	subsMu    sync.Mutex
	audiences []*audience
}

// logChange says what a log did with what it was told.
type logChange struct {
	grew bool // subscribers have to look: there is more to read, or less than was known
	hole bool // tail is behind known, and nobody is filling yet

	taken int // events that the log took
}

// accept takes events of this feed, in any order, of which some may be old and
// some too new.
func (l *log) accept(events []Event, now time.Time) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.tail
	for i := range events {
		e := &events[i]
		l.known = max(l.known, e.ID)
		if l.loaded && !l.suspect && e.ID == uint64(l.tail)+1 {
			l.add(*e)
		}
	}
	if l.tail != before {
		l.grown = now
		l.trimToSize()
	}
	return logChange{grew: l.tail != before, hole: l.claimFill(), taken: int(l.tail - before)}
}

func (l *log) add(e Event) {
	e.Feed = l.feed // one copy of the name for all
	newest := len(l.segments) - 1
	if newest < 0 || l.segments[newest].bytes >= segmentBytes {
		l.segments = append(l.segments, l.begin(l.tail, nil))
		newest++
	}
	l.segments[newest].add(e)
	l.cache.memory.hold(HoldLogs, cost(&e))
	l.tail++
	l.newest = stampOf(&e)
}

// begin returns a segment of the log.
func (l *log) begin(after Cursor, events []Event) *segment {
	s := newSegment(after, events)
	s.log = l
	l.cache.add(s)
	return s
}

// shed drops the oldest segments until the log holds no more than a single one may,
// or has one segment. Subscribers that were still reading there go to the store.
func (l *log) trimToSize() {
	held := 0
	for _, s := range l.segments {
		held += s.memory()
	}
	n := 0
	for n < len(l.segments)-1 && held > l.cache.perLog {
		held -= l.segments[n].memory()
		n++
	}
	l.discard(n)
}

// discard lets go of the oldest n segments.
func (l *log) discard(n int) {
	for _, s := range l.segments[:n] {
		l.base = s.end()
		l.cache.remove(s)
	}
	l.segments = slices.Delete(l.segments, 0, n)
}

// drop discards the log's oldest segment of its kind, to make room for others. It
// reports false if it has spared the segment, because that takes less than small
// bytes and is all that the log has.
func (l *log) drop(s *segment, small int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.segments) == 1 && l.segments[0] == s && s.memory() < small:
		l.cache.spare(s)
		return false
	case len(l.segments) > 0 && l.segments[0] == s:
		l.discard(1)
	case len(l.ephemera.newest) > 0 && l.ephemera.newest[0] == s:
		l.ephemera.discard(l.cache, 1)
	}
	return true
}

// empty lets go of everything that the log holds: nobody needs it any more.
func (l *log) empty() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.discard(len(l.segments))
	l.ephemera.discard(l.cache, len(l.ephemera.newest))
	l.cache.memory.Give(HoldLogs, logCost+len(l.feed))
}

// noteLast takes a hint that the feed has reached the id last. It loads nothing:
// where a log begins is for the store to say.
func (l *log) noteLast(last uint64) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = max(l.known, last)
	return logChange{hole: l.claimFill()}
}

// confirmed is what a store has said of a feed so far. What follows can only be
// more: a store that says less is an older one in the place of the first.
type confirmed struct {
	tail   Cursor // an event with this id exists
	first  uint64
	closed bool
	end    uint64 // if closed
}

// rolledBack says whether b is of an older store than p.
func (p confirmed) rolledBack(b Bounds) bool {
	return b.Last < uint64(p.tail) || b.First < p.first || p.closed && (!b.Closed || b.Last != p.end)
}

// learn takes the feed's bounds, read from the store after so much had been
// proven. The first bounds load the log. If the store has been replaced by an
// older one, the log starts again from what is true now.
func (l *log) setBounds(b Bounds, before confirmed) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded && before.rolledBack(b) {
		l.known = 0
		l.generation++
		l.closed = false
		l.restart(b)
		l.close(b)
		return logChange{grew: true}
	}
	if !l.loaded {
		l.loaded = true
		l.restart(b)
	}
	closing := l.close(b)
	l.first = max(l.first, b.First)
	l.known = max(l.known, b.Last)
	l.forget(Cursor(l.first - 1))
	return logChange{grew: closing, hole: l.claimFill()}
}

// close notes that the feed is closed, if b says so, and reports if that is new.
func (l *log) close(b Bounds) bool {
	if !b.Closed || l.closed {
		return false
	}
	l.closed, l.end = true, b.Last
	return true
}

// restart makes the log empty and end where the store does.
func (l *log) restart(b Bounds) {
	l.first = b.First
	l.known = max(l.known, b.Last)
	l.discard(len(l.segments))
	l.base, l.tail = Cursor(b.Last), Cursor(b.Last)
	l.newest, l.verified, l.lastDropped = stamp{}, stamp{}, stamp{}
}

// forget gives up the segments that end before the oldest kept event.
func (l *log) forget(oldest Cursor) {
	n := 0
	for n < len(l.segments) && l.segments[n].end() <= oldest {
		n++
	}
	l.discard(n)
}

// rest empties a log that nothing was added to since then. What is quiet
// costs no memory.
func (l *log) dropIfQuiet(then time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ephemera.at.Before(then) {
		l.ephemera.discard(l.cache, len(l.ephemera.newest))
	}
	if len(l.segments) > 0 && l.grown.Before(then) {
		l.discard(len(l.segments))
		l.lastDropped = l.newest
	}
}

// view is where a cursor stands in relation to the log.
type view int

const (
	viewEvents  view = iota // there are events after it in the log
	viewEnd                 // it is at the end: wait
	viewBehind              // what follows it is in the store only
	viewAhead               // it is past everything that is known to exist
	viewClosed              // it is at the end, and nothing will follow
	viewTrimmed             // what follows it is gone
)

// read returns the events that follow c, if the log has them, or the gap that
// does. What was given up the log does not have, even if it is in a segment.
func (l *log) read(c Cursor) (Delivery, view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.frozen:
		return Delivery{}, viewEnd // until the review wakes everybody
	case l.closed && uint64(c) == l.end && uint64(l.tail) <= l.end:
		// With an event behind its end, it is not closed: the store was replaced
		// by an older one, which the log is about to find out.
		return Delivery{}, viewClosed
	case uint64(c) > l.known:
		return Delivery{}, viewAhead
	case uint64(c)+1 < l.first:
		return Delivery{Gap: &Gap{After: c, Resumes: l.first, Reason: Trimmed}}, viewTrimmed
	case c >= l.tail:
		return Delivery{}, viewEnd
	case c < l.base:
		return Delivery{}, viewBehind
	}
	i, found := slices.BinarySearchFunc(l.segments, c, func(s *segment, c Cursor) int {
		return cmp.Compare(s.base, c)
	})
	if !found {
		i-- // the segment that begins before c
	}
	d := l.segments[i].since(c)
	d.newest = i == len(l.segments)-1 && !l.closed
	return d, viewEvents
}

// bounds returns what the log can prove of the feed, not what it only heard of;
// complete says whether there is nothing that it only heard of. ok is false
// until the log is loaded.
func (l *log) bounds() (b Bounds, complete, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b = Bounds{First: l.first, Last: max(uint64(l.tail), l.first-1)}
	complete = l.known <= b.Last && !l.frozen
	b.Closed = l.closed && b.Last == l.end
	return b, complete, l.loaded
}

// proven returns what the store has said; ok is false until the log is loaded.
func (l *log) confirmed() (p confirmed, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return confirmed{l.tail, l.first, l.closed, l.end}, l.loaded
}

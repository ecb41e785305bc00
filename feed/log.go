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
// It takes an event only if it is the next one. When it learns of a later one,
// the hub fills the hole from the store.
type log struct {
	feed     string
	cache    *cache // of all logs' segments
	reserved bool   // the feed is the server's: its log knows nothing of the store

	// Under the hub's mu.
	users int       // subscriptions, and calls of Subscribe
	idle  time.Time // since when there are no users

	mu         sync.Mutex
	loaded     bool // first, base and tail are set
	first      ID   // the oldest id that the store keeps, as far as known
	known      ID   // the newest id that exists, as far as known; at least tail
	base       ID   // the segments hold the events after base …
	tail       ID   // … up to tail
	segments   []*segment
	closed     bool      // the feed is closed …
	end        ID        // … and ends with this id
	generation int       // how often the log started again
	filling    bool      // it has a fillTask, which brings tail up to known
	grown      time.Time // when tail last moved
	history              // that the events are from
	watches    []*CloseWatch

	ephemera ephemera

	// A lock apart from mu, so that waking many subscribers does not hold up those
	// that already read.
	subsMu    sync.Mutex
	audiences []*audience
}

// logChange is what a call has changed in a log.
type logChange struct {
	grew bool // subscribers have to look: there is more to read, or less than was known
	hole bool // tail is behind known, and the log has no fillTask yet

	taken int // events that the log took
}

// accept takes the next events of this feed out of events, which may be in any order,
// and old or too new.
func (l *log) accept(events []Event, now time.Time) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved {
		return logChange{} // it is of a node that lets clients publish to the feed
	}
	before := l.tail
	for i := range events {
		e := &events[i]
		l.known = max(l.known, e.ID)
		if l.loaded && !l.suspect && e.ID == l.tail+1 {
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
		l.segments = append(l.segments, l.beginSegment(l.tail, nil))
		newest++
	}
	l.segments[newest].add(e)
	l.cache.memory.hold(HoldLogs, cost(&e))
	l.tail++
	l.newest = stampOf(&e)
}

// beginSegment returns a new segment of the log.
func (l *log) beginSegment(after ID, events []Event) *segment {
	s := newSegment(after, events)
	s.log = l
	l.cache.add(s)
	return s
}

// trimToSize drops the oldest segments until the log holds no more than a single one
// may, or has one segment. Subscribers that were still reading there go to the store.
func (l *log) trimToSize() {
	held := 0
	for _, s := range l.segments {
		held += s.memory()
	}
	n := 0
	for n < len(l.segments)-1 && held > l.cache.perLog() {
		held -= l.segments[n].memory()
		n++
	}
	l.discard(n)
}

// discard drops the oldest n segments.
func (l *log) discard(n int) {
	for _, s := range l.segments[:n] {
		l.base = s.end()
		l.cache.remove(s)
	}
	l.segments = slices.Delete(l.segments, 0, n)
}

// drop drops s, which is the log's oldest segment of its kind, to make room for others.
// It reports false if it has spared the segment, because that takes less than small
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

// empty drops everything that the log holds: the hub no longer has the log.
func (l *log) empty() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.discard(len(l.segments))
	l.ephemera.discard(l.cache, len(l.ephemera.newest))
	l.cache.memory.Give(HoldLogs, logCost+len(l.feed))
}

// noteLast takes a hint that the feed has reached the id last. It does not load the log:
// only the store decides where a log begins.
func (l *log) noteLast(last ID) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved {
		return logChange{}
	}
	l.known = max(l.known, last)
	return logChange{hole: l.claimFill()}
}

// confirmed is what the store has confirmed of a feed so far. Later answers can only add
// to it: a store that confirms less is an older one in the place of the first.
type confirmed struct {
	tail   ID // an event with this id exists
	first  ID
	closed bool
	end    ID // if closed
}

// rolledBack reports whether b is of an older store than c.
func (c confirmed) rolledBack(b Bounds) bool {
	return b.Last < c.tail || b.First < c.first || c.closed && (!b.Closed || b.Last != c.end)
}

// setBounds takes the feed's bounds, which were read from the store after it had
// confirmed before. The first bounds load the log. If an older store has taken the
// place of the first, the log starts again with the new bounds.
func (l *log) setBounds(b Bounds, before confirmed) logChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.noteWatches()
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
	l.dropTrimmed(l.first - 1)
	return logChange{grew: closing, hole: l.claimFill()}
}

// close notes that the feed is closed, if b is, and reports whether that is new.
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
	l.base, l.tail = b.Last, b.Last
	l.newest, l.verified, l.lastDropped = stamp{}, stamp{}, stamp{}
}

// dropTrimmed drops the segments that end before the oldest event that the store keeps.
func (l *log) dropTrimmed(oldest ID) {
	n := 0
	for n < len(l.segments) && l.segments[n].end() <= oldest {
		n++
	}
	l.discard(n)
}

// dropIfQuiet drops the events of a log to which none was added since then: a quiet feed
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
	viewEvents  view = iota // the log has events after it
	viewEnd                 // it is at the end: wait
	viewBehind              // only the store has the events after it
	viewAhead               // it is past every event that is known to exist
	viewClosed              // it is at the end of a closed feed
	viewTrimmed             // the events after it are gone
)

// read returns the events that follow c, if the log has them, or the gap. It does not
// return trimmed events, even if a segment still has them.
func (l *log) read(c ID) (Delivery, view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.frozen:
		return Delivery{}, viewEnd // until the review wakes all subscribers
	case l.closed && c == l.end && l.tail <= l.end:
		// If there is an event behind the end, the feed is not closed: an older store
		// has taken the place of the first. A comparison is about to show that.
		return Delivery{}, viewClosed
	case c > l.known:
		return Delivery{}, viewAhead
	case c+1 < l.first:
		return Delivery{Gap: &Gap{After: c, Resumes: l.first, Reason: Trimmed}}, viewTrimmed
	case c >= l.tail:
		return Delivery{}, viewEnd
	case c < l.base:
		return Delivery{}, viewBehind
	}
	i, found := slices.BinarySearchFunc(l.segments, c, func(s *segment, c ID) int {
		return cmp.Compare(s.base, c)
	})
	if !found {
		i-- // the segment that begins before c
	}
	d := l.segments[i].since(c)
	d.newest = i == len(l.segments)-1 && !l.closed
	return d, viewEvents
}

// bounds returns what the store has confirmed of the feed. complete reports whether the
// log has no hint of more. ok is false until the log is loaded.
func (l *log) bounds() (b Bounds, complete, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b = Bounds{First: l.first, Last: max(l.tail, l.first-1)}
	complete = l.known <= b.Last && !l.frozen
	b.Closed = l.closed && b.Last == l.end
	return b, complete, l.loaded
}

// confirmed returns what the store has confirmed. ok is false until the log is loaded.
func (l *log) confirmed() (c confirmed, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return confirmed{l.tail, l.first, l.closed, l.end}, l.loaded
}

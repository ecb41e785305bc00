package feed

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// An older copy of a store can take its place: a backup, or a standby that lacks the
// last commits. The copy then gives ids a second time, to other events. Where the copy
// ends before a log does, its bounds show that. Where it has grown past the end of the
// log, only its events do.
//
// Whenever the hub compares bounds, it also compares the newest event of each log with
// the store's, which costs next to nothing. A difference there, or any other sign,
// proves nothing yet: it leads to a review, which reads the store and compares the
// events themselves.

// Comparer is a [Store] that helps a hub to notice that an older copy, which has grown
// since, has taken its place. Without it, the hub notices only a copy that ends before
// a log does, or one that a publish or a read comes across.
type Comparer interface {
	Store

	// Ends returns the end of each place's feed, in order, as of one instant,
	// and with what Bounds promises.
	Ends(ctx context.Context, places []Place) ([]End, error)

	// Epoch changes whenever the calls that follow may be answered by another
	// server, or by another run of the same, than those before.
	Epoch() uint64
}

// Place names a feed, and the id of an event that may be in it. The id 0 names none.
type Place struct {
	Feed string
	ID   ID
}

// End is what a store has at the end of a feed, and at a place in it.
type End struct {
	Bounds
	Newest time.Time // the time of the event Last; zero if there was none yet
	Then   time.Time // the time of the event at the place; zero if there is none, or it is trimmed
}

// stamp tells an event from another one that has the same id in another history: that
// was stored at another time.
type stamp struct {
	id ID // 0: of no event
	ms int64
}

func stampOf(e *Event) stamp { return stamp{e.ID, e.Time.UnixMilli()} }

// history is what a log knows of the history that its events are from. It is
// under the log's mu.
type history struct {
	newest      stamp  // the event at tail, unless its id is another
	lastDropped stamp  // the last event that the log dropped because the feed was quiet
	verified    stamp  // the newest event that a comparison has found in the store …
	epoch       uint64 // … and the hub's epoch then
	suspect     bool   // a review is due; until then the log takes only what was read from the store
	frozen      bool   // until the review, the log takes nothing, and returns nothing

	rollbacks     []rollback    // one for each time that the store was replaced
	rollbackCount atomic.Uint32 // how many there ever were; may be read without the lock
}

// rollback is the replacement of a store, as a subscriber sees it that was there before.
type rollback struct {
	agreed ID // the old history and the new one agree up to here, as far as is known
	end    ID // the new one ended here
}

// mostRollbacks bounds how many rollbacks a log remembers.
const mostRollbacks = 32

// rollBack notes that the events after agreed are undone. The caller holds mu.
func (h *history) rollBack(agreed, end ID) {
	// A subscriber that was there before several rollbacks can trust its events up to
	// the first place where any two histories differ.
	for i := range h.rollbacks {
		h.rollbacks[i].agreed = min(h.rollbacks[i].agreed, agreed)
		h.rollbacks[i].end = end
	}
	h.rollbacks = append(h.rollbacks, rollback{agreed, end})
	if len(h.rollbacks) > mostRollbacks {
		h.rollbacks = slices.Delete(h.rollbacks, 1, 2)
	}
	h.rollbackCount.Add(1)
}

// rollbackSince returns all rollbacks after the first n, as one. There is at least one.
// The caller holds mu.
func (h *history) rollbackSince(n uint16) rollback {
	missed := int(uint16(h.rollbackCount.Load()) - n)
	return h.rollbacks[max(0, len(h.rollbacks)-missed)]
}

// rollbackGap returns the gap that a rollback puts after the subscription's cursor.
// changed reports whether there was a rollback since the last call: then what the
// caller read before it is worth nothing.
func (s *Subscription) rollbackGap() (gap *Gap, changed bool) {
	now := uint16(s.log.rollbackCount.Load())
	if now == s.rollbacksSeen {
		return nil, false
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	r := s.log.rollbackSince(s.rollbacksSeen)
	s.rollbacksSeen = uint16(s.log.rollbackCount.Load())
	if s.cursor <= r.agreed {
		return nil, true
	}
	return &Gap{After: s.cursor, Resumes: r.end + 1, Reason: Ahead}, true
}

// outdated reports whether an answer of the store that came for the subscription may
// be of another history than its cursor.
func (s *Subscription) outdated() bool {
	if uint16(s.log.rollbackCount.Load()) != s.rollbacksSeen {
		return true
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.frozen
}

// conflicts compares events that the store has committed with those that the log
// holds. It reports whether they may be of two histories: then the log must not
// take them. own reports that this node has committed them just now: their ids
// have to be new, and a difference is proof.
func (l *log) conflicts(events []Event, own bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.loaded {
		return false
	}
	for i := range events {
		e := &events[i]
		if e.ID > l.tail {
			continue
		}
		switch held := l.held(e.ID); {
		case held != nil && !sameEvent(held, e), held == nil && l.contradicts(stampOf(e)):
			l.suspect, l.frozen = true, l.frozen || own
			return true
		case held == nil && own:
			// The log may have read it from the store before the publisher had its
			// answer, and have dropped it since.
			l.suspect = true
		}
	}
	return l.suspect && own
}

// contradicts reports whether the log knows of another event under this id. The
// caller holds mu.
func (l *log) contradicts(s stamp) bool {
	return s.id == l.newest.id && s != l.newest || s.id == l.verified.id && s != l.verified
}

// held returns the event with the id if the log holds it. The caller holds mu.
func (l *log) held(id ID) *Event {
	for i := len(l.segments) - 1; i >= 0; i-- {
		if s := l.segments[i]; id > s.base {
			if n := int(id - s.base); n <= len(s.events) {
				return &s.events[n-1]
			}
			return nil
		}
	}
	return nil
}

func sameEvent(a, b *Event) bool {
	return a.Type == b.Type && a.Data == b.Data && a.JSON == b.JSON && a.Time.UnixMilli() == b.Time.UnixMilli()
}

// logState is a log at the moment before the hub asks the store about it.
type logState struct {
	confirmed
	base             ID
	newest, verified stamp
	lastDropped      stamp
	epoch            uint64
	generation       int
	loaded           bool
	suspect          bool
}

func (l *log) state() logState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return logState{
		confirmed{l.tail, l.first, l.closed, l.end}, l.base, l.newest, l.verified, l.lastDropped,
		l.epoch, l.generation, l.loaded, l.suspect,
	}
}

// needsReview reports whether the log may hold events that the store, which answered at
// the epoch, does not have.
func (st logState) needsReview(e End, epoch uint64, comparer bool) bool {
	if !st.loaded {
		return false
	}
	differs := func(s stamp, t time.Time) bool {
		return s.id > 0 && s.id >= e.First && s.id <= e.Last && s.ms != t.UnixMilli()
	}
	switch {
	case st.suspect || st.rolledBack(e.Bounds):
		return true
	case !comparer:
		return false
	case st.newest.id == st.tail && st.tail == e.Last && differs(st.newest, e.Newest):
		return true
	}
	// What the log took since the last comparison is of the same history, unless
	// another store may have answered since then.
	return differs(st.verified, e.Then) || epoch != st.epoch && st.verified.id < st.tail && st.base < st.tail
}

// setVerified notes that the store, which answered at the epoch, has the newest event
// that the log had before.
func (l *log) setVerified(st logState, e End, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation != st.generation {
		return
	}
	if l.newest.id != l.tail && l.tail == e.Last && e.Last > 0 {
		l.newest = stamp{l.tail, e.Newest.UnixMilli()}
		l.verified, l.epoch = l.newest, epoch
		return
	}
	if st.loaded && st.newest.id == st.tail {
		l.verified, l.epoch = st.newest, epoch
	}
}

package feed

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A store can be replaced by an older copy of itself: by a backup, or by a
// standby that lacks the last commits. Ids are then given a second time, with
// other events. Where the copy ends before what a log holds, its bounds show
// it. Where it has grown past that, only the events do: this file compares them.
//
// What a log holds is compared with the store at its newest event, which costs
// next to nothing, whenever the bounds are. A difference there, or any other
// hint of one, proves nothing yet: it leads to a review, which reads the store
// and compares the events themselves.

// Comparer is a [Store] that helps a hub to notice that it has been replaced by
// an older copy of itself, and has grown since. Without it, the hub notices
// only a copy that ends before what the hub holds, or one that a publish or a
// read comes across.
type Comparer interface {
	Store

	// Ends returns the end of each place's feed, in order, as of one instant,
	// and with what Bounds promises.
	Ends(ctx context.Context, places []Place) ([]End, error)

	// Epoch changes whenever the calls that follow may be answered by another
	// server, or by another run of the same, than those before.
	Epoch() uint64
}

// Place is a feed, and the id of an event that may be in it. 0 is none.
type Place struct {
	Feed string
	ID   uint64
}

// End is what a store has at the end of a feed, and at a place in it.
type End struct {
	Bounds
	Newest time.Time // the time of the event Last; zero if there was none yet
	Then   time.Time // the time of the event at the place; zero if there is none, or it is trimmed
}

// stamp tells an event from another one that got the same id in another history:
// that was stored at another time.
type stamp struct {
	id Cursor // 0: of no event
	ms int64
}

func stampOf(e *Event) stamp { return stamp{Cursor(e.ID), e.Time.UnixMilli()} }

// history is what a log knows of the history that its events are from. It is
// under the log's mu.
type history struct {
	newest      stamp  // of the event at tail, unless its id is another
	lastDropped stamp  // of the last event that was given up when the feed was quiet
	verified    stamp  // of the newest event that a comparison has found in the store …
	epoch       uint64 // … when the hub's epoch was this
	suspect     bool   // a review is due: until then the log takes nothing that was not read …
	frozen      bool   // … and nothing at all, and hands out nothing

	rollbacks     []rollback    // one for each time that it turned out to be undone
	rollbackCount atomic.Uint32 // how many; may be read without the lock
}

// rollback is a store that has been replaced, as a subscriber sees it that was
// there before.
type rollback struct {
	agreed Cursor // the old history and the new one agree up to here, as far as is known
	end    Cursor // the new one ended here
}

// mostUndone bounds what a log remembers of its undoings.
const mostRollbacks = 32

// rollBack notes that what is after agreed is no longer so. The caller holds mu.
func (h *history) rollBack(agreed, end Cursor) {
	// A subscriber that was there before several of them is past all that it
	// can trust if it is past the first place where any history parted.
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

// since returns what was undone after the first n times. The caller holds mu.
func (h *history) since(n uint16) rollback {
	missed := int(uint16(h.rollbackCount.Load()) - n)
	return h.rollbacks[max(0, len(h.rollbacks)-missed)]
}

// rollbackGap returns the gap that comes after the subscription's cursor if the store
// was replaced since the cursor was where it is. changed says whether it was
// replaced at all: what was read before that is not to be used.
func (s *Subscription) rollbackGap() (gap *Gap, changed bool) {
	now := uint16(s.log.rollbackCount.Load())
	if now == s.rollbacksSeen {
		return nil, false
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	u := s.log.since(s.rollbacksSeen)
	s.rollbacksSeen = uint16(s.log.rollbackCount.Load())
	if s.cursor <= u.agreed {
		return nil, true
	}
	return &Gap{After: s.cursor, Resumes: uint64(u.end) + 1, Reason: Ahead}, true
}

// outdated says whether an answer of the store that came for the subscription is
// not to be used.
func (s *Subscription) outdated() bool {
	if uint16(s.log.rollbackCount.Load()) != s.rollbacksSeen {
		return true
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.frozen
}

// conflicts compares events that the store has committed with those that the log
// holds. It reports whether they are not of one history: then the log is not to
// take them. own says that this node has committed them just now: their ids are
// to be new, and a difference is proof.
func (l *log) conflicts(events []Event, own bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.loaded {
		return false
	}
	for i := range events {
		e := &events[i]
		if e.ID > uint64(l.tail) {
			continue
		}
		switch held := l.held(Cursor(e.ID)); {
		case held != nil && !sameEvent(held, e), held == nil && l.contradicts(stampOf(e)):
			l.suspect, l.frozen = true, l.frozen || own
			return true
		case held == nil && own:
			// It may have come from the store before this answer did, and be
			// given up since.
			l.suspect = true
		}
	}
	return l.suspect && own
}

// contradicts says whether the log knows of another event under this id. The
// caller holds mu.
func (l *log) contradicts(s stamp) bool {
	return s.id == l.newest.id && s != l.newest || s.id == l.verified.id && s != l.verified
}

// held returns the event with the id if the log holds it. The caller holds mu.
func (l *log) held(id Cursor) *Event {
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

// logState is a log at one moment, as the store is compared with it.
type logState struct {
	confirmed
	base             Cursor
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

// doubtful says whether the log may hold what the store, which answered at the
// epoch, does not have.
func (st logState) needsReview(e End, epoch uint64, comparer bool) bool {
	if !st.loaded {
		return false
	}
	at := func(s stamp, t time.Time) bool {
		return s.id > 0 && uint64(s.id) >= e.First && uint64(s.id) <= e.Last && s.ms != t.UnixMilli()
	}
	switch {
	case st.suspect || st.rolledBack(e.Bounds):
		return true
	case !comparer:
		return false
	case st.newest.id == st.tail && uint64(st.tail) == e.Last && at(st.newest, e.Newest):
		return true
	}
	// What has come since the last comparison is of the same history, unless
	// the store may have been another since then.
	return at(st.verified, e.Then) || epoch != st.epoch && st.verified.id < st.tail && st.base < st.tail
}

// confirm notes that the store, which answered at the epoch, has what the log
// held before.
func (l *log) setVerified(st logState, e End, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation != st.generation {
		return
	}
	if l.newest.id != l.tail && uint64(l.tail) == e.Last && e.Last > 0 {
		l.newest = stamp{l.tail, e.Newest.UnixMilli()}
		l.verified, l.epoch = l.newest, epoch
		return
	}
	if st.loaded && st.newest.id == st.tail {
		l.verified, l.epoch = st.newest, epoch
	}
}

// readOn reads what a filling log wants. same says whether that follows the
// event at the log's end: where the log knows that event, it is read once more.
func (h *Hub) readFill(feed string, w fillRequest) (p Page, same bool, err error) {
	if w.tail > 0 && w.newest.id == w.tail {
		limit := pageLimit
		limit.Events++
		if p, err = h.store.Read(h.ctx, feed, w.tail-1, limit); err != nil {
			return p, true, err
		}
		if err = checkPage(feed, w.tail-1, p); err != nil {
			return p, true, err
		}
		if len(p.Events) > 0 && p.Events[0].ID == uint64(w.tail) && stampOf(&p.Events[0]) != w.newest {
			return p, false, nil
		}
		if p.Last < uint64(w.tail) || len(p.Events) != 1 {
			return p, p.Last >= uint64(w.tail), nil
		}
		// An event alone may be larger than a page.
	}
	if p, err = h.store.Read(h.ctx, feed, w.tail, pageLimit); err == nil {
		err = checkPage(feed, w.tail, p)
	}
	return p, true, err
}

// refuse has the log take and hand out nothing more until it has been reviewed:
// the store has another event than it at the end of what it wanted to be filled.
func (l *log) freeze(w fillRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation == w.generation {
		l.suspect, l.frozen = true, true
	}
}

// epoch changes whenever the store may have been replaced.
func (h *Hub) epoch() uint64 {
	epoch := h.failures.Load()
	if c, ok := h.store.(Comparer); ok {
		epoch += c.Epoch()
	}
	return epoch
}

// ends asks the store where the logs' feeds end.
func (h *Hub) ends(ctx context.Context, logs []*log, before []logState) (ends []End, comparer bool, err error) {
	if c, ok := h.store.(Comparer); ok {
		places := make([]Place, len(logs))
		for i, l := range logs {
			places[i] = Place{l.feed, uint64(before[i].verified.id)}
		}
		ends, err = c.Ends(ctx, places)
		return ends, true, err
	}
	feeds := make([]string, len(logs))
	for i, l := range logs {
		feeds[i] = l.feed
	}
	all, err := h.store.Bounds(ctx, feeds)
	for _, b := range all {
		ends = append(ends, End{Bounds: b})
	}
	return ends, false, err
}

// compareLogs compares logs with the store, and returns the bounds of their
// feeds.
func (h *Hub) compareLogs(ctx context.Context, logs []*log) ([]Bounds, error) {
	before := make([]logState, len(logs))
	for i, l := range logs {
		// The log is read before the store is: whatever the log holds now was
		// committed, so the store can't be behind it.
		before[i] = l.state()
	}
	ends, comparer, err := h.ends(ctx, logs, before)
	if err != nil {
		return nil, err
	}
	epoch := h.epoch()
	bounds := make([]Bounds, len(logs))
	var toReview []*log
	for i, l := range logs {
		bounds[i] = ends[i].Bounds
		if before[i].needsReview(ends[i], epoch, comparer) {
			toReview = append(toReview, l)
			continue
		}
		h.apply(l, l.setBounds(ends[i].Bounds, before[i].confirmed))
		l.setVerified(before[i], ends[i], epoch)
	}
	slices.SortFunc(toReview, func(a, b *log) int { return strings.Compare(a.feed, b.feed) })
	for _, l := range toReview {
		if err := h.review(ctx, l); err != nil {
			return nil, err
		}
	}
	return bounds, nil
}

var _ ComparingReceiver = receiver{}

// Seen implements ComparingReceiver. The bus proves nothing: the store is asked.
func (r receiver) Seen(events []Event) {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Feed == events[0].Feed {
			n++
		}
		if l := r.lookup(events[0].Feed); l != nil && l.conflicts(events[:n], false) {
			r.suspect(l)
		}
		events = events[n:]
	}
}

// suspect has a log reviewed.
func (h *Hub) suspect(l *log) {
	l.mu.Lock()
	l.suspect = true
	l.mu.Unlock()
	h.recheck(l.feed)
}

// review compares what the log holds with the store, event by event. If they
// differ, the log starts again with what is stored now.
func (h *Hub) review(ctx context.Context, l *log) error {
	st, held := l.holding()
	epoch := h.epoch()
	found, err := h.findDivergence(ctx, l.feed, st, held)
	if err != nil {
		return fmt.Errorf("compare %s with the store: %w", l.feed, err)
	}
	if epoch != h.epoch() {
		h.recheckAll() // the store may have been replaced meanwhile: once more
		return nil
	}
	o, rolledBack := l.reviewed(st, found, epoch)
	if rolledBack {
		h.forget(l.feed)
		h.replacedNotice.note(h, l.feed, st, found)
		h.recheckAll() // as for other feeds
	}
	h.apply(l, o)
	return nil
}

// holding returns the log as it stands, with all events that it holds.
func (l *log) holding() (logState, []Event) {
	st := l.state()
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []Event
	for _, s := range l.segments {
		held = append(held, s.events...)
	}
	if l.generation != st.generation {
		return st, nil // reviewed will notice
	}
	st.base, st.tail, st.newest = l.base, l.tail, l.newest
	return st, held
}

// divergence is where a log's history and the store's part.
type divergence struct {
	bounds Bounds // of the store
	agreed Cursor // the newest event that both are known to have
	differ bool   // there is an id for which they have different events
}

// findDivergence reads the store until it differs from what a log held.
func (h *Hub) findDivergence(ctx context.Context, feed string, st logState, held []Event) (p divergence, err error) {
	read := func(after Cursor, limit Limit) (Page, error) {
		page, err := h.store.Read(ctx, feed, after, limit)
		if err == nil {
			err = checkPage(feed, after, page)
		}
		p.bounds = page.Bounds
		return page, err
	}
	one := Limit{Events: 1, Bytes: 1}
	for _, s := range []stamp{st.verified, st.lastDropped, st.newest} {
		if s.id <= p.agreed || s.id > st.tail || s.id > st.base && len(held) > 0 {
			continue // it is among those held, if it is anything
		}
		page, err := read(s.id-1, one)
		if err != nil {
			return p, err
		}
		if len(page.Events) == 0 || page.Events[0].ID != uint64(s.id) {
			continue
		}
		if stampOf(&page.Events[0]) != s {
			p.differ = true
			return p, nil
		}
		p.agreed = s.id
	}
	after := st.base
	for {
		page, err := read(after, pageLimit)
		if err != nil {
			return p, err
		}
		for i := range page.Events {
			e := &page.Events[i]
			if e.ID > uint64(st.tail) {
				return p, nil
			}
			n := int(e.ID - uint64(st.base) - 1)
			if n >= len(held) || !sameEvent(&held[n], e) {
				p.differ = n < len(held)
				return p, nil
			}
			p.agreed, after = Cursor(e.ID), Cursor(e.ID)
		}
		if len(page.Events) == 0 || after >= st.tail {
			return p, nil
		}
	}
}

// reviewed takes what a review has found of the log as it stood. undone says
// that the store is an older one.
func (l *log) reviewed(st logState, p divergence, epoch uint64) (o logChange, rolledBack bool) {
	l.mu.Lock()
	if !l.loaded || l.generation != st.generation {
		l.mu.Unlock()
		return logChange{}, false
	}
	frozen := l.frozen
	l.suspect, l.frozen = false, false
	if !p.differ && !st.rolledBack(p.bounds) {
		if st.newest.id == st.tail {
			l.verified, l.epoch = st.newest, epoch
		}
		l.mu.Unlock()
		o = l.setBounds(p.bounds, confirmed{})
		o.grew = o.grew || frozen
		return o, false
	}
	defer l.mu.Unlock()
	switch {
	case p.differ:
		l.rollBack(p.agreed, Cursor(p.bounds.Last))
		rolledBack = true
	case p.bounds.Last < uint64(st.tail):
		// Nothing says that it has grown since.
		l.rollBack(Cursor(p.bounds.Last), Cursor(p.bounds.Last))
		rolledBack = true
	}
	l.known, l.closed = 0, false
	l.generation++
	l.restart(p.bounds)
	l.close(p.bounds)
	l.epoch = epoch
	return logChange{grew: true}, rolledBack
}

// wentBack notes stores that were replaced by older ones: once, however many
// feeds show it.
type replacedNotice struct {
	mu    sync.Mutex
	quiet time.Time // until then
}

func (w *replacedNotice) note(h *Hub, feed string, st logState, p divergence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	logged := now.Before(w.quiet)
	w.quiet = now.Add(time.Minute)
	if logged {
		return
	}
	h.logger.Error("the store has been replaced by an older one: events that were sent are not in it, and their ids are given again. "+
		"Subscribers that are past it get a gap (ahead). Look for a restored backup, or a standby that was promoted without the last commits",
		"feed", feed, "held", st.tail, "agrees", p.agreed, "last", p.bounds.Last)
}

package feedtest

import (
	"hash/fnv"
	"io"
	"slices"

	"github.com/rejoin/rejoin/feed"
)

// Follower is one subscriber as the checker sees it, however often it is cut
// off and comes back. Its methods are called in the order of what it saw.
type Follower struct {
	checker *Checker
	name    string
	feed    string
	open    bool     // it has been, at least
	left    bool     // and does not come back
	cursor  feed.ID  // of the last event that it saw
	brought feed.ID  // with which its connection was opened
	floor   feed.ID  // the newest acknowledged id before that
	highest feed.ID  // the highest id that was known to exist before that
	gone    feed.ID  // the events before it must not come any more
	closed  bool     // it has received the news that the feed is closed
	seen    []uint64 // marks of what it saw on it, without a gap, up to the cursor
}

// Follow adds a subscriber that is about to open a subscription, which is
// judged from Opened on. The name is for reports.
func (c *Checker) Follow(name, feed string) *Follower {
	f := &Follower{checker: c, name: name + " on " + feed, feed: feed}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.before()
	c.followers = append(c.followers, f)
	return f
}

// Opened notes that the subscription is open and starts at the cursor.
func (f *Follower) Opened(cursor feed.ID) {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	if f.open && cursor != f.cursor {
		f.checker.fault("%s: came back with %d and was put at %d", f.name, f.cursor, cursor)
	}
	f.open, f.cursor, f.brought = true, cursor, cursor
}

// Resume notes that the subscriber was cut off and is about to come back with
// the cursor: the one that it has, or an older one if it lost what it saw last.
func (f *Follower) Resume(cursor feed.ID) {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	if cursor > f.cursor {
		f.checker.fault("%s: comes back with %d, but has only seen %d", f.name, cursor, f.cursor)
	}
	f.cursor, f.gone, f.closed = cursor, 0, false
	f.before()
}

// before notes what there is before a connection is opened.
func (f *Follower) before() {
	r := f.checker.record(f.feed)
	f.highest = r.highest
	f.floor = r.newest()
	f.seen = nil
}

// Saw notes the events that the subscriber received, in order.
func (f *Follower) Saw(events ...feed.Event) {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	for _, e := range events {
		f.saw(e)
	}
}

func (f *Follower) saw(e feed.Event) {
	c := f.checker
	if !f.open {
		c.fault("%s: was delivered event %d before it was open", f.name, e.ID)
		return
	}
	if e.Feed != f.feed {
		c.fault("%s: was delivered event %d of %s", f.name, e.ID, e.Feed)
		return
	}
	if want := f.cursor + 1; e.ID != want {
		c.fault("%s: was delivered event %d, want %d", f.name, e.ID, want)
	}
	if f.closed {
		c.fault("%s: received event %d after the news that the feed is closed", f.name, e.ID)
	}
	if e.ID < f.gone {
		c.fault("%s: was delivered event %d, long after those before %d were trimmed", f.name, e.ID, f.gone)
	}
	f.cursor = e.ID
	f.seen = append(f.seen, mark(e))
	r := c.record(f.feed)
	r.highest = max(r.highest, e.ID)
	for _, stored := range r.stored[e.ID] {
		if same(stored, e) {
			return
		}
	}
	if stored := r.stored[e.ID]; len(stored) > 0 && len(r.ends) == 0 {
		c.fault("%s: event %d was delivered as %s, but is %s", f.name, e.ID, show(e), show(stored[0]))
		return
	}
	if other, ok := r.unproven[e.ID]; ok && !same(other, e) && len(r.ends) == 0 {
		c.fault("%s: event %d was delivered as %s, to others as %s", f.name, e.ID, show(e), show(other))
	}
	r.unproven[e.ID] = e
}

// SawGap notes that the subscriber received a gap.
func (f *Follower) SawGap(g feed.Gap) {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	c, r := f.checker, f.checker.record(f.feed)
	if g.After != f.cursor {
		c.fault("%s: a gap after %d, but the cursor is %d", f.name, g.After, f.cursor)
	}
	switch g.Reason {
	case feed.Trimmed:
		if g.Resumes <= g.After+1 {
			c.fault("%s: a gap after %d that resumes with %d", f.name, g.After, g.Resumes)
		}
		if g.Resumes > r.trimmed {
			c.fault("%s: the gap after %d resumes with %d, but only the events before %d are gone", f.name, g.After, g.Resumes, r.trimmed)
		}
	case feed.Ahead:
		f.sawAhead(g, r)
	default:
		c.fault("%s: a gap for the reason %q", f.name, g.Reason)
	}
	f.cursor, f.seen = g.Cursor(), nil
}

// sawAhead judges a gap that says that the cursor is past the end, or past what
// can be trusted: the store must have been rolled back to before it, or under
// the subscriber, or the subscriber must have brought a cursor that was never
// given.
func (f *Follower) sawAhead(g feed.Gap, r *record) {
	end, rolledBack := f.floor, false
	for _, last := range r.ends {
		switch {
		case last >= g.After:
		case rolledBack:
			end = min(end, last)
		default:
			end, rolledBack = last, true
		}
	}
	// That a store which has grown again is another one can be known without it
	// being known from where on.
	grown := g.Resumes > g.After
	if g.Resumes == 0 || grown && (g.Resumes > r.highest+1 || len(r.ends) == 0) {
		f.checker.fault("%s: a gap ahead of %d that resumes with %d", f.name, g.After, g.Resumes)
		return
	}
	if !rolledBack && !grown && (g.After != f.brought || g.After <= f.highest) {
		f.checker.fault("%s: a gap ahead of %d, which exists", f.name, g.After)
	}
	if g.Resumes <= end && (rolledBack || !grown) {
		f.checker.fault("%s: the gap ahead of %d resumes with %d, but the feed goes up to %d", f.name, g.After, g.Resumes, end)
	}
}

// Gone notes that the events before an id were trimmed, and that it is too late
// now for its present connection to bring the subscriber any of them.
func (f *Follower) Gone(before feed.ID) {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	f.gone = max(f.gone, before)
}

// SawClosed notes that the subscriber learned that the feed is closed, and that
// it has everything.
func (f *Follower) SawClosed() {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	closes := f.checker.record(f.feed).closes
	if !slices.Contains(closes, f.cursor) {
		f.checker.fault("%s: learned at %d that the feed is closed, which it was at %d", f.name, f.cursor, closes)
	}
	f.closed = true
}

// Closed reports whether the subscriber learned on its last connection that the
// feed is closed.
func (f *Follower) Closed() bool {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	return f.closed
}

// Cursor returns the id of the last event that the subscriber saw.
func (f *Follower) Cursor() feed.ID {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	return f.cursor
}

// Leave notes that the subscriber does not come back, so it need not have everything.
func (f *Follower) Leave() {
	f.checker.mu.Lock()
	defer f.checker.mu.Unlock()
	f.left = true
}

// mark tells an event from another one with its id.
func mark(e feed.Event) uint64 {
	h := fnv.New64a()
	io.WriteString(h, e.Type)
	io.WriteString(h, "\n")
	io.WriteString(h, e.Data)
	return h.Sum64()
}

// judgeSeen demands that what the subscriber has seen since its last gap is what
// is held now: where a store was replaced by an older one, it had to be told.
func (f *Follower) judgeSeen(held map[feed.ID]feed.Event) {
	first := f.cursor + 1 - feed.ID(len(f.seen))
	for i, seen := range f.seen {
		id := first + feed.ID(i)
		if e, ok := held[id]; ok && mark(e) != seen {
			f.checker.fault("%s: saw another event %d than %s, and then went up to %d without a gap", f.name, id, show(e), f.cursor)
			return
		}
	}
}

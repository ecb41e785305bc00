package feed

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ID numbers the events of a feed: 1, 2, 3 … without holes. A cursor is an ID, too: that
// of the last event that a subscriber has, and 0 before the first. On the wire it is
// plain decimal, without sign, leading zero or space.
type ID uint64

// MaxID is the largest ID. It is what the signed integers of SQL stores hold.
const MaxID ID = math.MaxInt64

// ParseCursor reads the wire form. Its error wraps ErrInvalid.
func ParseCursor(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	// ParseUint alone would let "007" through.
	if err != nil || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%w: a cursor is a decimal number from 0 to %d without sign or leading zero, not %s", ErrInvalid, MaxID, quote(s))
	}
	return ID(n), nil
}

// String returns the wire form.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Append appends the wire form to dst.
func (id ID) Append(dst []byte) []byte { return strconv.AppendUint(dst, uint64(id), 10) }

// Bounds tells which events of a feed exist.
type Bounds struct {
	First ID // the oldest still kept; Last+1 when none is kept
	Last  ID // the newest ever given; 0 when the feed was never written to

	Closed bool // no event will ever follow Last
}

// Unwritten is the bounds of a feed that was never written to.
var Unwritten = Bounds{First: 1, Last: 0}

type fromKind int

const (
	fromNow fromKind = iota
	fromStart
	fromNewest
	fromTime
	fromMoment
	fromCursor
)

// From tells where a subscription starts. The zero value starts now: with the
// first event that is yet to come.
type From struct {
	kind   fromKind
	newest uint64
	time   time.Time
	cursor ID
}

// FromCursor resumes: it starts with the event that follows c. It is the only From
// that can find a [Gap].
func FromCursor(c ID) From { return From{kind: fromCursor, cursor: c} }

// Cursor returns the cursor that f resumes from; ok is false for a From that is
// not one of [FromCursor].
func (f From) Cursor() (c ID, ok bool) { return f.cursor, f.kind == fromCursor }

// FromStart starts with the oldest event that is kept.
func FromStart() From { return From{kind: fromStart} }

// FromNewest starts with the newest n events that are kept.
func FromNewest(n uint64) From { return From{kind: fromNewest, newest: n} }

// FromTime starts with the oldest kept event of that instant or later.
func FromTime(t time.Time) From { return From{kind: fromTime, time: t} }

// FromMoment starts at a moment that [time.Now] has returned in this process. It is for
// a client that wanted to start now while the store did not answer.
// Whatever the store's clock shows, no event is missed that was committed from then
// on. Some from before it may come, too: the last append, and those of the last
// second or hundredth of the time since then. If the store is no [RetentionStore], its
// clock cannot be read, and the subscription starts with the oldest event.
func FromMoment(t time.Time) From { return From{kind: fromMoment, time: t} }

// ParseFrom reads "now", "start", "-N" (the newest N events) or an RFC 3339
// time. Its error wraps ErrInvalid.
func ParseFrom(s string) (From, error) {
	switch {
	case s == "now":
		return From{}, nil
	case s == "start":
		return FromStart(), nil
	case strings.HasPrefix(s, "-"):
		if n, err := ParseCursor(s[1:]); err == nil {
			return FromNewest(uint64(n)), nil
		}
	default:
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return FromTime(t), nil
		}
	}
	return From{}, fmt.Errorf("%w: from is now, start, -N or an RFC 3339 time such as 2026-01-31T09:30:00Z (a + in it is written %%2B in a URL), not %s", ErrInvalid, quote(s))
}

// GapReason tells why the events after a cursor cannot follow.
type GapReason string

const (
	// Trimmed: the feed no longer keeps the events that follow the cursor.
	Trimmed GapReason = "trimmed"
	// Ahead: the cursor is past what can be trusted, because the store was
	// replaced by an older one: past the end of the feed, or past the newest
	// event that both stores are known to have.
	Ahead GapReason = "ahead"
)

// Gap tells which events are missing from a subscription: those after
// the cursor After and before the id Resumes. For Ahead, Resumes is the id after
// the feed's end, and may be smaller than After or larger: the store no longer has
// the events that the subscriber has seen.
type Gap struct {
	After   ID
	Resumes ID
	Reason  GapReason
}

// Cursor is the subscription's cursor once it has passed the gap.
func (g Gap) Cursor() ID { return g.Resumes - 1 }

// locate decides where a subscription starts in a feed with bounds b. It returns the
// cursor, and the gap, if any, right behind that
// cursor. For FromTime, found is the cursor before the first event of that time,
// and for FromMoment one before all events that may be as new.
func locate(from From, b Bounds, found ID) (ID, *Gap) {
	oldest, newest := b.First-1, b.Last
	switch from.kind {
	case fromStart:
		return oldest, nil
	case fromNewest:
		if from.newest >= uint64(b.Last-oldest) {
			return oldest, nil
		}
		return newest - ID(from.newest), nil
	case fromTime, fromMoment:
		return min(max(found, oldest), newest), nil
	case fromCursor:
		return from.cursor, gapAfter(from.cursor, b)
	default:
		return newest, nil
	}
}

// gapAfter returns the gap that a cursor meets in a feed with bounds b, or nil.
func gapAfter(c ID, b Bounds) *Gap {
	switch {
	case c > b.Last:
		return &Gap{After: c, Resumes: b.Last + 1, Reason: Ahead}
	case c+1 < b.First:
		return &Gap{After: c, Resumes: b.First, Reason: Trimmed}
	}
	return nil
}

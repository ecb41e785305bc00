package feed

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Outage keeps track of something that may stop working, so that its failures
// are logged once for each cause, however often it is tried. The zero value is
// ready for use, and safe for concurrent use.
type Outage struct {
	logged atomic.Bool // a failure is in the log, and its end is not

	mu    sync.Mutex
	cause string    // of the last failure
	began time.Time // when the first failure of this outage was, or of the last one
	lines []outageLine
}

// outageLine is a line that was logged within the last outageWindow.
type outageLine struct {
	cause string
	at    time.Time
}

// Causes that take turns are logged once in outageWindow. Within that time, no more than
// outageLines lines report a failure.
const (
	outageWindow = time.Minute
	outageLines  = 16
)

// OutageChange tells what there is to log after a call of [Outage] Note.
type OutageChange int

const (
	OutageSame    OutageChange = iota // nothing
	OutageBegan                       // it fails
	OutageChanged                     // it still fails, for another reason
	OutageEnded                       // it works again
)

// Note takes the result of one try. Errors that differ only in numbers, such as
// local ports, process ids and durations, have the same cause.
func (o *Outage) Note(err error) OutageChange {
	if err == nil {
		// Most tries succeed, and take no lock.
		if o.logged.Load() && o.logged.Swap(false) {
			return OutageEnded
		}
		return OutageSame
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	cause, logged := causeOf(err), o.logged.Load()
	if logged && cause == o.cause {
		return OutageSame
	}
	o.cause = cause
	now := time.Now()
	if !logged {
		o.began = now
	}
	o.lines = slices.DeleteFunc(o.lines, func(l outageLine) bool { return now.Sub(l.at) >= outageWindow })
	repeated := logged && slices.ContainsFunc(o.lines, func(l outageLine) bool { return l.cause == cause })
	if repeated || len(o.lines) >= outageLines {
		return OutageSame
	}
	o.lines = append(o.lines, outageLine{cause, now})
	if o.logged.Swap(true) {
		return OutageChanged
	}
	return OutageBegan
}

// Lasted returns how long ago the last outage began. After OutageEnded, that is how long
// it lasted.
func (o *Outage) Lasted() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.began).Round(time.Millisecond)
}

// varying matches what differs between failures of one cause: the local end of a
// connection, and numbers with their units. Addresses of servers and SQLSTATE
// codes come first in the pattern, so that causeOf can keep them.
var varying = regexp.MustCompile(`\S+->` + `|SQLSTATE \w+` + `|\d+\.\d+\.\d+\.\d+(:\d+)?` +
	`|([0-9]+(\.[0-9]+)?(ns|µs|ms|s|m|h)?)+`)

func causeOf(err error) string {
	return varying.ReplaceAllStringFunc(err.Error(), func(found string) string {
		if strings.HasPrefix(found, "SQLSTATE") || strings.Count(found, ".") == 3 && !strings.HasSuffix(found, "->") {
			return found
		}
		return "#"
	})
}

// log notes a try of what, and logs a change.
func (o *Outage) log(logger *slog.Logger, err error, what string, args ...any) {
	switch o.Note(err) {
	case OutageBegan:
		logger.Error(what+" fails", append(args, "error", err)...)
	case OutageChanged:
		logger.Error(what+" fails for another reason", append(args, "error", err)...)
	case OutageEnded:
		logger.Info(what+" works again", append(args, "after", o.Lasted())...)
	}
}

// located adds to the logger where a store or a bus is, if it has a method String.
func located(logger *slog.Logger, key string, place any) *slog.Logger {
	if s, ok := place.(fmt.Stringer); ok {
		return logger.With(key, s.String())
	}
	return logger
}

// faults keeps track of the calls that fail for single feeds, a few feeds at a time.
// However many feeds are damaged, the log names some, and reports that there are more.
type faults struct {
	mu      sync.Mutex
	entries map[fault]*feedOutage
	more    time.Time // of the last line that there are more
}

// fault is a kind of call that fails for a feed.
type fault struct{ what, feed string }

type feedOutage struct {
	Outage
	failed time.Time // when it failed last
	after  ID        // the cursor for which it failed last
}

const faultsMost = 8

// log notes a call of the store for the events after a cursor of a feed. A fault
// ends when a call works for the cursor that failed last: other parts of the
// feed may be sound all the time.
func (f *faults) log(logger *slog.Logger, err error, what, feed string, after ID) {
	if o, full := f.find(err, fault{what, feed}, after, time.Now()); o != nil {
		o.log(logger, err, what, "feed", feed)
	} else if full {
		logger.Error(what+" fails for more feeds than are logged", "feed", feed, "error", err)
	}
}

// find returns the outage that the call belongs to, or nil. If there is no room for a
// new one, full is true, once in outageWindow.
func (f *faults) find(err error, key fault, after ID, now time.Time) (o *feedOutage, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o = f.entries[key]
	if err == nil {
		if o != nil && o.after != after {
			return nil, false
		}
		return o, false
	}
	if o == nil || o.stale(now) {
		if o = f.begin(key, now); o == nil {
			full = now.Sub(f.more) >= outageWindow
			if full {
				f.more = now
			}
			return nil, full
		}
	}
	o.failed, o.after = now, after
	return o, false
}

// begin makes a new entry, at the cost of stale ones. It returns nil if there is
// no room.
func (f *faults) begin(key fault, now time.Time) *feedOutage {
	maps.DeleteFunc(f.entries, func(_ fault, o *feedOutage) bool { return o.stale(now) })
	if len(f.entries) >= faultsMost {
		return nil
	}
	if f.entries == nil {
		f.entries = make(map[fault]*feedOutage)
	}
	o := &feedOutage{}
	f.entries[fault{key.what, strings.Clone(key.feed)}] = o
	return o
}

// stale reports whether it has not failed for a while, possibly because the call
// is no longer made.
func (o *feedOutage) stale(now time.Time) bool { return now.Sub(o.failed) >= outageWindow }

// The methods below note how calls of the hub's store went. Kinds of calls are apart,
// because one kind may fail while others work.

// noteStoring notes an append for any feeds.
func (h *Hub) noteStoring(err error) {
	if err != nil {
		h.failures.Add(1)
	}
	h.storing.log(h.storeLog, err, "storing events")
}

// noteComparing notes a call of Bounds that was made with ctx.
func (h *Hub) noteComparing(ctx context.Context, err error) {
	if ctx.Err() == nil && h.ctx.Err() == nil {
		if err != nil {
			h.failures.Add(1)
		}
		h.comparing.log(h.storeLog, err, "comparing feeds with the store")
	}
}

// noteChecking notes the result of the store's check of itself.
func (h *Hub) noteChecking(ctx context.Context, err error) {
	if ctx.Err() == nil && h.ctx.Err() == nil {
		h.checking.log(h.storeLog, err, "the store's check of itself")
	}
}

// noteFeed notes a call for one feed that was made with ctx.
func (h *Hub) noteFeed(ctx context.Context, err error, what, feed string) {
	h.noteFeedAt(ctx, err, what, feed, 0)
}

// noteRead notes a read of the feed after the cursor.
func (h *Hub) noteRead(ctx context.Context, err error, feed string, after ID) {
	h.noteFeedAt(ctx, err, "reading a feed", feed, after)
}

func (h *Hub) noteFeedAt(ctx context.Context, err error, what, feed string, after ID) {
	if ctx.Err() == nil && h.ctx.Err() == nil {
		h.faults.log(h.storeLog, err, what, feed, after)
	}
}

// What noteFeed is called for.
const (
	locatingFeed  = "looking up the ends of a feed"
	seekingInFeed = "looking for a time in a feed"
	storingInFeed = "storing events of a feed that was held"
)

package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

const (
	// What one read of feeds may bring. An event has some 60 kB at most, so
	// this bounds what a node holds.
	fetchEvents = 1024
	fetchFeeds  = 256
)

// errand is what a lane wants of one feed: the events after the cursor that
// runs vouch for.
type errand struct {
	*news
	after  uint64 // read from here
	cursor uint64 // the receiver is here
	found  []entry
	seen   []feed.Event // that the receiver has, for it to compare
}

func (e *errand) size() int { return int(e.last - e.after) }

// fetch reads what has grown, for those feeds that are open here, and hands it
// over.
func (l *lane) fetch(ctx context.Context) error {
	var errands []*errand
	size := 0
	for _, n := range l.order {
		cursor, open := l.cursor(n.name)
		if !open || uint64(cursor) >= n.last && n.foreign == 0 {
			continue
		}
		e := &errand{news: n, cursor: uint64(cursor)}
		if e.plan(); e.last-e.after > fetchEvents && uint64(cursor) < n.last {
			l.grew(n.name, n.last)
			continue
		}
		if size+e.size() > fetchEvents || len(errands) == fetchFeeds {
			if err := l.read(ctx, errands); err != nil {
				return err
			}
			errands, size = nil, 0
		}
		errands, size = append(errands, e), size+e.size()
	}
	if len(errands) == 0 {
		return nil
	}
	return l.read(ctx, errands)
}

// plan decides from where to read. Runs that the receiver has in part are read
// whole, or their sum could not be checked, and those of others that it has are
// for it to compare.
func (e *errand) plan() {
	e.runs = slices.DeleteFunc(e.runs, func(r run) bool {
		return r.last <= e.cursor && (e.foreign == 0 || r.last < e.foreign)
	})
	slices.SortFunc(e.runs, func(a, b run) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	e.after = e.runs[0].first - 1
}

// read reads the errands' feeds in one call and hands over what it finds.
func (l *lane) read(ctx context.Context, errands []*errand) error {
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	cmd := readOf(ctx, errands)
	err := l.client.Process(ctx, cmd)
	switch {
	case err == nil, errors.Is(err, goredis.Nil):
		if err := found(cmd, errands); err != nil {
			return err
		}
	case isAnswer(err) && len(errands) > 1:
		// One of the keys spoils it for all: each by itself, then.
		if err := l.readApart(ctx, errands); err != nil {
			return err
		}
	case !isWrongType(err):
		return fmt.Errorf("read feeds: %w", err)
	}
	l.deliver(errands)
	return nil
}

func readOf(ctx context.Context, errands []*errand) *goredis.SliceCmd {
	count := 0
	args := make([]any, 0, 4+2*len(errands))
	args = append(args, "xread", "count", nil, "streams")
	for _, e := range errands {
		args = append(args, e.key)
		count = max(count, e.size())
	}
	for _, e := range errands {
		args = append(args, position{ms: e.after}.String())
	}
	args[2] = count
	return goredis.NewSliceCmd(ctx, args...)
}

// found gives each errand its part of what was read, which has the same order
// and leaves out feeds that have nothing.
func found(cmd *goredis.SliceCmd, errands []*errand) error {
	ok := parseStreams(cmd.Val(), func(key string, entries []entry) {
		for len(errands) > 0 && errands[0].key != key {
			errands = errands[1:]
		}
		if len(errands) > 0 {
			errands[0].found = entries
		}
	})
	if !ok {
		return errReply
	}
	return nil
}

func (l *lane) readApart(ctx context.Context, errands []*errand) error {
	pipe := l.client.Pipeline()
	cmds := make([]*goredis.SliceCmd, len(errands))
	for i := range errands {
		cmds[i] = readOf(ctx, errands[i:i+1])
		_ = pipe.Process(ctx, cmds[i])
	}
	if _, err := pipe.Exec(ctx); err != nil && !isAnswer(err) {
		return fmt.Errorf("read feeds: %w", err)
	}
	for i, cmd := range cmds {
		err := cmd.Err()
		if err == nil {
			err = found(cmd, errands[i:i+1])
		}
		if err != nil && !isAnswer(err) {
			return fmt.Errorf("read feeds: %w", err)
		}
	}
	return nil
}

// deliver hands over what was found and is vouched for. Where that does not
// lead from the cursor to what the wake streams named, the feed grew. It hands
// over nothing if the store has become another meanwhile.
func (l *lane) deliver(errands []*errand) {
	if l.moved() {
		return
	}
	size := 0
	for _, e := range errands {
		size += len(e.found)
	}
	events := make([]feed.Event, 0, size)
	var grew []*errand
	for _, e := range errands {
		var whole bool
		if events, whole = e.events(events); !whole {
			grew = append(grew, e)
		}
	}
	for _, e := range errands {
		l.seen(e.seen)
	}
	l.receive(events)
	for _, e := range grew {
		l.grew(e.name, e.last)
	}
}

// events appends the events of the runs that were found as they were told, and
// says whether they lead from the cursor to the last without a hole.
func (e *errand) events(events []feed.Event) (_ []feed.Event, whole bool) {
	reached := e.cursor
	var scratch []byte
	for _, r := range e.runs {
		if r.last <= reached && r.last > e.cursor {
			continue // told twice
		}
		mark, seen := len(events), len(e.seen)
		var ok bool
		if events, scratch, ok = e.take(events, r, scratch); !ok {
			events, e.seen = events[:mark], e.seen[:seen]
			continue
		}
		if r.first <= reached+1 {
			reached = max(reached, r.last)
		}
	}
	return events, reached >= e.last
}

// take appends the events of one run, if they are all there and what they were
// when they were told.
func (e *errand) take(events []feed.Event, r run, scratch []byte) ([]feed.Event, []byte, bool) {
	i, ok := slices.BinarySearchFunc(e.found, r.first, func(f entry, id uint64) int {
		return cmp.Compare(f.at.ms, id)
	})
	if !ok || uint64(len(e.found)-i) < r.last-r.first+1 {
		return events, scratch, false
	}
	var sum uint32
	for id := r.first; id <= r.last; id++ {
		event := feed.Event{Feed: e.name, ID: id}
		if e.found[i].at != (position{ms: id}) || !decodeEvent(&event, e.found[i].fields) {
			return events, scratch, false
		}
		sum, scratch = add(sum, &event, scratch)
		if id > e.cursor {
			events = append(events, event)
		} else {
			e.seen = append(e.seen, event)
		}
		i++
	}
	return events, scratch, sum == r.sum
}

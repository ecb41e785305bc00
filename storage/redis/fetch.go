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
	// The limits of one read of feeds. An event has some 60 kB at most, so they bound
	// the memory of a read.
	fetchEvents = 1024
	fetchFeeds  = 256
)

// fetchRequest asks for the events of one feed after the receiver's cursor, as far as
// the runs of wake entries confirm them.
type fetchRequest struct {
	*feedNews
	after  feed.ID // where the read begins
	cursor feed.ID // the receiver's
	found  []entry
	seen   []feed.Event // those that the receiver has, for it to compare
}

func (e *fetchRequest) size() int { return int(e.last - e.after) }

// fetch reads the feeds that have grown and are open here, and delivers their events.
func (l *shardTail) fetch(ctx context.Context) error {
	var requests []*fetchRequest
	size := 0
	for _, n := range l.order {
		cursor, open := l.cursor(n.name)
		if !open || cursor >= n.last && n.foreign == 0 {
			continue
		}
		e := &fetchRequest{feedNews: n, cursor: cursor}
		if e.plan(); e.last-e.after > fetchEvents && cursor < n.last {
			l.grew(n.name, n.last)
			continue
		}
		if size+e.size() > fetchEvents || len(requests) == fetchFeeds {
			if err := l.read(ctx, requests); err != nil {
				return err
			}
			requests, size = nil, 0
		}
		requests, size = append(requests, e), size+e.size()
	}
	if len(requests) == 0 {
		return nil
	}
	return l.read(ctx, requests)
}

// plan decides where to begin to read. A run that the receiver has in part is read
// whole, because its checksum covers all of it, and a run of another node that the
// receiver has is read for it to compare.
func (e *fetchRequest) plan() {
	e.runs = slices.DeleteFunc(e.runs, func(r run) bool {
		return r.last <= e.cursor && (e.foreign == 0 || r.last < e.foreign)
	})
	slices.SortFunc(e.runs, func(a, b run) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last)) })
	e.after = e.runs[0].first - 1
}

// read reads the requests' feeds in one call and delivers their events.
func (l *shardTail) read(ctx context.Context, requests []*fetchRequest) error {
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	cmd := readOf(ctx, requests)
	err := l.bus.process(ctx, l.client, cmd)
	switch {
	case err == nil, errors.Is(err, goredis.Nil):
		if err := found(cmd, requests); err != nil {
			return err
		}
	case isAnswer(err) && len(requests) > 1:
		// One bad key fails the whole call: read each key by itself.
		if err := l.readApart(ctx, requests); err != nil {
			return err
		}
	case !isWrongType(err):
		return fmt.Errorf("read feeds: %w", err)
	}
	l.deliver(requests)
	return nil
}

func readOf(ctx context.Context, requests []*fetchRequest) *goredis.SliceCmd {
	count := 0
	args := make([]any, 0, 4+2*len(requests))
	args = append(args, "xread", "count", nil, "streams")
	for _, e := range requests {
		args = append(args, e.key)
		count = max(count, e.size())
	}
	for _, e := range requests {
		args = append(args, positionOf(e.after).String())
	}
	args[2] = count
	return goredis.NewSliceCmd(ctx, args...)
}

// found gives each request its part of the reply, which has the same order and
// leaves out feeds without entries.
func found(cmd *goredis.SliceCmd, requests []*fetchRequest) error {
	ok := parseStreams(cmd.Val(), func(key string, entries []entry) {
		for len(requests) > 0 && requests[0].key != key {
			requests = requests[1:]
		}
		if len(requests) > 0 {
			requests[0].found = entries
		}
	})
	if !ok {
		return errReply
	}
	return nil
}

func (l *shardTail) readApart(ctx context.Context, requests []*fetchRequest) error {
	pipe := l.client.Pipeline()
	cmds := make([]*goredis.SliceCmd, len(requests))
	for i := range requests {
		cmds[i] = readOf(ctx, requests[i:i+1])
		_ = pipe.Process(ctx, cmds[i])
	}
	if err := l.bus.exec(ctx, pipe); err != nil && !isAnswer(err) {
		return fmt.Errorf("read feeds: %w", err)
	}
	for i, cmd := range cmds {
		err := cmd.Err()
		if err == nil {
			err = found(cmd, requests[i:i+1])
		}
		if err != nil && !isAnswer(err) {
			return fmt.Errorf("read feeds: %w", err)
		}
	}
	return nil
}

// deliver passes on the events that wake entries confirm. If they do not lead from
// the cursor to the last id that the wake stream named, it calls Grew. It delivers
// nothing if the store's id has changed meanwhile.
func (l *shardTail) deliver(requests []*fetchRequest) {
	if l.moved() {
		return
	}
	size := 0
	for _, e := range requests {
		size += len(e.found)
	}
	events := make([]feed.Event, 0, size)
	var grew []*fetchRequest
	for _, e := range requests {
		var whole bool
		if events, whole = e.events(events); !whole {
			grew = append(grew, e)
		}
	}
	for _, e := range requests {
		l.seen(e.seen)
	}
	l.receive(events)
	for _, e := range grew {
		l.grew(e.name, e.last)
	}
}

// events appends the events of the runs that match their checksums, and reports
// whether they lead from the cursor to the last id without a hole.
func (e *fetchRequest) events(events []feed.Event) (_ []feed.Event, whole bool) {
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

// take appends the events of one run, if all are there and match the checksum.
func (e *fetchRequest) take(events []feed.Event, r run, scratch []byte) ([]feed.Event, []byte, bool) {
	i, ok := slices.BinarySearchFunc(e.found, r.first, func(f entry, id feed.ID) int {
		return cmp.Compare(f.at.ms, uint64(id))
	})
	if !ok || feed.ID(len(e.found)-i) < r.last-r.first+1 {
		return events, scratch, false
	}
	var sum uint32
	for id := r.first; id <= r.last; id++ {
		event := feed.Event{Feed: e.name, ID: id}
		if e.found[i].at != positionOf(id) || !decodeEvent(&event, e.found[i].fields) {
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

package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

const (
	wakeCount  = 256 // entries of a wake stream in one read
	checkEvery = time.Second

	// A wake-up costs the node, and Redis for each node, more than the events that it
	// is for. So a node waits a moment between two wake-ups. It waits less than the
	// time between two flushes of one node, so that it does not delay them.
	gather = 3 * time.Millisecond
)

var errReply = errors.New("redis sent a reply that XREAD does not have")

// feedNews holds what the wake entries report about one feed.
type feedNews struct {
	name, key string
	runs      []run
	last      feed.ID
	foreign   feed.ID // the first id that another node told; 0 for none
}

// await blocks until feeds have grown or a second has passed, and puts the feeds that
// have grown in l.grown. full means that more entries may be waiting.
func (l *shardTail) await(ctx context.Context) (full bool, err error) {
	clear(l.grown)
	l.order = l.order[:0]
	if since := time.Since(l.woken); since < gather {
		pause(ctx, gather-since)
	}
	if l.broken {
		pause(ctx, block)
		return false, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	cmd := goredis.NewSliceCmd(ctx, "xread", "count", wakeCount, "block", block.Milliseconds(), "streams", l.wake, l.at.String())
	switch err := l.client.Process(ctx, cmd); {
	case errors.Is(err, goredis.Nil):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("wait for a wake entry: %w", err)
	}
	l.woken = time.Now()
	lost := false
	ok := parseStreams(cmd.Val(), func(_ string, entries []entry) {
		if len(entries) == 0 {
			return
		}
		if full = len(entries) == wakeCount; l.anchor == (position{}) {
			// The stream is new, or was trimmed or evicted and began anew: nothing
			// tells which.
			l.anchor, lost = entries[0].at, true
		}
		for _, e := range entries {
			lost = !l.note(e.fields) || lost
		}
		l.at = entries[len(entries)-1].at
		l.bus.counts.wakes.Add(uint64(len(entries)))
	})
	if !ok {
		return false, errReply
	}
	if lost {
		l.missed()
	}
	return full, nil
}

// note notes the feeds of one wake entry. sound is false if a part of it cannot be
// read.
func (l *shardTail) note(fields []any) (sound bool) {
	sound = len(fields) > 0 && len(fields)%2 == 0
	for len(fields) >= 2 {
		name, _ := fields[0].(string)
		value, _ := fields[1].(string)
		fields = fields[2:]
		r, ok := parseRun(value)
		if !ok || feed.CheckName(name) != nil {
			sound = false
			continue
		}
		n := l.grown[name]
		if n == nil {
			// The key is in the shard of this wake stream, so that a node which is
			// configured with another number of shards is understood too.
			n = &feedNews{name: name, key: l.keys.feed(l.shard, name)}
			l.grown[name] = n
			l.order = append(l.order, n)
		}
		if own := l.bus.echoes.heard(name, r); !own && l.comparer != nil && (n.foreign == 0 || r.first < n.foreign) {
			n.foreign = r.first
		}
		n.runs = append(n.runs, r)
		n.last = max(n.last, r.last)
	}
	return sound
}

// checkWakeStream compares the wake stream with the position of the shardTail. A
// fresh shardTail goes to the end of the stream and calls Missed. Another calls
// Missed only if the stream may have lost entries that it has not read, because the
// stream was trimmed, deleted, or replaced by an older state.
func (l *shardTail) checkWakeStream(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	pipe := l.client.Pipeline()
	oldest := goredis.NewSliceCmd(ctx, "xrange", l.wake, "-", "+", "count", 1)
	newest := goredis.NewSliceCmd(ctx, "xrevrange", l.wake, "+", "-", "count", 1)
	_ = pipe.Process(ctx, oldest)
	_ = pipe.Process(ctx, newest)
	if err := l.bus.exec(ctx, pipe); err != nil && !isAnswer(err) {
		return fmt.Errorf("check the wake stream: %w", err)
	}
	lost, err := l.compare(oldest, newest, fresh)
	if err != nil {
		return fmt.Errorf("check the wake stream: %w", err)
	}
	l.checkedAt = time.Now()
	if fresh || lost {
		l.missed()
	}
	return nil
}

// compare adjusts the shardTail to the two ends of its wake stream, and reports
// whether the stream may have lost unread entries.
func (l *shardTail) compare(oldest, newest *goredis.SliceCmd, fresh bool) (lost bool, err error) {
	if isWrongType(newest.Err()) || isWrongType(oldest.Err()) {
		lost, l.broken = !l.broken, true
		return lost, nil
	}
	if err := errors.Join(oldest.Err(), newest.Err()); err != nil {
		return false, err
	}
	begin, ok := endOf(oldest)
	end, sound := endOf(newest)
	if !ok || !sound {
		return false, errReply
	}
	lost = l.broken || end.before(l.at) || l.anchor != (position{}) && l.anchor.before(begin)
	if fresh || l.broken || end.before(l.at) {
		l.at = end
	}
	l.broken, l.anchor = false, l.at
	return lost, nil
}

// endOf returns the id of the only entry in the reply; zero for none.
func endOf(cmd *goredis.SliceCmd) (position, bool) {
	entries, ok := parseEntries(cmd.Val())
	if !ok || len(entries) == 0 {
		return position{}, ok
	}
	return entries[0].at, true
}

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
	wakeCount   = 256 // entries of a wake stream in one read
	surveyEvery = time.Second

	// Being woken costs a node, and Redis for each node, more than what it is
	// woken for. A node that would be woken again right away waits a moment and
	// is woken once for all that came. It is less than what passes between two
	// flushes of one node, so that these are not held up.
	gather = 3 * time.Millisecond
)

var errReply = errors.New("redis answers what is no answer to XREAD")

// news is what the wake stream says of one feed.
type news struct {
	name, key string
	runs      []run
	last      uint64
	foreign   uint64 // the first id that others told; 0 for none
}

// await blocks until feeds have grown or a second has passed, and leaves what
// has grown in l.grown. It reports whether there may be more at once.
func (l *lane) await(ctx context.Context) (full bool, err error) {
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
		return false, fmt.Errorf("wait for news: %w", err)
	}
	l.woken = time.Now()
	lost := false
	ok := parseStreams(cmd.Val(), func(_ string, entries []entry) {
		if len(entries) == 0 {
			return
		}
		if full = len(entries) == wakeCount; l.anchor == (position{}) {
			// The stream is new, and nothing tells whether it has begun once or,
			// trimmed or evicted, more often.
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

// note takes one wake entry, as far as it can be read.
func (l *lane) note(fields []any) (sound bool) {
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
			// The key is the shard's where the news came from: a node that has
			// been told of other shards than this one is understood as well.
			n = &news{name: name, key: l.keys.feed(l.shard, name)}
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

// survey compares the wake stream with where the lane is. Fresh, the lane goes to
// its end and calls that missed; otherwise only if the stream has lost what the
// lane may not have read: because it was trimmed, or deleted, or replaced by an
// older state of it.
func (l *lane) survey(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	pipe := l.client.Pipeline()
	oldest := goredis.NewSliceCmd(ctx, "xrange", l.wake, "-", "+", "count", 1)
	newest := goredis.NewSliceCmd(ctx, "xrevrange", l.wake, "+", "-", "count", 1)
	_ = pipe.Process(ctx, oldest)
	_ = pipe.Process(ctx, newest)
	if _, err := pipe.Exec(ctx); err != nil && !isAnswer(err) {
		return fmt.Errorf("look at the wake stream: %w", err)
	}
	lost, err := l.compare(oldest, newest, fresh)
	if err != nil {
		return fmt.Errorf("look at the wake stream: %w", err)
	}
	l.surveyed = time.Now()
	if fresh || lost {
		l.missed()
	}
	return nil
}

// compare brings the lane in line with the ends of its wake stream, and says
// whether the stream may have lost what was not read.
func (l *lane) compare(oldest, newest *goredis.SliceCmd, fresh bool) (lost bool, err error) {
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

// endOf returns the id of the one entry that was asked for; zero for none.
func endOf(cmd *goredis.SliceCmd) (position, bool) {
	entries, ok := parseEntries(cmd.Val())
	if !ok || len(entries) == 0 {
		return position{}, ok
	}
	return entries[0].at, true
}

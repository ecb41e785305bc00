package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

const (
	wakeCount   = 256 // entries of a wake stream in one read
	surveyEvery = time.Second

	// Being woken costs a node, and Redis for each shard, more than what it is
	// woken for. A node that would be woken again right away waits a moment and
	// is woken once for all that came.
	gather = 5 * time.Millisecond
)

var errReply = errors.New("redis answers what is no answer to XREAD")

// news is what the wake streams say of one feed.
type news struct {
	name, key string
	runs      []run
	last      uint64
}

// await blocks until feeds have grown or a second has passed, and leaves what
// has grown in l.grown. It reports whether there may be more at once.
func (l *lane) await(ctx context.Context) (full bool, err error) {
	clear(l.grown)
	l.order = l.order[:0]
	if since := time.Since(l.woken); since < gather {
		pause(ctx, gather-since)
	}
	args := make([]any, 0, 6+2*len(l.shards))
	args = append(args, "xread", "count", wakeCount, "block", block.Milliseconds(), "streams")
	for _, s := range l.shards {
		if !s.broken {
			args = append(args, s.wake)
		}
	}
	if len(args) == 6 {
		pause(ctx, block)
		return false, ctx.Err()
	}
	for _, s := range l.shards {
		if !s.broken {
			args = append(args, s.at.String())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	cmd := goredis.NewSliceCmd(ctx, args...)
	switch err := l.client.Process(ctx, cmd); {
	case errors.Is(err, goredis.Nil):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("wait for news: %w", err)
	}
	l.woken = time.Now()
	garbage := false
	ok := parseStreams(cmd.Val(), func(key string, entries []entry) {
		i := slices.IndexFunc(l.shards, func(s *shard) bool { return s.wake == key })
		if i < 0 || len(entries) == 0 {
			return
		}
		s := l.shards[i]
		if len(entries) == wakeCount {
			full = true
			// Had it been trimmed, there would be more than this. Where the
			// lane has not seen an entry yet, nothing else tells.
			garbage = garbage || s.at == position{}
		}
		for _, e := range entries {
			garbage = !l.note(s, e.fields) || garbage
		}
		s.at = entries[len(entries)-1].at
		l.bus.counts.wakes.Add(uint64(len(entries)))
	})
	if !ok {
		return false, errReply
	}
	if garbage {
		l.missed()
	}
	return full, nil
}

// note takes one wake entry of a shard, as far as it can be read.
func (l *lane) note(s *shard, fields []any) (sound bool) {
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
			n = &news{name: name, key: l.bus.keys.feed(s.number, name)}
			l.grown[name] = n
			l.order = append(l.order, n)
		}
		n.runs = append(n.runs, r)
		n.last = max(n.last, r.last)
	}
	return sound
}

// survey compares the wake streams with where the lane is. Fresh, the lane goes
// to their ends and calls that missed; otherwise only if a stream has lost what
// the lane may not have read: because it was trimmed, or deleted, or replaced
// by an older state of it.
func (l *lane) survey(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, block+grace)
	defer cancel()
	pipe := l.client.Pipeline()
	oldest := make([]*goredis.SliceCmd, len(l.shards))
	newest := make([]*goredis.SliceCmd, len(l.shards))
	for i, s := range l.shards {
		oldest[i] = goredis.NewSliceCmd(ctx, "xrange", s.wake, "-", "+", "count", 1)
		newest[i] = goredis.NewSliceCmd(ctx, "xrevrange", s.wake, "+", "-", "count", 1)
		_ = pipe.Process(ctx, oldest[i])
		_ = pipe.Process(ctx, newest[i])
	}
	if _, err := pipe.Exec(ctx); err != nil && !isAnswer(err) {
		return fmt.Errorf("look at the wake streams: %w", err)
	}
	missed := fresh
	for i, s := range l.shards {
		lost, err := s.compare(oldest[i], newest[i], fresh)
		if err != nil {
			return fmt.Errorf("look at the wake streams: %w", err)
		}
		missed = missed || lost
	}
	l.surveyed = time.Now()
	if missed {
		l.missed()
	}
	return nil
}

// compare brings the shard in line with the ends of its wake stream, and says
// whether the stream may have lost what was not read.
func (s *shard) compare(oldest, newest *goredis.SliceCmd, fresh bool) (lost bool, err error) {
	if isWrongType(newest.Err()) || isWrongType(oldest.Err()) {
		lost, s.broken = !s.broken, true
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
	lost = s.broken || end.before(s.at) || s.anchor != (position{}) && s.anchor.before(begin)
	if fresh || s.broken || end.before(s.at) {
		s.at = end
	}
	s.broken, s.anchor = false, s.at
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

package redis

import (
	"context"
	"math"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

// farAhead is how far the end of a stream may be ahead of a refused event. Nodes that
// overtake each other are closer together, since far fewer events wait to be sent:
// an end that is farther ahead was written by hand.
const farAhead = 1 << 20

// inspect looks at the streams that refused events. Usually another node was
// faster. But a stream that has another event under that id remains from a lost
// state of the store, and a stream that ends where no feed can be would refuse
// every event from now on. inspect marks both as damaged.
func (f *flush) inspect(ctx context.Context) error {
	type probe struct {
		*growth
		own, top *goredis.SliceCmd
	}
	var probes []probe
	pipe := f.bus.teller.Pipeline()
	now := time.Now()
	for _, s := range f.shards {
		for _, g := range s.grown {
			if g.refused < 0 || g.damaged || !f.bus.probeLimiter.due(g.name, now) {
				continue
			}
			id := positionOf(f.events[g.refused].ID).String()
			probe := probe{
				growth: g,
				own:    goredis.NewSliceCmd(ctx, "xrange", g.key, id, id, "count", 1),
				top:    goredis.NewSliceCmd(ctx, "xrevrange", g.key, "+", "-", "count", 1),
			}
			_ = pipe.Process(ctx, probe.own)
			_ = pipe.Process(ctx, probe.top)
			probes = append(probes, probe)
		}
	}
	if len(probes) == 0 {
		return nil
	}
	if err := f.bus.exec(ctx, pipe); err != nil && !isAnswer(err) {
		return err
	}
	for _, s := range probes {
		s.damaged = isDamaged(s.own.Err()) || !f.plausible(s.growth, s.own.Val(), s.top.Val())
		if s.damaged {
			f.bus.probeLimiter.forget(s.name)
		}
	}
	return nil
}

// plausible reports whether nodes of this store can have made a stream that has
// refused an event, and has the entry own under its id and the entry top at its end.
func (f *flush) plausible(g *growth, own, top []any) bool {
	e := &f.events[g.refused]
	if entries, ok := parseEntries(own); ok && len(entries) == 1 {
		var got feed.Event
		if !decodeEvent(&got, entries[0].fields) || got.Type != e.Type || got.Data != e.Data ||
			got.JSON != e.JSON || got.Time.UnixMilli() != e.Time.UnixMilli() {
			return false
		}
	}
	entries, ok := parseEntries(top)
	if !ok || len(entries) == 0 {
		// The last entry has been deleted, and with it the trace of where the stream
		// ends. That may be too far ahead, for ever: a new stream is safer.
		return ok && g.landed
	}
	end := entries[0].at
	return end.seq == 0 && end.ms <= math.MaxInt64 && (end.ms < uint64(e.ID) || end.ms-uint64(e.ID) <= farAhead)
}

// probeLimiter remembers which feeds were inspected lately, so that a feed to which
// several nodes write is inspected once a second instead of once a flush.
type probeLimiter struct {
	mu    sync.Mutex
	feeds map[string]time.Time
}

const (
	inspectEvery      = time.Second
	probeLimiterFeeds = 4096
)

func (w *probeLimiter) due(name string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.feeds[name]) < inspectEvery {
		return false
	}
	if w.feeds == nil || len(w.feeds) >= probeLimiterFeeds {
		w.feeds = make(map[string]time.Time)
	}
	w.feeds[name] = now
	return true
}

func (w *probeLimiter) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.feeds, name)
}

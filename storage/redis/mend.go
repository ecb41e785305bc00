package redis

import (
	"context"
	"math"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

// farAhead is how much newer than a refused event the end of its stream may be
// until somebody must have put that end there by hand. Nodes that overtake each
// other are not as far apart: far fewer events than that wait to be told.
const farAhead = 1 << 20

// inspect looks at the streams that refused events. As a rule another node was
// faster. But if the stream has another event under that id, it stems from a
// state of the store that is no more; and if its end is where no feed can be,
// it would refuse everything from now on. Both are marked as damaged.
func (f *flush) inspect(ctx context.Context) error {
	type sight struct {
		*growth
		own, top *goredis.SliceCmd
	}
	var sights []sight
	pipe := f.bus.teller.Pipeline()
	now := time.Now()
	for _, s := range f.shards {
		for _, g := range s.grown {
			if g.refused < 0 || g.damaged || !f.bus.wary.due(g.name, now) {
				continue
			}
			id := position{ms: f.events[g.refused].ID}.String()
			sight := sight{
				growth: g,
				own:    goredis.NewSliceCmd(ctx, "xrange", g.key, id, id, "count", 1),
				top:    goredis.NewSliceCmd(ctx, "xrevrange", g.key, "+", "-", "count", 1),
			}
			_ = pipe.Process(ctx, sight.own)
			_ = pipe.Process(ctx, sight.top)
			sights = append(sights, sight)
		}
	}
	if len(sights) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !isAnswer(err) {
		return err
	}
	for _, s := range sights {
		s.damaged = isDamaged(s.own.Err()) || !f.plausible(s.growth, s.own.Val(), s.top.Val())
		if s.damaged {
			f.bus.wary.forget(s.name)
		}
	}
	return nil
}

// plausible says whether a stream that has refused an event, and has own under
// its id and top at its end, can be what nodes made that tell of this store.
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
		// Its last entry has been deleted, which leaves no trace of where the
		// stream ends. If that is too far, it stays so: better make a new one.
		return ok && g.landed
	}
	end := entries[0].at
	return end.seq == 0 && end.ms <= math.MaxInt64 && (end.ms < e.ID || end.ms-e.ID <= farAhead)
}

// wary remembers which feeds were inspected lately, so that a feed that several
// nodes write to is looked at once a second and not once a flush.
type wary struct {
	mu    sync.Mutex
	feeds map[string]time.Time
}

const (
	inspectEvery = time.Second
	waryFeeds    = 4096
)

func (w *wary) due(name string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.feeds[name]) < inspectEvery {
		return false
	}
	if w.feeds == nil || len(w.feeds) >= waryFeeds {
		w.feeds = make(map[string]time.Time)
	}
	w.feeds[name] = now
	return true
}

func (w *wary) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.feeds, name)
}

package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

const (
	// The length of a wake stream: enough entries for a node that is held up for a
	// moment, and fewer if each names many feeds.
	wakeEntriesMost  = 4096
	wakeEntriesLeast = wakeCount
	wakeNames        = 1 << 16

	wakeKept = 60 // seconds between two extensions of a wake stream's expiry
)

// Tell sends the events to the other nodes in one pipeline: for each shard the
// events, feed by feed, and then one entry on its wake stream. An event that Redis
// refuses, because it has it or a later one, counts as told.
func (b *Bus) Tell(ctx context.Context, events []feed.Event) error {
	if len(events) == 0 {
		return nil
	}
	err := b.breaker.check(time.Now())
	if err == nil {
		err = b.tell(ctx, events)
		b.breaker.note(ctx, err)
	}
	if err != nil {
		b.counts.tellErrors.Add(1)
		err = fmt.Errorf("tell redis: %w", err)
	}
	b.health.told(err)
	return err
}

func (b *Bus) tell(ctx context.Context, events []feed.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	f := b.newFlush(events)
	err := f.send(ctx, f.shards, false)
	if err != nil {
		relearn(ctx, b.teller)
	}
	if err != nil && !isAnswer(err) {
		return err
	}
	if damaged, e := f.damagedShards(ctx); e != nil {
		return e
	} else if len(damaged) > 0 {
		// This error, of a second attempt, is final.
		return errors.Join(err, f.send(ctx, damaged, true))
	}
	return err
}

// flush is the events of one Tell, by shard and feed.
type flush struct {
	bus    *Bus
	keys   *keyspace
	events []feed.Event
	next   []int32 // of the same feed, or -1
	shards []*shardFlush
}

type shardFlush struct {
	shard int
	grown []*growth
	reset bool // the wake stream is damaged and has to be deleted
}

// growth is the events of one feed in a flush.
type growth struct {
	name, key   string
	first, last int32 // in flush.events
	count       int
	damaged     bool  // the stream cannot be one that this package made
	refused     int32 // the last of the events that were refused, or -1
	landed      bool  // Redis took the last event
}

func (b *Bus) newFlush(events []feed.Event) *flush {
	f := &flush{bus: b, keys: b.keys(), events: events, next: make([]int32, len(events))}
	grown := make(map[string]*growth, min(len(events), 64))
	byShard := make([]*shardFlush, len(f.keys.wakes))
	var g *growth
	for i := range events {
		name := events[i].Feed
		f.next[i] = -1
		if g == nil || g.name != name {
			g = grown[name]
		}
		if g != nil {
			f.next[g.last] = int32(i)
			g.last = int32(i)
			g.count++
			continue
		}
		shard := f.keys.shard(name)
		g = &growth{name: name, key: f.keys.feed(shard, name), first: int32(i), last: int32(i), count: 1, refused: -1}
		grown[name] = g
		if byShard[shard] == nil {
			byShard[shard] = &shardFlush{shard: shard}
			f.shards = append(f.shards, byShard[shard])
		}
		byShard[shard].grown = append(byShard[shard].grown, g)
	}
	return f
}

// send adds the shards' events to their streams. If reset is set, it deletes the
// damaged streams first. It returns the first error of a command, but only notes
// the errors of damaged streams.
func (f *flush) send(ctx context.Context, shards []*shardFlush, reset bool) error {
	pipe := f.bus.teller.Pipeline()
	added := make([]*goredis.StatusCmd, 0, len(f.events)) // in the order in which they are sent
	var others []goredis.Cmder
	wakes := make([]*goredis.StatusCmd, len(shards))
	for i, s := range shards {
		for _, g := range s.grown {
			if reset && g.damaged {
				others = append(others, f.bus.remove(ctx, pipe, g.key))
			}
			key := any(g.key)
			for e := g.first; e >= 0; e = f.next[e] {
				cmd := f.bus.add(ctx, key, &f.events[e])
				added = append(added, cmd)
				_ = pipe.Process(ctx, cmd)
			}
			others = append(others, f.bus.keep(ctx, pipe, g.key))
		}
		if reset && s.reset {
			others = append(others, f.bus.remove(ctx, pipe, f.keys.wakes[s.shard]))
		}
		wakes[i] = f.wake(ctx, s)
		_ = pipe.Process(ctx, wakes[i])
		if now := time.Now().Unix(); reset || now-f.keys.kept[s.shard].Load() >= min(wakeKept, f.bus.expiry/2) {
			f.keys.kept[s.shard].Store(now)
			others = append(others, f.bus.keep(ctx, pipe, f.keys.wakes[s.shard]))
		}
	}
	if err := f.bus.exec(ctx, pipe); err != nil && !isAnswer(err) {
		return err
	}
	return f.judge(shards, added, wakes, others, reset)
}

// judge evaluates the answers to the commands.
func (f *flush) judge(shards []*shardFlush, added, wakes []*goredis.StatusCmd, others []goredis.Cmder, reset bool) error {
	var failed error
	fail := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	told, refused := 0, 0
	for i, s := range shards {
		for _, g := range s.grown {
			g.damaged, g.refused = false, -1
			for e := g.first; e >= 0; e = f.next[e] {
				err := added[0].Err()
				added = added[1:]
				g.landed = err == nil
				switch {
				case err == nil:
					told++
				case isRefused(err):
					told++
					refused++
					g.refused = e
				case isDamaged(err) && !reset:
					g.damaged = true
				default:
					fail(err)
				}
			}
		}
		err := wakes[i].Err()
		s.reset = isDamaged(err) && !reset
		if err != nil && !s.reset {
			fail(err)
		}
	}
	for _, cmd := range others {
		if err := cmd.Err(); err != nil {
			fail(err)
		}
	}
	if !reset {
		f.bus.counts.told.Add(uint64(told))
		f.bus.counts.refused.Add(uint64(refused))
	}
	return failed
}

func (b *Bus) add(ctx context.Context, key any, e *feed.Event) *goredis.StatusCmd {
	if e.Trace != "" {
		return goredis.NewStatusCmd(ctx, "xadd", key, "maxlen", "~", b.length,
			positionOf(e.ID).String(), meta(e), e.Data, traceField, e.Trace)
	}
	return goredis.NewStatusCmd(ctx, "xadd", key, "maxlen", "~", b.length,
		positionOf(e.ID).String(), meta(e), e.Data)
}

// keep extends the expiry of a stream.
func (b *Bus) keep(ctx context.Context, pipe goredis.Pipeliner, key string) goredis.Cmder {
	cmd := goredis.NewIntCmd(ctx, "expire", key, b.expiry)
	_ = pipe.Process(ctx, cmd)
	return cmd
}

func (b *Bus) remove(ctx context.Context, pipe goredis.Pipeliner, key string) goredis.Cmder {
	b.counts.reset.Add(1)
	cmd := goredis.NewIntCmd(ctx, "del", key)
	_ = pipe.Process(ctx, cmd)
	return cmd
}

// wake returns the command that adds the wake entry of a shard.
func (f *flush) wake(ctx context.Context, s *shardFlush) *goredis.StatusCmd {
	keep := min(max(wakeNames/len(s.grown), wakeEntriesLeast), wakeEntriesMost)
	args := make([]any, 0, 6+2*len(s.grown))
	args = append(args, "xadd", f.keys.wakes[s.shard], "maxlen", "~", strconv.Itoa(keep), "*")
	var scratch []byte
	for _, g := range s.grown {
		var r run
		for e := g.first; e >= 0; e = f.next[e] {
			event := &f.events[e]
			if r.last > 0 && event.ID != r.last+1 {
				args = append(args, g.name, r.String())
				f.bus.echoes.told(g.name, r)
				r = run{}
			}
			if r.last == 0 {
				r.first = event.ID
			}
			r.last = event.ID
			r.sum, scratch = add(r.sum, event, scratch)
		}
		args = append(args, g.name, r.String())
		f.bus.echoes.told(g.name, r)
	}
	return goredis.NewStatusCmd(ctx, args...)
}

// breaker is a circuit breaker: after a failure to reach the server, calls fail at
// once for a moment instead of dialing again.
type breaker struct {
	mu    sync.Mutex
	until time.Time
	err   error
}

const breakerTime = 100 * time.Millisecond

// check returns the error that has opened the breaker, nil if it is closed.
func (k *breaker) check(now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Before(k.until) {
		return k.err
	}
	return nil
}

// note opens the breaker if err means that the server could not be reached. If the
// caller's context has ended, err means nothing.
func (k *breaker) note(ctx context.Context, err error) {
	if err == nil || isAnswer(err) || ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until, k.err = time.Now().Add(breakerTime), err
}

// damagedShards returns the part of the flush that has to be sent again, after its
// streams have been deleted.
func (f *flush) damagedShards(ctx context.Context) ([]*shardFlush, error) {
	if err := f.inspect(ctx); err != nil {
		return nil, err
	}
	var damaged []*shardFlush
	for _, s := range f.shards {
		grown := slices.DeleteFunc(slices.Clone(s.grown), func(g *growth) bool { return !g.damaged })
		if s.reset {
			grown = s.grown // the new wake entry has to name them all
		}
		if len(grown) > 0 {
			damaged = append(damaged, &shardFlush{shard: s.shard, grown: grown, reset: s.reset})
		}
	}
	return damaged, nil
}

package feed_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// readTime is how long a read of the store takes in these tests.
const readTime = time.Millisecond

// reads counts the reads of a store.
type reads struct {
	all, now, most atomic.Int64
	goroutines     atomic.Int64 // the most during a read
}

// countReads makes each read of the store take readTime, or as long as spoil does.
// spoil also decides whether the read fails.
func (r *rig) countReads(spoil feedtest.Gate) *reads {
	n := &reads{}
	r.hold(func(ctx context.Context, c feedtest.Call) error {
		switch c.At {
		case feedtest.ReadAsked:
			n.all.Add(1)
			raise(&n.most, n.now.Add(1))
			raise(&n.goroutines, int64(runtime.NumGoroutine()))
			if err := spoil(ctx, c); err != nil {
				n.now.Add(-1)
				return err
			}
			time.Sleep(readTime)
		case feedtest.ReadAnswered:
			n.now.Add(-1)
		}
		return nil
	})
	return n
}

func raise(most *atomic.Int64, n int64) {
	for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
	}
}

func sound(context.Context, feedtest.Call) error { return nil }

// holes opens n feeds, stores an event in each, and makes the hub compare them.
func (r *rig) holes(prefix string, n int) []*feed.Subscription {
	subs := make([]*feed.Subscription, n)
	for i := range subs {
		subs[i] = r.subscribe(fmt.Sprint(prefix, i), feed.From{})
	}
	for _, s := range subs {
		r.append(s.Feed(), 1)
	}
	r.bus.waitReceiver().Missed()
	return subs
}

// After an outage of the bus, the logs of all feeds have holes at once. The hub neither
// starts a goroutine for each nor asks the store for all of them at one time.
func TestFillsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.countReads(sound)
		before := int64(runtime.NumGoroutine())
		subs := r.holes("f", 2000)
		for _, s := range subs {
			reach(t, s, 1, 5*time.Second)
		}
		if most := n.most.Load(); most > 32 {
			t.Errorf("%d reads at one time", most)
		}
		if most := n.goroutines.Load() - before; most > 64 {
			t.Errorf("%d goroutines more than before", most)
		}
		if all := n.all.Load(); all != 2000 {
			t.Errorf("%d reads for 2,000 feeds", all)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := int64(runtime.NumGoroutine()) - before; left > 0 {
			t.Errorf("%d goroutines are left", left)
		}
	})
}

// Feeds that cannot be read do not delay others, and arrive once they can be read.
func TestFailingFillsDelayNoOthers(t *testing.T) {
	for name, c := range map[string]struct {
		failing int
		spoil   func(ctx context.Context) error
	}{
		"they fail": {100, func(context.Context) error { return feed.ErrUnavailable }},
		"one hangs": {1, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}},
		"one fails after a while": {1, func(context.Context) error {
			time.Sleep(10 * time.Second)
			return feed.ErrUnavailable
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				var healed atomic.Bool
				var spoilt atomic.Int64
				r.countReads(func(ctx context.Context, call feedtest.Call) error {
					if strings.HasPrefix(call.Feeds[0], "bad") && !healed.Load() {
						spoilt.Add(1)
						return c.spoil(ctx)
					}
					return nil
				})
				bad := r.holes("bad", c.failing)
				time.Sleep(time.Minute)
				began := time.Now()
				for _, s := range r.holes("f", 1000) {
					reach(t, s, 1, 2*time.Second)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the others took %v", took)
				}
				if name == "one hangs" {
					return // until the hub is closed
				}
				before := spoilt.Load()
				time.Sleep(10 * time.Second)
				if n := spoilt.Load() - before; n > int64(11*c.failing) {
					t.Errorf("%d reads of %d feeds that fail, in 10 seconds", n, c.failing)
				}
				healed.Store(true)
				for _, s := range bad {
					reach(t, s, 1, 12*time.Second)
				}
			})
		})
	}
}

// A subscriber that comes back while very many logs are filled does not wait for all
// of them, even if the store has few connections and serves its callers in order.
func TestFillsLeaveRoomForSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 5)
		connections := make(chan struct{}, 8)
		r.countReads(func(context.Context, feedtest.Call) error {
			connections <- struct{}{}
			time.Sleep(readTime)
			<-connections
			return nil
		})
		r.holes("f", 2000)
		time.Sleep(10 * readTime)
		reach(t, r.subscribe("a", feed.FromStart()), 5, 10*readTime)
	})
}

// A log that lacks very much takes turns with the others.
func TestLongFillsTakeTurns(t *testing.T) {
	const pages = 50
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.countReads(sound)
		var long []*feed.Subscription
		for i := range 64 {
			long = append(long, r.subscribe(fmt.Sprint("long", i), feed.From{}))
		}
		short := r.subscribe("short", feed.From{})
		data := strings.Repeat("x", 64<<10) // a page each
		for _, s := range long {
			drafts := make([]feed.Draft, pages)
			for i := range drafts {
				drafts[i] = feed.Draft{Feed: s.Feed(), Data: data}
			}
			if _, err := r.store.Append(t.Context(), []feed.Batch{{Feed: s.Feed(), Drafts: drafts}}); err != nil {
				t.Fatal(err)
			}
			r.bus.waitReceiver().Grew(s.Feed(), pages)
		}
		r.append("short", 1)
		r.bus.waitReceiver().Grew("short", 1)
		reach(t, short, 1, time.Second)
		if all := n.all.Load(); all > 4*64 {
			t.Errorf("%d reads came first", all)
		}
		for _, s := range long {
			reach(t, s, pages, 2*time.Second)
		}
	})
}

// The hub stops reading for a log when it drops the log.
func TestFillsEndWithTheirLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		n := r.countReads(func(context.Context, feedtest.Call) error { return errors.New("damaged") })
		r.holes("f", 1)[0].Close()
		time.Sleep(15 * time.Second)
		before := n.all.Load()
		time.Sleep(time.Minute)
		if after := n.all.Load(); before == 0 || after != before {
			t.Errorf("%d reads while there was a log, and then %d", before, after-before)
		}
	})
}

// Close of a hub ends the reads under way, and begins no others.
func TestCloseEndsFills(t *testing.T) {
	for name, spoil := range map[string]feedtest.Gate{
		"while they are read": sound,
		"while they hang": func(ctx context.Context, _ feedtest.Call) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"while they fail": func(context.Context, feedtest.Call) error { return errors.New("damaged") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				n := r.countReads(spoil)
				r.holes("f", 1000)
				time.Sleep(10 * readTime)
				r.hub.Close()
				before := n.all.Load()
				time.Sleep(time.Minute)
				synctest.Wait()
				if after := n.all.Load(); before == 0 || after != before {
					t.Errorf("%d reads before Close, and then %d", before, after-before)
				}
			})
		})
	}
}

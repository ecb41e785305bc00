package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
)

// keeperAway is a broken store that is a [feed.RetentionStore].
type keeperAway struct {
	*broken
	keeper feed.RetentionStore
}

func (s keeperAway) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	if err := s.err(); err != nil {
		return feed.FeedList{}, err
	}
	return s.keeper.List(ctx, prefix, after, limit)
}

func (s keeperAway) Trim(ctx context.Context, name string, before feed.ID) error {
	return errors.Join(s.err(), s.keeper.Trim(ctx, name, before))
}

func (s keeperAway) Sweep(ctx context.Context, limit int, window time.Duration) (bool, error) {
	return s.keeper.Sweep(ctx, limit, window)
}

func (s keeperAway) RunExclusive(ctx context.Context, fn func(context.Context) error) (bool, error) {
	return s.keeper.RunExclusive(ctx, fn)
}

// startAway starts a node whose store can go away.
func startAway(t *testing.T, o server.Options) (*node, keeperAway) {
	t.Helper()
	keeper := newKeeper(t)
	store := keeperAway{&broken{Store: keeper}, keeper}
	return startOn(t, store, o), store
}

// wantSoon demands the next block before the stream could have a keep-alive.
func (f *follower) wantSoon(block string) {
	f.t.Helper()
	began := time.Now()
	f.want(block)
	if took := time.Since(began); took > prompt {
		f.t.Fatalf("%q came after %v", block, took)
	}
}

var eventStream = map[string]string{"Accept": "text/event-stream"}

// TestAwayThenAtOnce: a stream that was opened while the store was away is a
// stream like any other once the store is back.
func TestAwayThenAtOnce(t *testing.T) {
	n, store := startAway(t, unhurried)
	store.down.Store(true)
	one := n.follow(events, eventStream)
	many := n.follow("/v1/events?feed=chat,news", eventStream)
	store.down.Store(false)
	one.wantSoon(open("chat", 0, 1, 0))
	many.block()
	for id := 1; id <= 20; id++ {
		data := fmt.Sprint("event ", id)
		n.publish("chat", data, feed.ID(id))
		one.wantSoon(event(id, data))
		began := time.Now()
		if got, end := many.block(), fmt.Sprintf("id: chat=%d,news=0\n", id); !strings.HasSuffix(got, end) || time.Since(began) > prompt {
			t.Fatalf("got %q after %v, want %q", got, time.Since(began), end)
		}
	}
}

// TestAwayThenResume: such a stream gets all events that it has missed at once.
func TestAwayThenResume(t *testing.T) {
	n, store := startAway(t, unhurried)
	const count = 5000
	for id := 0; id < count; {
		var b feed.Publication
		for range 1000 {
			id++
			b.Drafts = append(b.Drafts, feed.Draft{Feed: "chat", Data: fmt.Sprint("event ", id)})
		}
		n.publishBatch(b)
	}
	// A node that has just started has none of the feed in memory.
	n = startOn(t, shared{store}, unhurried)
	store.down.Store(true)
	f := n.follow(events+"?lastEventId=0", eventStream)
	store.down.Store(false)
	began := time.Now()
	f.want(open("chat", 0, 1, count))
	for id := range count {
		f.want(event(id+1, fmt.Sprint("event ", id+1)))
	}
	if took := time.Since(began); took > prompt {
		t.Errorf("%d events took %v", count, took)
	}
}

// shared is a store that another node closes.
type shared struct{ keeperAway }

func (shared) Close() error { return nil }

// TestAwayThenDrain: a drain ends such streams within its window.
func TestAwayThenDrain(t *testing.T) {
	n, store := startAway(t, unhurried)
	store.down.Store(true)
	var all []*follower
	for range 5 {
		all = append(all, n.follow(events, eventStream))
	}
	store.down.Store(false)
	for _, f := range all {
		f.want(open("chat", 0, 1, 0))
	}
	const window = 200 * time.Millisecond
	began := time.Now()
	n.Drain(within(t, prompt), window)
	if took := time.Since(began); took >= prompt {
		t.Errorf("a drain over %v took %v", window, took)
	}
	for _, f := range all {
		if rest, err := io.ReadAll(f.r); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(string(rest), "feed.cursor") {
			t.Errorf("ended with %v and %q, want a last cursor and a break", err, rest)
		}
	}
}

// TestAwayNow: whatever clock the store has, a stream that is opened while the store
// is away gets the events published from then on.
func TestAwayNow(t *testing.T) {
	for name, skew := range map[string]time.Duration{"behind": -5 * time.Second, "ahead": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			keeper := feedtest.NewStore()
			var ago atomic.Int64
			ago.Store(int64(time.Hour))
			keeper.SetClock(func() time.Time { return time.Now().Add(skew - time.Duration(ago.Load())) })
			store := keeperAway{&broken{Store: keeper}, keeper}
			n := startOn(t, store, unhurried)
			appendTo := func(data string) {
				t.Helper()
				if _, err := keeper.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "chat", Data: data}}}}); err != nil {
					t.Fatal(err)
				}
			}
			appendTo("old")
			ago.Store(0)
			store.down.Store(true)
			one := n.follow(events, eventStream)
			many := n.follow("/v1/events?feed=chat", eventStream)
			for range 5 {
				appendTo("new")
			}
			store.down.Store(false)
			one.wantSoon(open("chat", 1, 1, 6))
			many.block()
			for id := range 5 {
				one.wantSoon(event(id+2, "new"))
				if got := many.block(); !strings.HasSuffix(got, fmt.Sprintf("id: chat=%d\n", id+2)) {
					t.Fatalf("got %q", got)
				}
			}
		})
	}
}

// hanging is a store whose Bounds does not answer while it hangs.
type hanging struct {
	keeperAway
	hangs chan struct{}
}

func (s hanging) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	select {
	case <-s.hangs:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.keeperAway.Bounds(ctx, feeds)
}

// TestAwayThenHangs: a stream that waits for the store is kept alive and can be
// drained while the store is asked and does not answer.
func TestAwayThenHangs(t *testing.T) {
	t.Parallel()
	keeper := newKeeper(t)
	store := hanging{keeperAway{&broken{Store: keeper}, keeper}, make(chan struct{})}
	n := startOn(t, store, server.Options{Heartbeat: 600 * time.Millisecond})
	store.down.Store(true)
	one, other := n.follow(events, eventStream), n.follow("/v1/events?feed=chat,news", eventStream)
	store.down.Store(false)
	for range 5 {
		for _, f := range []*follower{one, other} {
			if line, err := f.r.ReadString('\n'); line != ":\n" {
				t.Fatalf("%q, %v; want a keep-alive", line, err)
			}
		}
	}
	began := time.Now()
	n.Drain(within(t, prompt), 0)
	if took := time.Since(began); took >= prompt {
		t.Errorf("a drain took %v", took)
	}
	close(store.hangs)
	eventually(t, "nothing of them is left", func() bool { return n.hub.Stats().Subscribers == 0 })
}

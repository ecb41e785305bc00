package feed_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// follow subscribes to several feeds until the test ends.
func (r *rig) follow(starts ...feed.SubscribeRequest) *feed.BlockingSubscriber {
	r.t.Helper()
	g, err := r.hub.SubscribeAll(r.t.Context(), starts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(g.Close)
	return g
}

// drain returns what the subscriber can read now, as text.
func (r *rig) drain(g *feed.BlockingSubscriber) (all []string) {
	r.t.Helper()
	synctest.Wait()
	tick := make(chan time.Time, 1)
	for {
		select {
		case tick <- time.Time{}:
		default:
		}
		i, d, err := g.Next(r.t.Context(), tick)
		switch {
		case errors.Is(err, feed.ErrClosed):
			return append(all, "all closed")
		case err != nil:
			r.t.Fatal(err)
		case i < 0:
			return all
		}
		name := g.At(i).Feed()
		switch {
		case d.Gap != nil:
			all = append(all, fmt.Sprintf("%s: gap after %d, resumes %d", name, d.Gap.After, d.Gap.Resumes))
		case d.Closed:
			all = append(all, name+": closed")
		}
		for _, e := range d.Events() {
			all = append(all, fmt.Sprintf("%s: %d", e.Feed, e.ID))
		}
		synctest.Wait() // for the answers of the store
	}
}

func (r *rig) wantDrained(g *feed.BlockingSubscriber, want ...string) {
	r.t.Helper()
	// The order of several ready feeds is not promised, so the tests have one at a
	// time.
	var got []string
	for range 3 { // a tick may win over a ready event
		got = append(got, r.drain(g)...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatal(diff)
	}
}

func TestSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 2)
		r.append("b", 5)
		if err := r.store.Trim(t.Context(), "b", 4); err != nil {
			t.Fatal(err)
		}
		g := r.follow(feed.SubscribeRequest{Feed: "a", From: feed.FromCursor(2)}, feed.SubscribeRequest{Feed: "b", From: feed.FromCursor(1)}, feed.SubscribeRequest{Feed: "c"})
		r.wantDrained(g, "b: gap after 1, resumes 4", "b: 4", "b: 5")
		r.publish("c", "x")
		r.wantDrained(g, "c: 1")
		r.publish("a", "x")
		r.wantDrained(g, "a: 3")
		for _, name := range []string{"b", "a", "c"} {
			if _, err := r.pub.PublishBatch(t.Context(), feed.Publication{Feed: name, Close: true}); err != nil {
				t.Fatal(err)
			}
			if name != "c" {
				r.wantDrained(g, name+": closed")
			}
		}
		r.wantDrained(g, "c: closed", "all closed", "all closed", "all closed")
	})
}

// TestSubscriberAsksOnce: several feeds without logs cost one call of the store,
// not one each.
func TestSubscriberAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var starts []feed.SubscribeRequest
		for i := range 100 {
			name := fmt.Sprintf("feed-%d", i)
			r.append(name, 3)
			starts = append(starts, feed.SubscribeRequest{Feed: name, From: feed.FromCursor(3)})
		}
		before := r.count(feedtest.BoundsAsked)
		r.follow(starts...)
		if asked := r.count(feedtest.BoundsAsked) - before; asked != 1 {
			t.Errorf("the store was asked %d times", asked)
		}
		before = r.count(feedtest.BoundsAsked)
		r.follow(starts...)
		if asked := r.count(feedtest.BoundsAsked) - before; asked != 0 {
			t.Errorf("the store was asked %d times for what is known", asked)
		}
	})
}

// TestSubscriberCannotWait: only its Notifier wakes a subscriber of a dispatcher, so
// a method that waits would never return.
func TestSubscriberCannotWait(t *testing.T) {
	type next interface {
		Next(context.Context, <-chan time.Time) (int, feed.Delivery, error)
	}
	type wait interface {
		Wait(context.Context, <-chan time.Time) (bool, error)
	}
	type nextOfOne interface {
		Next(context.Context, <-chan time.Time) (feed.Delivery, error)
	}
	var g any = &feed.Subscriber{}
	if _, ok := g.(next); ok {
		t.Error("a Subscriber has a Next")
	}
	if _, ok := g.(wait); ok {
		t.Error("a Subscriber has a Wait")
	}
	var p any = feed.Position{}
	if _, ok := p.(nextOfOne); ok {
		t.Error("a subscription of a Subscriber has a Next")
	}
	var _ interface {
		next
		wait
	} = &feed.BlockingSubscriber{}
	var _ nextOfOne = &feed.Subscription{}
}

// TestSubscriberNone: if one subscription fails, the others are closed.
func TestSubscriberNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if _, err := r.hub.SubscribeAll(t.Context(), []feed.SubscribeRequest{{Feed: "a"}, {Feed: "-"}}); !errors.Is(err, feed.ErrInvalid) {
			t.Error(err)
		}
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked)
		if _, err := r.hub.SubscribeAll(t.Context(), []feed.SubscribeRequest{{Feed: "a"}, {Feed: "b"}}); !errors.Is(err, feed.ErrUnavailable) {
			t.Error(err)
		}
		if n := r.hub.Stats().Subscribers; n != 0 {
			t.Errorf("%d subscribers are left", n)
		}
	})
}

// TestSubscriberStopped: a hub that is closed while the store loads several logs
// returns ErrStopped.
func TestSubscriberStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.holdAt(feedtest.BoundsAsked)
		ended := make(chan error, 1)
		go func() {
			_, err := r.hub.SubscribeAll(t.Context(), []feed.SubscribeRequest{{Feed: "a"}, {Feed: "b"}})
			ended <- err
		}()
		synctest.Wait()
		r.pub.Close()
		r.hub.Close()
		if err := <-ended; !errors.Is(err, feed.ErrStopped) {
			t.Errorf("got %v, want ErrStopped", err)
		}
	})
}

func TestSubscriberEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		for _, end := range []struct {
			name string
			do   func(*feed.BlockingSubscriber)
			want error
		}{
			{"the context", func(*feed.BlockingSubscriber) { cancel() }, context.Canceled},
			{"the group", (*feed.BlockingSubscriber).Close, feed.ErrStopped},
			{"the hub", func(*feed.BlockingSubscriber) { r.pub.Close(); r.hub.Close() }, feed.ErrStopped},
		} {
			g := r.follow(feed.SubscribeRequest{Feed: "a"}, feed.SubscribeRequest{Feed: "b"})
			in := t.Context()
			if end.want == context.Canceled {
				in = ctx
			}
			ended := make(chan error, 1)
			go func() {
				_, _, err := g.Next(in, nil)
				ended <- err
			}()
			synctest.Wait()
			end.do(g)
			if err := <-ended; !errors.Is(err, end.want) {
				t.Errorf("%s: %v, want %v", end.name, err, end.want)
			}
		}
	})
}

// TestSubscriberTakesTurns: a feed that always has more does not hold up the others.
func TestSubscriberTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("busy", 5000)
		g := r.follow(feed.SubscribeRequest{Feed: "busy", From: feed.FromCursor(0)}, feed.SubscribeRequest{Feed: "quiet"})
		r.publish("quiet", "x")
		for n := 1; ; n++ {
			i, _, err := g.Next(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if i == 1 {
				break
			}
			if n == 3 {
				t.Fatal("the quiet feed waits for the busy one")
			}
		}
	})
}

// TestSubscriberUnderLoad follows 20 feeds with several subscribers that are cut and come
// back, on real goroutines: each feed is exactly 1..N for each of them.
func TestSubscriberUnderLoad(t *testing.T) {
	const feeds, perFeed, followers = 20, 150, 8
	store, bus := feedtest.NewStore(), &quietBus{}
	hub := feed.NewHub(store, bus, feed.HubOptions{Logger: quiet})
	pub := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
	defer hub.Close()
	defer pub.Close()
	name := func(i int) string { return fmt.Sprintf("feed-%d", i) }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var work sync.WaitGroup
	for i := range feeds {
		work.Go(func() {
			for range perFeed {
				if _, err := pub.Publish(ctx, feed.Draft{Feed: name(i), Data: "x"}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range followers {
		work.Go(func() {
			cursors := make([]feed.ID, feeds)
			for left := feeds * perFeed; left > 0; {
				starts := make([]feed.SubscribeRequest, feeds)
				for i, c := range cursors {
					starts[i] = feed.SubscribeRequest{Feed: name(i), From: feed.FromCursor(c)}
				}
				g, err := hub.SubscribeAll(ctx, starts)
				if err != nil {
					t.Error(err)
					return
				}
				for cut := rand.IntN(200); cut > 0 && left > 0; cut-- {
					i, d, err := g.Next(ctx, nil)
					if err != nil {
						t.Errorf("%v with %d events to come", err, left)
						g.Close()
						return
					}
					for _, e := range d.Events() {
						if e.Feed != name(i) || e.ID != cursors[i]+1 {
							t.Errorf("event %d of %s came after %d of %s", e.ID, e.Feed, cursors[i], name(i))
						}
						cursors[i]++
						left--
					}
				}
				g.Close()
			}
		})
	}
	work.Wait()
}

package feed_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

func TestDurations(t *testing.T) {
	var d feed.Durations
	for _, took := range []time.Duration{-time.Second, 0, 200 * time.Microsecond, 201 * time.Microsecond, time.Second, 30 * time.Second, time.Minute} {
		d.Observe(took)
	}
	buckets, count, sum := d.Read()
	got := map[float64]uint64{}
	for _, bound := range []float64{.0002, .0005, .5, 1, 10, 30} {
		got[bound] = buckets[bound]
	}
	if diff := cmp.Diff(map[float64]uint64{.0002: 3, .0005: 4, .5: 4, 1: 5, 10: 5, 30: 6}, got); diff != "" || count != 7 {
		t.Errorf("%d, %s", count, diff)
	}
	if sum != 91.000401 {
		t.Errorf("the sum is %v", sum)
	}
}

// TestStoreTimes: each call of the store is measured once, whichever part makes it and
// whether it fails or not.
func TestStoreTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "a", Age: time.Hour})
		count := func(call feed.StoreCall) (n int, sum float64) {
			_, count, sum := k.hub.StoreTimes(call).Read()
			return int(count), sum
		}
		k.publish("a", "x")
		k.publish("a", "x")
		time.Sleep(time.Minute)
		reach(t, k.subscribe("a", feed.FromStart()), 2, time.Second)
		k.subscribe("a", feed.FromTime(time.Now()))
		k.round()
		for call, at := range map[feed.StoreCall]feedtest.Point{
			feed.CallAppend: feedtest.AppendAsked, feed.CallRead: feedtest.ReadAsked, feed.CallSeek: feedtest.SeekAsked,
			feed.CallCompare: feedtest.BoundsAsked, // this store is a feed.Comparer
		} {
			if n, _ := count(call); n == 0 || n != k.count(at) {
				t.Errorf("%d calls of %s are measured, and there were %d", n, call, k.count(at))
			}
		}
		for _, call := range []feed.StoreCall{feed.CallList, feed.CallSweep} {
			if n, _ := count(call); n == 0 {
				t.Errorf("no call of %s is measured", call)
			}
		}

		before, _ := count(feed.CallAppend)
		pass := k.holdAt(feedtest.AppendAsked)
		go k.pub.Publish(t.Context(), feed.Draft{Feed: "a"}) //nolint:errcheck // the time is all that counts
		time.Sleep(3 * time.Second)
		if calls, bytes := k.pub.Waiting(), k.pub.WaitingBytes(); calls != 1 || bytes == 0 {
			t.Errorf("%d publishes with %d bytes wait", calls, bytes)
		}
		pass()
		synctest.Wait()
		if n, sum := count(feed.CallAppend); n != before+1 || sum < 3 {
			t.Errorf("%d calls took %v seconds", n, sum)
		}
		if calls, bytes := k.pub.Waiting(), k.pub.WaitingBytes(); calls != 0 || bytes != 0 {
			t.Errorf("%d publishes with %d bytes wait", calls, bytes)
		}
	})
}

// TestCompared: the time of the last comparison moves with each round, and stands still
// while the store does not answer.
func TestCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		age := func() time.Duration { return time.Since(r.hub.Stats().Compared) }
		time.Sleep(10 * time.Second)
		if age := age(); age > 2*time.Second {
			t.Errorf("without open feeds, the comparison is %v old", age)
		}
		r.append("a", 1)
		reach(t, r.subscribe("a", feed.FromStart()), 1, time.Second)
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked)
		time.Sleep(30 * time.Second)
		if age := age(); age < 29*time.Second {
			t.Errorf("while the store is away, the comparison is %v old", age)
		}
		r.pass()
		time.Sleep(3 * time.Second)
		if age := age(); age > 2*time.Second {
			t.Errorf("when the store is back, the comparison is %v old", age)
		}
	})
}

// TestRetentionStats: rounds, trims and their events count on the node that runs them.
func TestRetentionStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "*", Events: 10})
		k.append("a", 25)
		k.append("b", 5)
		k.round()
		if s := k.hub.Stats(); s.RetentionRounds != 1 || s.RetentionTrims != 1 || s.RetentionEvents != 15 || s.RetentionFailures != 0 {
			t.Errorf("%+v", s)
		}
		k.append("a", 3)
		k.round()
		k.fail(feed.ErrUnavailable, feedtest.ListAsked)
		k.round()
		if s := k.hub.Stats(); s.RetentionRounds != 3 || s.RetentionTrims != 2 || s.RetentionEvents != 18 || s.RetentionFailures != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestBacklog: a subscriber that has something to read counts until its dispatcher has
// notified it.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		d := r.hub.NewDispatcher()
		const subscribers = 200
		notified := 0
		for range subscribers {
			s, err := d.SubscribeAll(t.Context(), []feed.SubscribeRequest{{Feed: "a"}}, notifierFunc(func() { notified++ }))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
		}
		for d.Step() {
		}
		notified = 0
		if n := r.hub.Stats().Backlog; n != 0 {
			t.Errorf("the backlog begins with %d", n)
		}
		r.publish("a", "x")
		synctest.Wait()
		if n := r.hub.Stats().Backlog; n != 1 {
			t.Errorf("a feed that has grown makes a backlog of %d", n)
		}
		for d.Step() {
			if n := r.hub.Stats().Backlog; n != subscribers-notified {
				t.Errorf("the backlog is %d after %d of %d", n, notified, subscribers)
			}
		}
		if n := r.hub.Stats().Backlog; n != 0 || notified != subscribers {
			t.Errorf("the backlog ends with %d after %d of %d", n, notified, subscribers)
		}
	})
}

type notifierFunc func()

func (f notifierFunc) Notify() { f() }

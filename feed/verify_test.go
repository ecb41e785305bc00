package feed_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// However often the bus has missed something, the hub compares all of its logs once in
// 50 ms. A feed that was closed meanwhile is compared at once.
func TestRoundsKeepTheirDistance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 3)
		s := r.subscribe("a", feed.From{})
		before := r.count(feedtest.BoundsAsked)
		for range 1000 {
			r.bus.waitReceiver().Missed()
			time.Sleep(time.Millisecond)
		}
		if rounds := r.count(feedtest.BoundsAsked) - before; rounds < 19 || rounds > 22 {
			t.Errorf("%d rounds within a second, want one in 50 ms", rounds)
		}
		r.bus.waitReceiver().Missed()
		began := time.Now()
		if _, err := r.pub.PublishBatch(t.Context(), feed.Publication{Feed: "a", Close: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(t.Context(), time.After(time.Minute)); err != feed.ErrClosed || time.Since(began) > 0 {
			t.Errorf("after %v: %v, want ErrClosed at once", time.Since(began), err)
		}
	})
}

// A comparison that fails is made again in the next round.
func TestFailedComparisonIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 3)
		s := r.subscribe("a", feed.From{})
		time.Sleep(1500 * time.Millisecond) // half way between two rounds
		before := r.count(feedtest.BoundsAsked)
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked)
		if _, err := r.pub.PublishBatch(t.Context(), feed.Publication{Feed: "a", Close: true}); err != nil {
			t.Fatal(err)
		}
		if asked := r.count(feedtest.BoundsAsked) - before; asked != 1 {
			t.Errorf("the store was asked %d times at once, want once", asked)
		}
		r.pass()
		if _, err := s.Next(t.Context(), time.After(time.Second)); err != feed.ErrClosed {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

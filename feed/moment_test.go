package feed_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// opened tries to subscribe until the store answers, like a client that asks for
// "now" while the store is away.
func (r *rig) opened(name string, from feed.From) *feed.Subscription {
	r.t.Helper()
	for {
		s, err := r.hub.Subscribe(r.t.Context(), name, from)
		if err == nil {
			r.t.Cleanup(s.Close)
			return s
		}
		if !errors.Is(err, feed.ErrUnavailable) {
			r.t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// TestFromMoment: whatever clock the store has, events that were published from
// the moment on are new, and those from long before are not.
func TestFromMoment(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"right": 0, "behind": -5 * time.Second, "far behind": -24 * time.Hour, "ahead": 5 * time.Second, "far ahead": 24 * time.Hour,
	} {
		for _, away := range []time.Duration{0, 10 * time.Second, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.store.SetClock(func() time.Time { return time.Now().Add(skew) })
				r.append("a", 5)
				time.Sleep(time.Hour)
				r.fail(feed.ErrUnavailable, feedtest.BoundsAsked, feedtest.SeekAsked, feedtest.ListAsked)
				moment := time.Now()
				time.AfterFunc(away+time.Second, r.pass)
				r.append("a", 1) // in the same millisecond
				time.Sleep(away)
				r.append("a", 2)
				s := r.opened("a", feed.FromMoment(moment))
				if s.Cursor() != 5 {
					t.Errorf("%s, away for %v: starts at %d, want 5", name, away, s.Cursor())
				}
				reach(t, s, 8, time.Second)
			})
		}
	}
}

// TestFromMomentDrift: the moment may be long ago, and the clocks may have been
// synchronized since.
func TestFromMomentDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		began := time.Now()
		// This clock is fast, as if it caught up.
		r.store.SetClock(func() time.Time { return time.Now().Add(time.Since(began) / 200) })
		r.append("a", 3)
		time.Sleep(time.Hour)
		moment := time.Now()
		r.append("a", 1)
		time.Sleep(time.Hour)
		s := r.opened("a", feed.FromMoment(moment))
		if s.Cursor() != 3 {
			t.Errorf("starts at %d, want 3", s.Cursor())
		}
	})
}

// TestFromMomentCommits: an append gets its time before it commits, and a store that
// stalls may commit long after that.
func TestFromMomentCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var frozen time.Time
		r.store.SetClock(func() time.Time {
			if frozen.IsZero() {
				return time.Now()
			}
			return frozen
		})
		r.append("a", 3)
		time.Sleep(time.Minute)
		timed := time.Now()
		time.Sleep(70 * time.Second)
		moment := time.Now()
		time.Sleep(time.Second)
		frozen = timed // the append that began then commits now
		r.append("a", 2)
		frozen = time.Time{}
		s := r.opened("a", feed.FromMoment(moment))
		if s.Cursor() != 3 {
			t.Errorf("starts at %d, want 3", s.Cursor())
		}
	})
}

// TestFromMomentTrimmed: trimmed events cause no gap.
func TestFromMomentTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		moment := time.Now()
		r.append("a", 8)
		if err := r.store.Trim(t.Context(), "a", 6); err != nil {
			t.Fatal(err)
		}
		s := r.opened("a", feed.FromMoment(moment))
		if s.Cursor() != 5 || s.Gap() != nil {
			t.Errorf("starts at %d with the gap %v, want 5 and none", s.Cursor(), s.Gap())
		}
		if s := r.opened("new", feed.FromMoment(moment)); s.Cursor() != 0 {
			t.Errorf("starts at %d in a feed without events", s.Cursor())
		}
	})
}

// clockless is a store that does not implement RetentionStore.
type clockless struct{ feed.Store }

func TestFromMomentWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := feedtest.NewStore()
		hub := feed.NewHub(clockless{store}, &quietBus{}, feed.HubOptions{Logger: quiet})
		defer hub.Close()
		drafts := []feed.Draft{{Feed: "a"}, {Feed: "a"}, {Feed: "a"}}
		if _, err := store.Append(t.Context(), []feed.Batch{{Drafts: drafts}}); err != nil {
			t.Fatal(err)
		}
		if err := store.Trim(t.Context(), "a", 2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		s, err := hub.Subscribe(t.Context(), "a", feed.FromMoment(time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if s.Cursor() != 1 {
			t.Errorf("starts at %d, want 1, before everything that is kept", s.Cursor())
		}
	})
}

// TestFromMomentAsksOnce: subscribers that come together share one question for the
// store's time.
func TestFromMomentAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		starts := []feed.SubscribeRequest{{Feed: "a", From: feed.FromMoment(time.Now())}, {Feed: "b", From: feed.FromMoment(time.Now())}}
		for range 10 {
			go func() {
				g, err := r.hub.SubscribeAll(t.Context(), starts)
				if err != nil {
					t.Error(err)
					return
				}
				g.Close()
			}()
		}
		synctest.Wait()
		if n := r.count(feedtest.ListAsked); n != 1 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

// TestFromMomentEnds: a subscriber that waits for the clock of a hung store ends with
// its context, or with the hub.
func TestFromMomentEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.holdAt(feedtest.ListAsked)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.hub.Subscribe(ctx, "a", feed.FromMoment(time.Now())); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := r.hub.Subscribe(t.Context(), "a", feed.FromMoment(time.Now()))
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

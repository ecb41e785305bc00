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

// Once Trim has returned, no subscriber of this hub gets a trimmed event, whichever
// source it would have come from.
func TestTrimmedIsNotServed(t *testing.T) {
	for _, c := range []struct {
		name   string
		before int // events stored before the subscription and its log exist
		do     func(r *rig, s *feed.Subscription, trim func())
	}{
		{"from the log, within a segment", 0, func(r *rig, _ *feed.Subscription, trim func()) {
			for range 6 {
				r.publish("a", "x")
			}
			trim()
		}},
		{"from the store", 6, func(_ *rig, _ *feed.Subscription, trim func()) {
			trim()
		}},
		{"from a page that is kept for others", 6, func(r *rig, _ *feed.Subscription, trim func()) {
			reach(r.t, r.subscribe("a", feed.FromCursor(0)), 6, time.Second)
			trim()
		}},
		{"from a page that is on its way", 6, func(r *rig, s *feed.Subscription, trim func()) {
			pass := r.holdAt(feedtest.ReadAnswered)
			if d, err := s.Next(r.t.Context(), time.After(time.Millisecond)); err != nil || len(d.Events()) > 0 {
				r.t.Errorf("got %v, %v from a store that is held up", d.Events(), err)
			}
			trim()
			pass()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				if c.before > 0 {
					r.append("a", c.before)
				}
				s := r.subscribe("a", feed.FromCursor(0))
				c.do(r, s, func() {
					if err := r.hub.Trim(t.Context(), "a", 4); err != nil {
						t.Errorf("trim: %v", err)
					}
				})
				if got, want := seen(t, s, time.Second), "trimmed:0-4 4 5 6"; got != want {
					t.Errorf("saw %q, want %q", got, want)
				}
			})
		})
	}
}

// A trim on another node without a signal takes effect within two seconds: the next
// comparison finds it, and no page outlives that.
func TestTrimElsewhereIsFoundInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 6)
		r.subscribe("a", feed.From{})
		early := make([]*feed.Subscription, 20)
		for i := range early {
			early[i] = r.subscribe("a", feed.FromCursor(0))
		}
		trimmed := time.Now()
		if err := r.store.Trim(t.Context(), "a", 4); err != nil {
			t.Fatal(err)
		}
		for i, s := range early {
			time.Sleep(time.Until(trimmed.Add(time.Duration(i) * 110 * time.Millisecond)))
			d := next(t, s, time.Second)
			switch {
			case time.Since(trimmed) >= 2*time.Second && d.Gap == nil:
				t.Errorf("%v later came %v", time.Since(trimmed), d.Events())
			case d.Gap != nil && *d.Gap != feed.Gap{Resumes: 4, Reason: feed.Trimmed}:
				t.Errorf("got the gap %+v", *d.Gap)
			}
		}
	})
}

// A start at the first event, or with the newest, is never a gap, even if a trim
// comes between the question for the bounds and its answer.
func TestTrimDuringSubscribe(t *testing.T) {
	for _, from := range []feed.From{feed.FromStart(), feed.FromNewest(5)} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.append("a", 6)
			r.subscribe("a", feed.FromCursor(6))
			pass := r.holdAt(feedtest.BoundsAnswered)
			subscribed := make(chan *feed.Subscription)
			go func() { subscribed <- r.subscribe("a", from) }()
			synctest.Wait()
			r.pass() // for the bounds that Trim asks for
			if err := r.hub.Trim(t.Context(), "a", 4); err != nil {
				t.Fatal(err)
			}
			pass()
			if got, want := seen(t, <-subscribed, time.Second), "4 5 6"; got != want {
				t.Errorf("%v: saw %q, want %q", from, got, want)
			}
		})
	}
}

// An answer of the store can outlive the log that it was for. After a trim, later
// subscribers do not get it.
func TestTrimIsNotUndoneByAnOlderAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 6)
		pass := r.holdAt(feedtest.BoundsAnswered)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.hub.Subscribe(ctx, "a", feed.FromStart()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
		time.Sleep(30 * time.Second)
		if logs, _ := r.hub.Logs(); logs != "" {
			t.Fatalf("there are logs of %s", logs)
		}
		r.pass() // for later callers
		if err := r.hub.Trim(t.Context(), "a", 4); err != nil {
			t.Fatal(err)
		}
		go func() {
			synctest.Wait()
			pass()
		}()
		if got, want := seen(t, r.subscribe("a", feed.FromStart()), time.Second), "4 5 6"; got != want {
			t.Errorf("saw %q, want %q", got, want)
		}
	})
}

func TestTrimAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if err := r.hub.Trim(t.Context(), "-", 4); !errors.Is(err, feed.ErrInvalid) {
			t.Errorf("a bad name: %v", err)
		}
		if err := r.hub.Trim(t.Context(), "nobody", 4); err != nil {
			t.Errorf("a feed that does not exist: %v", err)
		}
		if _, ok, err := r.hub.Info(t.Context(), "nobody"); ok || err != nil {
			t.Errorf("it exists now: %v", err)
		}
		r.fail(feed.ErrUnavailable, feedtest.TrimAsked)
		if err := r.hub.Trim(t.Context(), "a", 4); !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("the store is away: %v", err)
		}
		// A store that fails right after the trim leaves this node without the new
		// bounds.
		r.append("a", 6)
		s := r.subscribe("a", feed.FromCursor(0))
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked)
		if err := r.hub.Trim(t.Context(), "a", 4); !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("the store goes away: %v", err)
		}
		r.pass()
		if err := r.hub.Trim(t.Context(), "a", 4); err != nil {
			t.Errorf("once more: %v", err)
		}
		if got, want := seen(t, s, time.Second), "trimmed:0-4 4 5 6"; got != want {
			t.Errorf("saw %q, want %q", got, want)
		}
	})
}

// Once a hub is closed, its store may be, too: calls of the hub leave it alone, and Close
// waits for those in progress.
func TestClosedHubLeavesTheKeeperAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 6)
		pass := r.holdAt(feedtest.TrimDone)
		trimmed := make(chan error, 1)
		go func() { trimmed <- r.hub.Trim(t.Context(), "a", 4) }()
		synctest.Wait()
		r.hub.Close()
		select {
		case <-trimmed:
		default:
			t.Error("Close did not wait for a trim")
		}
		pass()
		calls := 0
		r.hold(func(context.Context, feedtest.Call) error { calls++; return nil })
		if err := r.hub.Trim(t.Context(), "a", 5); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("trim: %v", err)
		}
		if _, err := r.hub.List(t.Context(), "", "", 1); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("list: %v", err)
		}
		if _, _, err := r.hub.Info(t.Context(), "a"); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("info: %v", err)
		}
		if _, err := r.hub.Read(t.Context(), "a", 0, feed.Limit{Events: 1, Bytes: 1}); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("read: %v", err)
		}
		if err := r.pub.PublishEphemeral(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("ephemeral: %v", err)
		}
		if calls > 0 {
			t.Errorf("%d calls of the store", calls)
		}
	})
}

package feed_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// A report from the bus must not load a log: the log would begin wherever the bus
// claims.
func TestGrewDoesNotLoadALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 3)
		pass := r.holdAt(feedtest.BoundsAsked)
		go r.subscribe("a", feed.FromStart())
		synctest.Wait()
		r.bus.waitReceiver().Grew("a", 1000)
		go func() {
			synctest.Wait()
			pass()
		}()
		s := r.subscribe("a", feed.From{})
		if s.Cursor() != 3 {
			t.Errorf("now is %d, want 3", s.Cursor())
		}
		r.append("a", 1)
		reach(t, s, 4, 2*time.Second)
	})
}

// Only the store decides what "now" and "ahead" mean, whatever the bus reports.
func TestLieDecidesNothing(t *testing.T) {
	for _, lie := range []feed.ID{4, 1000, math.MaxInt64, 1 << 63, math.MaxUint64} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.append("a", 3)
			r.subscribe("a", feed.FromStart())
			pass := r.holdAt(feedtest.ReadAsked)
			defer pass()
			r.bus.waitReceiver().Grew("a", lie)
			if s := r.subscribe("a", feed.From{}); s.Cursor() != 3 || s.Bounds().Last != 3 {
				t.Errorf("told of %d: now is %d, bounds %v, want 3", lie, s.Cursor(), s.Bounds())
			}
			s := r.subscribe("a", feed.FromCursor(4))
			if d := next(t, s, time.Minute); d.Gap == nil || d.Gap.Reason != feed.Ahead {
				t.Errorf("told of %d: after 4 of 3 came %+v, want a gap ahead", lie, d)
			}
		})
	}
}

// A read of the bounds outlives the subscriber that asked for it, and the log
// that it was for. Subscribers that share it have a log of their own to load.
func TestBoundsReadOutlivesItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.BoundsAsked)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.hub.Subscribe(ctx, "a", feed.From{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
		time.Sleep(30 * time.Second)
		go func() {
			synctest.Wait()
			pass()
		}()
		s := r.subscribe("a", feed.FromStart())
		r.publish("a", "x")
		reach(t, s, 1, 2*time.Second)
	})
}

// A subscriber's cursor is the end of a store that was rolled back. The subscriber
// finds nothing there, again and again, so it must pause between its reads.
func TestNothingBehindTheLogIsNoReasonToSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		r.subscribe("a", feed.From{}) // loads the log, which ends with 10
		s := r.subscribe("a", feed.FromCursor(5))
		r.store.Rollback("a", 5)
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked) // keeps the log from learning its end
		if d := next(t, s, 10*time.Second); len(d.Events()) > 0 {
			t.Fatalf("got %v from a store that has none", d.Events())
		}
		if n := r.count(feedtest.ReadAsked); n > 30 {
			t.Errorf("asked the store %d times in 10 seconds", n)
		}
		r.pass()
		time.Sleep(2 * time.Second)
		r.append("a", 1)
		reach(t, s, 6, 3*time.Second)
	})
}

// After a rollback, a page that was read before it must not be delivered again
// and again: events, gap, the same events, the same gap.
func TestKeptPageDoesNotOutliveARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 5)
		s := r.subscribe("a", feed.FromStart())
		r.append("a", 5)
		if d := next(t, s, time.Second); len(d.Events()) != 10 {
			t.Fatalf("got %d events, want a page that reaches beyond the log", len(d.Events()))
		}
		r.store.Rollback("a", 0)
		gaps := 0
		for {
			d := next(t, s, 5*time.Second)
			if d.Gap != nil {
				gaps++
			} else if len(d.Events()) == 0 {
				break
			}
			if gaps > 3 {
				t.Fatalf("%d gaps", gaps)
			}
		}
		if gaps != 1 || s.Cursor() != 0 {
			t.Errorf("%d gaps, is at %d of a store that is empty", gaps, s.Cursor())
		}
	})
}

// Once the hub knows of a rollback, no subscriber gets a page that was read before it.
func TestKeptPageIsNotSharedAfterARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 5)
		reach(t, r.subscribe("a", feed.FromStart()), 5, time.Second)
		r.store.Rollback("a", 2)
		r.bus.waitReceiver().Missed()
		synctest.Wait()
		late := r.subscribe("a", feed.FromCursor(0))
		if d := next(t, late, time.Second); len(d.Events()) != 2 {
			t.Errorf("got %d events of a store that has 2", len(d.Events()))
		}
	})
}

// holed is a store that has lost the event 2 of every feed.
type holed struct{ *feedtest.Store }

func (h holed) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	p, err := h.Store.Read(ctx, name, after, limit)
	for i, e := range p.Events {
		if e.ID == 2 {
			p.Events = append(p.Events[:i:i], p.Events[i+1:]...)
			break
		}
	}
	return p, err
}

// If the bounds of a store show events that it does not return, the hub pauses
// between its reads.
func TestFillPausesWhenTheStoreBreaksItsPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		store := feedtest.NewStore()
		counted := holed{store.Through(func(_ context.Context, c feedtest.Call) error {
			if c.At == feedtest.ReadAsked {
				// Without a pause no time passes in the bubble, and the test never
				// ends.
				if calls++; calls > 1000 {
					t.Error("the store is asked without a pause")
					select {}
				}
			}
			return nil
		})}
		hub := feed.NewHub(counted, &quietBus{}, feed.HubOptions{Logger: quiet})
		defer hub.Close()
		s, err := hub.Subscribe(t.Context(), "a", feed.From{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		drafts := []feed.Draft{{Feed: "a", Data: "1"}, {Feed: "a", Data: "2"}, {Feed: "a", Data: "3"}}
		if _, err := store.Append(t.Context(), []feed.Batch{{Drafts: drafts}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if calls > 100 {
			t.Errorf("asked the store %d times in 20 seconds", calls)
		}
	})
}

// Close of a subscription ends a Next that waits in another goroutine.
func TestSubscriptionCloseEndsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		ended := make(chan error, 1)
		go func() {
			_, err := s.Next(context.Background(), time.After(time.Minute))
			ended <- err
		}()
		synctest.Wait()
		s.Close()
		s.Close()
		if err := <-ended; !errors.Is(err, feed.ErrStopped) {
			t.Errorf("Next returned %v, want ErrStopped", err)
		}
	})
}

// If a hub is closed while Subscribe waits for the store, Subscribe returns
// ErrStopped: the store has not failed, and the caller's context has not ended.
func TestCloseDuringSubscribe(t *testing.T) {
	for _, from := range []feed.From{{}, feed.FromCursor(7), feed.FromTime(time.Unix(0, 0))} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.holdAt(feedtest.BoundsAsked)
			ended := make(chan error, 1)
			go func() {
				_, err := r.hub.Subscribe(context.Background(), "a", from)
				ended <- err
			}()
			synctest.Wait()
			r.hub.Close()
			if err := <-ended; !errors.Is(err, feed.ErrStopped) {
				t.Errorf("Subscribe returned %v, want ErrStopped", err)
			}
		})
	}
}

// Close waits for a Subscribe that is still in the store, and ends it.
func TestCloseWaitsForSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		left := false
		r.hold(func(ctx context.Context, c feedtest.Call) error {
			if c.At != feedtest.SeekAsked {
				return nil
			}
			<-ctx.Done()
			time.Sleep(time.Second) // a query takes a while to end
			left = true
			return ctx.Err()
		})
		go r.hub.Subscribe(context.Background(), "a", feed.FromTime(time.Now()))
		synctest.Wait()
		if r.hub.Close(); !left {
			t.Error("the hub is closed, and a Subscribe still in the store")
		}
	})
}

// Bounds that were read before the log grew show an older end. That is no rollback,
// and no subscriber has to ask the store again because of it.
func TestOldBoundsAreNoRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		pass := r.holdAt(feedtest.BoundsAnswered)
		r.bus.waitReceiver().Missed()
		synctest.Wait()
		r.publish("a", "x")
		reach(t, s, 1, time.Millisecond)
		before := r.count(feedtest.BoundsAsked)
		pass()
		if d := next(t, s, time.Millisecond); d.Gap != nil {
			t.Errorf("got %+v", *d.Gap)
		}
		if n := r.count(feedtest.BoundsAsked) - before; n != 0 {
			t.Errorf("the store was asked %d times more", n)
		}
	})
}

// Once Close has returned, the store may be closed: the hub does not read it.
func TestClosedHubLeavesTheStoreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		behind := r.subscribe("a", feed.FromStart())
		r.hub.Close()
		before := r.count(feedtest.ReadAsked)
		if _, err := behind.Next(t.Context(), nil); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("Next returned %v, want ErrStopped", err)
		}
		if n := r.count(feedtest.ReadAsked); n != before {
			t.Errorf("the store was read %d times after Close", n-before)
		}
		if _, err := r.hub.Subscribe(t.Context(), "a", feed.From{}); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("Subscribe returned %v, want ErrStopped", err)
		}
	})
}

// If Tail of a bus ends early, the hub calls it again after a pause.
func TestTailThatEndsIsBegunAgain(t *testing.T) {
	for _, err := range []error{nil, errors.New("no bus")} {
		synctest.Test(t, func(t *testing.T) {
			bus := &quietBus{tailErr: func() error { return err }}
			hub := feed.NewHub(feedtest.NewStore(), bus, feed.HubOptions{Logger: quiet})
			time.Sleep(10 * time.Second)
			hub.Close()
			if bus.tails < 5 || bus.tails > 20 {
				t.Errorf("Tail returned %v: called %d times in 10 seconds", err, bus.tails)
			}
		})
	}
}

// The bounds that a subscriber shares may be older than its seek; that must
// not give it events from before its time.
func TestFromTimeIsNotBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 2)
		time.Sleep(time.Second)
		pass := r.holdAt(feedtest.BoundsAnswered)
		go r.subscribe("a", feed.FromStart())
		synctest.Wait()
		r.append("a", 2) // which the answer on its way does not include
		time.Sleep(time.Second)
		go func() {
			synctest.Wait()
			pass()
		}()
		s := r.subscribe("a", feed.FromTime(time.Now()))
		if s.Cursor() != 4 || s.Bounds().Last < 4 {
			t.Errorf("starts at %d, bounds %v, want 4", s.Cursor(), s.Bounds())
		}
		r.append("a", 1)
		reach(t, s, 5, 3*time.Second)
	})
}

// shortOfResults is a store that returns one result too few from an append.
type shortOfResults struct{ *feedtest.Store }

func (s shortOfResults) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results, err := s.Store.Append(ctx, batches)
	return results[:len(results)-1], err
}

func TestPublishWithoutAResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortOfResults{feedtest.NewStore()}
		hub := feed.NewHub(store, &quietBus{}, feed.HubOptions{Logger: quiet})
		defer hub.Close()
		pub := feed.NewPublisher(store, hub, &quietBus{}, feed.PublisherOptions{Logger: quiet})
		defer pub.Close()
		if _, err := pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrUncertain) {
			t.Errorf("got %v, want ErrUncertain", err)
		}
	})
}

package feed_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// Thousands of subscribers that come at once to a feed without a log share one call
// of the store.
func TestSubscribeStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		pass := r.holdAt(feedtest.BoundsAsked)
		var open sync.WaitGroup
		for i := range 2000 {
			open.Go(func() {
				from := []feed.From{{}, feed.FromStart(), feed.FromCursor(7), feed.FromNewest(3)}[i%4]
				want := []feed.ID{10, 0, 7, 7}[i%4]
				if s := r.subscribe("a", from); s.Cursor() != want {
					t.Errorf("%+v starts at %d, want %d", from, s.Cursor(), want)
				}
			})
		}
		synctest.Wait()
		pass()
		open.Wait()
		if n := r.count(feedtest.BoundsAsked); n != 1 {
			t.Errorf("%d reads of the bounds", n)
		}
	})
}

// Thousands of subscribers at the same old cursor share their pages.
func TestReplayStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 2000)
		var done sync.WaitGroup
		for i := range 1000 {
			s := r.subscribe("a", feed.FromCursor(feed.ID(i%3)))
			done.Go(func() { reach(t, s, 2000, time.Second) })
		}
		done.Wait()
		// Three first pages, which end at the same id, and three that follow.
		if n := r.count(feedtest.ReadAsked); n != 6 {
			t.Errorf("%d pages read, want 6", n)
		}
	})
}

// A subscriber that does not read costs no more memory the further it falls
// behind, and still gets everything.
func TestSlowSubscriberHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		slow := r.subscribe("a", feed.From{})
		fast := r.subscribe("a", feed.From{})
		data := strings.Repeat("x", 10_000)
		most := 0
		for i := range 3000 {
			r.publish("a", data)
			reach(t, fast, feed.ID(i+1), time.Second)
			_, bytes := r.hub.Logs()
			most = max(most, bytes)
		}
		if most > 2<<20+64<<10 {
			t.Errorf("the log grew to %d bytes", most)
		}
		for slow.Cursor() < 3000 {
			d := next(t, slow, time.Second)
			if n := len(d.Events()); d.Gap != nil || n == 0 {
				t.Fatalf("at %d: got %d events, gap %v", slow.Cursor(), n, d.Gap)
			}
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		pass := r.holdAt(feedtest.ReadAsked)
		defer pass()
		var ended sync.WaitGroup
		for i := range 100 {
			s := r.subscribe("a", []feed.From{{}, feed.FromStart()}[i%2])
			ended.Go(func() {
				if d, err := s.Next(context.Background(), nil); !errors.Is(err, feed.ErrStopped) {
					t.Errorf("got %v, %v, want ErrStopped", d, err)
				}
			})
		}
		synctest.Wait()
		r.hub.Close()
		ended.Wait()
		r.hub.Close() // once more does no harm
	})
}

// The hub drops a log some time after its last subscriber has left. A log in use
// frees its memory when its feed is quiet.
func TestLogsLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		for range 10 {
			r.publish("a", "x")
		}
		if names, bytes := r.hub.Logs(); names != "a" || bytes == 0 {
			t.Errorf("logs of %q with %d bytes", names, bytes)
		}
		time.Sleep(12 * time.Second)
		if names, bytes := r.hub.Logs(); names != "a" || bytes != 0 {
			t.Errorf("after a quiet time: logs of %q with %d bytes", names, bytes)
		}
		s.Close()
		time.Sleep(9 * time.Second)
		if names, _ := r.hub.Logs(); names != "a" {
			t.Errorf("soon after the last subscriber: logs of %q", names)
		}
		before := r.count(feedtest.BoundsAsked)
		back := r.subscribe("a", feed.FromCursor(10))
		if n := r.count(feedtest.BoundsAsked) - before; n != 0 {
			t.Errorf("coming back asked the store %d times", n)
		}
		back.Close()
		time.Sleep(12 * time.Second)
		if names, _ := r.hub.Logs(); names != "" {
			t.Errorf("long after the last subscriber: logs of %q", names)
		}
		before = r.count(feedtest.BoundsAsked)
		time.Sleep(time.Minute)
		if n := r.count(feedtest.BoundsAsked) - before; n != 0 {
			t.Errorf("a hub without logs asked the store %d times", n)
		}
	})
}

// A subscriber sees a store that is away only as a delay. The hub pauses between its
// attempts.
func TestStoreAwayDuringNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		s := r.subscribe("a", feed.FromStart())
		r.fail(feed.ErrUnavailable, feedtest.ReadAsked, feedtest.BoundsAsked)
		time.AfterFunc(time.Minute, r.pass)
		began := time.Now()
		reach(t, s, 10, 2*time.Minute)
		if d := time.Since(began); d > 62*time.Second {
			t.Errorf("resumed %v after the store was back", d-time.Minute)
		}
		if n := r.count(feedtest.ReadAsked); n > 70 {
			t.Errorf("%d reads in a minute of outage", n)
		}
	})
}

// The same for a log that has a hole.
func TestStoreAwayDuringFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		r.append("a", 10)
		r.fail(feed.ErrUnavailable, feedtest.ReadAsked, feedtest.BoundsAsked)
		for range 10 {
			r.bus.waitReceiver().Grew("a", 10)
		}
		time.Sleep(time.Minute)
		if n := r.count(feedtest.ReadAsked); n < 30 || n > 70 {
			t.Errorf("%d reads in a minute of outage", n)
		}
		if n := r.count(feedtest.BoundsAsked); n > 70 {
			t.Errorf("%d verifications in a minute of outage", n)
		}
		r.pass()
		reach(t, s, 10, 1100*time.Millisecond)
	})
}

// Once a log is dropped, its hole is no longer filled.
func TestFillEndsWithItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		r.append("a", 10)
		r.fail(feed.ErrUnavailable, feedtest.ReadAsked)
		r.bus.waitReceiver().Grew("a", 10)
		s.Close()
		time.Sleep(15 * time.Second)
		before := r.count(feedtest.ReadAsked)
		time.Sleep(time.Minute)
		if n := r.count(feedtest.ReadAsked) - before; n > 0 {
			t.Errorf("%d reads for a log that was dropped", n)
		}
	})
}

func TestStoreAwayAtSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for at, from := range map[feedtest.Point]feed.From{feedtest.BoundsAsked: {}, feedtest.SeekAsked: feed.FromTime(time.Now())} {
			name := strings.Fields(string(at))[0] // a feed of its own, so that no log knows it yet
			r.fail(feed.ErrUnavailable, at)
			if _, err := r.hub.Subscribe(t.Context(), name, from); !errors.Is(err, feed.ErrUnavailable) {
				t.Errorf("%s: got %v, want ErrUnavailable", at, err)
			}
			r.pass()
			r.subscribe(name, from).Close()
		}
		if _, err := r.hub.Subscribe(t.Context(), "no name", feed.From{}); !errors.Is(err, feed.ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	})
}

// A store that hangs holds up only the subscribers that need it.
func TestStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		events := r.append("a", 3)
		r.hold(func(ctx context.Context, _ feedtest.Call) error {
			<-ctx.Done()
			return ctx.Err()
		})
		time.Sleep(time.Minute)
		r.bus.waitReceiver().Receive(events)
		reach(t, s, 3, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.hub.Subscribe(ctx, "b", feed.From{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		if back := r.subscribe("a", feed.FromCursor(2)); back.Cursor() != 2 {
			t.Errorf("came back at %d", back.Cursor())
		}
	})
}

// Only an answer to a question asked afterwards shows that a cursor is ahead. A
// shared answer may be older than the event at the cursor.
func TestAheadNeedsAFreshAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 3)
		pass := r.holdAt(feedtest.BoundsAnswered)
		go r.subscribe("a", feed.From{})
		synctest.Wait()
		r.append("a", 2)
		go func() {
			synctest.Wait()
			pass()
		}()
		s := r.subscribe("a", feed.FromCursor(5))
		if d := next(t, s, time.Minute); d.Gap != nil {
			t.Errorf("got %+v after a cursor that exists", *d.Gap)
		}
	})
}

// "Now" is the end of the store, even while the log has not reached it.
func TestNowIsNotTheEndOfALogWithAHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.subscribe("a", feed.From{})
		r.append("a", 3)
		pass := r.holdAt(feedtest.ReadAsked)
		defer pass()
		r.bus.waitReceiver().Grew("a", 3)
		if s := r.subscribe("a", feed.From{}); s.Cursor() != 3 {
			t.Errorf("now is %d, want 3", s.Cursor())
		}
	})
}

// An event that the bus loses, with none after it, comes from the store.
func TestVerifyFindsWhatTheBusLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		r.append("a", 3)
		reach(t, s, 3, 1100*time.Millisecond)
		r.append("a", 3)
		r.bus.waitReceiver().Missed()
		reach(t, s, 6, 60*time.Millisecond)
	})
}

// Many calls of Missed lead to one comparison, or two.
func TestMissedIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.subscribe("a", feed.From{})
		pass := r.holdAt(feedtest.BoundsAsked)
		before := r.count(feedtest.BoundsAsked)
		for range 1000 {
			r.bus.waitReceiver().Missed()
		}
		pass()
		time.Sleep(100 * time.Millisecond) // the second one waits a little
		synctest.Wait()
		if n := r.count(feedtest.BoundsAsked) - before; n != 2 {
			t.Errorf("%d comparisons, want 2", n)
		}
	})
}

func TestNextTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		began := time.Now()
		if d := next(t, s, 15*time.Second); d.Gap != nil || len(d.Events()) > 0 || time.Since(began) != 15*time.Second {
			t.Errorf("got %+v after %v", d, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Next(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
		r.publish("a", "x")
		reach(t, s, 1, time.Second) // a tick or an ended context loses nothing
	})
}

// Subscribers come and go while events are published and the hub is closed. The test
// is for the race detector, and finds goroutines that are left behind.
func TestComingAndGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				for j := 0; ; j++ {
					s, err := r.hub.Subscribe(context.Background(), []string{"a", "b"}[j%2], []feed.From{feed.FromStart(), {}}[i%2])
					if err != nil {
						if !errors.Is(err, feed.ErrStopped) {
							t.Errorf("subscribe: %v", err)
						}
						return
					}
					for range 5 {
						if _, err := s.Next(context.Background(), time.After(time.Millisecond)); err != nil {
							break
						}
					}
					go s.Close()
					runtime.Gosched()
					s.Close()
				}
			})
		}
		for range 100 {
			r.publish("a", "x")
			r.publish("b", "x")
			time.Sleep(time.Millisecond)
		}
		r.hub.Close()
		all.Wait()
	})
}

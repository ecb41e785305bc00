package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// kept is a rig whose hub has a retention, and whose
// store has a clock that is off by skew.
type kept struct {
	*rig
	skew      atomic.Int64
	retention *feed.Retention
}

func newKept(t *testing.T, rules ...feed.Rule) *kept {
	k := &kept{rig: newRig(t)}
	k.store.SetClock(func() time.Time { return time.Now().Add(time.Duration(k.skew.Load())) })
	r, err := feed.NewRetention(k.hub, feed.RetentionOptions{Rules: rules, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	k.retention = r
	t.Cleanup(r.Close)
	return k
}

// round lets the retention run one round.
func (k *kept) round() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func (k *kept) first(name string, want feed.ID) {
	k.t.Helper()
	if p := k.store.History(name); p.First != want {
		k.t.Errorf("%s begins with %d, want %d", name, p.First, want)
	}
}

func TestRetentionByEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "*", Events: 10})
		k.append("more", 25)
		k.append("just", 10)
		k.append("less", 3)
		s := k.subscribe("more", feed.FromCursor(0))
		k.round()
		k.first("more", 16)
		k.first("just", 1)
		k.first("less", 1)
		if d := next(t, s, time.Second); d.Gap == nil || d.Gap.Resumes != 16 {
			t.Errorf("a subscriber that is behind gets %+v", d)
		}
		k.append("more", 1)
		k.round()
		k.first("more", 17)
	})
}

// TestRetentionSetRules: new rules count from the next round on, bad ones never.
func TestRetentionSetRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t)
		k.append("a", 5)
		k.round()
		k.first("a", 1)
		if err := k.retention.SetRules([]feed.Rule{{Feeds: "a", Events: 2}}); err != nil {
			t.Fatal(err)
		}
		k.round()
		k.first("a", 4)
		if err := k.retention.SetRules([]feed.Rule{{Feeds: "a", Events: 1}, {Feeds: "*", Age: -1}}); !errors.Is(err, feed.ErrInvalid) {
			t.Errorf("an age of -1: got %v, want ErrInvalid", err)
		}
		k.round()
		k.first("a", 4)
	})
}

func TestRetentionByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "a", Age: time.Minute})
		k.append("a", 5)
		time.Sleep(30 * time.Second)
		k.append("a", 5)
		time.Sleep(30 * time.Second) // the first events reach the limit of age
		synctest.Wait()
		k.first("a", 1)
		k.round()
		k.first("a", 6)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		k.first("a", 11) // even without a publish, every event expires
		if e := k.publish("a", "x"); e.ID != 11 {
			t.Errorf("the next event is %d", e.ID)
		}
		k.round()
		k.first("a", 11)
	})
}

// The stricter of age and number applies, of the first matching rule only.
func TestRetentionRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t,
			feed.Rule{Feeds: "keep"},
			feed.Rule{Feeds: "chat:*", Events: 5},
			feed.Rule{Feeds: "chat:2", Events: 1},
			feed.Rule{Feeds: "both", Events: 8, Age: time.Hour},
			feed.Rule{Feeds: "c*", Events: 2},
			feed.Rule{Feeds: "aged", Events: 100, Age: time.Second},
		)
		for _, name := range []string{"keep", "keep2", "chat:1", "chat:2", "both", "chat", "aged"} {
			k.append(name, 10)
		}
		k.round()
		k.first("keep", 1)
		k.first("keep2", 1)
		k.first("chat:1", 6)
		k.first("chat:2", 6)
		k.first("both", 3)
		k.first("chat", 9)
		k.first("aged", 11)
	})
}

// Every feed has its turn, however many there are.
func TestRetentionOfManyFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "*", Events: 1})
		for i := range 1234 {
			k.append(fmt.Sprint("f", i), 2)
		}
		k.round()
		for i := range 1234 {
			k.first(fmt.Sprint("f", i), 2)
		}
	})
}

// A clock that jumps back makes no event expire early. Events from before the jump
// stay until the clock has caught up with them.
func TestRetentionWhenTheClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t, feed.Rule{Feeds: "a", Age: time.Minute})
		k.append("a", 1)
		k.skew.Store(int64(-time.Hour))
		k.append("a", 1) // with the time of the first
		time.Sleep(59 * time.Minute)
		k.append("a", 1)
		k.round()
		k.first("a", 1)
		time.Sleep(2*time.Minute + time.Second)
		k.round()
		k.first("a", 4)
		k.append("a", 1)
		k.skew.Add(int64(30 * time.Second))
		k.round()
		k.first("a", 4)
		k.skew.Add(int64(30 * time.Second))
		k.round()
		k.first("a", 5)
	})
}

// If one feed cannot be trimmed, the retention trims the others and sweeps the disk.
// The next round tries again.
func TestRetentionGoesOn(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		at   feedtest.Point
		feed string
		want map[string]feed.ID // while it fails
	}{
		{"a feed that is held", feed.ErrBusy, feedtest.TrimAsked, "b", map[string]feed.ID{"a": 5, "b": 1, "c": 5}},
		{"a feed that cannot be searched", errors.New("broken"), feedtest.SeekAsked, "a", map[string]feed.ID{"a": 1, "b": 5, "c": 5}},
		{"a store that is away", feed.ErrUnavailable, feedtest.ListAsked, "", map[string]feed.ID{"a": 1, "b": 1, "c": 1}},
		{"a store that goes away", feed.ErrUnavailable, feedtest.TrimAsked, "b", map[string]feed.ID{"a": 5, "b": 1, "c": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKept(t, feed.Rule{Feeds: "*", Age: time.Hour, Events: 1})
				for _, name := range []string{"a", "b", "c"} {
					k.append(name, 5)
				}
				k.hold(func(_ context.Context, call feedtest.Call) error {
					if call.At == c.at && (c.feed == "" || slices.Contains(call.Feeds, c.feed)) {
						return c.err
					}
					return nil
				})
				k.round()
				for name, want := range c.want {
					k.first(name, want)
				}
				if n := k.count(feedtest.SweepAsked); n != 1 {
					t.Errorf("swept %d times", n)
				}
				k.pass()
				k.round()
				for name := range c.want {
					k.first(name, 5)
				}
			})
		})
	}
}

// Close ends a round in the middle.
func TestRetentionCloseInARound(t *testing.T) {
	for _, at := range []feedtest.Point{feedtest.ListAsked, feedtest.TrimAsked, feedtest.TrimDone, feedtest.SeekAsked, feedtest.SweepAsked} {
		synctest.Test(t, func(t *testing.T) {
			k := newKept(t, feed.Rule{Feeds: "*", Age: time.Hour, Events: 1})
			k.append("a", 5)
			defer k.holdAt(at)()
			k.round()
			began := time.Now()
			k.retention.Close()
			if n := k.count(at); n != 1 || time.Since(began) > 0 {
				t.Errorf("%s: called %d times, and Close took %v", at, n, time.Since(began))
			}
			k.retention.Close() // once more does no harm
		})
	}
}

// sweepStore is a RetentionStore whose rounds and sweeps a test controls.
type sweepStore struct {
	*feedtest.Store
	away   atomic.Bool // another node runs its round
	more   atomic.Bool // Sweep always reports more
	swept  atomic.Int64
	window atomic.Int64
}

func (k *sweepStore) RunExclusive(ctx context.Context, fn func(context.Context) error) (bool, error) {
	if k.away.Load() {
		return false, nil
	}
	return true, fn(ctx)
}

func (k *sweepStore) Sweep(_ context.Context, limit int, window time.Duration) (bool, error) {
	k.swept.Add(1)
	k.window.Store(int64(window))
	return k.more.Load(), nil
}

func newSweepStore(t *testing.T, o feed.RetentionOptions) *sweepStore {
	k := &sweepStore{Store: feedtest.NewStore()}
	hub := feed.NewHub(k, &quietBus{}, feed.HubOptions{Logger: quiet})
	t.Cleanup(hub.Close)
	o.Logger = quiet
	r, err := feed.NewRetention(hub, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	k.append(t, 3)
	return k
}

func (k *sweepStore) append(t *testing.T, n int) {
	t.Helper()
	b := feed.Batch{Drafts: slices.Repeat([]feed.Draft{{Feed: "a"}}, n)}
	if _, err := k.Append(t.Context(), []feed.Batch{b}); err != nil {
		t.Fatal(err)
	}
}

func TestRetentionOnOneNodeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSweepStore(t, feed.RetentionOptions{Rules: []feed.Rule{{Feeds: "*", Events: 1}}})
		k.away.Store(true)
		time.Sleep(time.Minute)
		if p := k.History("a"); p.First != 1 || k.swept.Load() > 0 {
			t.Errorf("%+v, swept %d times while another node runs its round", p.Bounds, k.swept.Load())
		}
		k.away.Store(false)
		time.Sleep(11 * time.Second)
		if p := k.History("a"); p.First != 3 {
			t.Errorf("%+v after a round", p.Bounds)
		}
	})
}

// Endless sweeping does not delay trimming.
func TestRetentionSweepsAndTrims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newSweepStore(t, feed.RetentionOptions{Rules: []feed.Rule{{Feeds: "*", Events: 1}}, KeyWindow: time.Hour})
		k.more.Store(true)
		time.Sleep(time.Minute)
		k.append(t, 3)
		time.Sleep(30 * time.Second)
		if p := k.History("a"); p.First != 6 {
			t.Errorf("%+v half a minute later", p.Bounds)
		}
		if n := k.swept.Load(); n < 1000 || k.window.Load() != int64(time.Hour) {
			t.Errorf("swept %d times, keys older than %v", n, time.Duration(k.window.Load()))
		}
	})
}

// Without rules no event is trimmed, but old keys are removed.
func TestRetentionWithoutRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept(t)
		k.append("a", 5)
		k.batch(keyed("k", "1"))
		time.Sleep(23 * time.Hour)
		if got := k.batch(keyed("k", "1")); !got.Replayed {
			t.Error("a key went early")
		}
		time.Sleep(2 * time.Hour)
		k.first("a", 1)
		if got := k.batch(keyed("k", "1")); got.Replayed {
			t.Error("a key is remembered for too long")
		}
	})
}

func TestNewRetentionRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, rule := range []feed.Rule{{}, {Feeds: "a*b"}, {Feeds: "*a"}, {Feeds: ":*"}, {Feeds: "a b"}, {Feeds: "**"}, {Feeds: "a", Age: -1}} {
			if _, err := feed.NewRetention(r.hub, feed.RetentionOptions{Rules: []feed.Rule{{Feeds: "fine"}, rule}}); !errors.Is(err, feed.ErrInvalid) {
				t.Errorf("%+v: %v", rule, err)
			}
		}
		hub := feed.NewHub(struct{ feed.Store }{r.store}, r.bus, feed.HubOptions{Logger: quiet})
		defer hub.Close()
		if _, err := feed.NewRetention(hub, feed.RetentionOptions{}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("without a RetentionStore: %v", err)
		}
	})
}

package feed_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// quietBus carries nothing by itself; a test calls its receiver.
type quietBus struct {
	mu       sync.Mutex
	receiver feed.Receiver
	tails    int
	tell     func(ctx context.Context, events []feed.Event) error
	tailErr  func() error // nil: Tail runs until its context ends
}

func (b *quietBus) Tell(ctx context.Context, events []feed.Event) error {
	if b.tell == nil {
		return nil
	}
	return b.tell(ctx, events)
}

func (b *quietBus) Tail(ctx context.Context, r feed.Receiver) error {
	b.mu.Lock()
	b.receiver = r
	b.tails++
	b.mu.Unlock()
	if b.tailErr != nil {
		return b.tailErr()
	}
	<-ctx.Done()
	return nil
}

func (b *quietBus) Close() error { return nil }

func (b *quietBus) waitReceiver() feed.Receiver {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.receiver
}

// rig is a hub and a publisher over a store whose calls are counted and may be
// held up or fail.
type rig struct {
	t     *testing.T
	store *feedtest.Store // without a gate
	bus   *quietBus
	wire  *wire // replaces bus if the rig is one of several nodes
	hub   *feed.Hub
	pub   *feed.Publisher
	gate  atomic.Pointer[feedtest.Gate]

	mu    sync.Mutex
	calls map[feedtest.Point]int
}

// newRig starts a rig, which ends with the test. It must be called in a synctest
// bubble.
func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: feedtest.NewStore(), bus: &quietBus{}, calls: make(map[feedtest.Point]int)}
	store := r.store.Through(r.notice)
	r.hub = feed.NewHub(store, r.bus, feed.HubOptions{Logger: quiet})
	r.pub = feed.NewPublisher(store, r.hub, r.bus, feed.PublisherOptions{Logger: quiet})
	t.Cleanup(func() {
		r.pass()
		r.pub.Close()
		r.hub.Close()
	})
	return r
}

// notice counts a call of the store, and lets the gate hold the call, if there is a
// gate.
func (r *rig) notice(ctx context.Context, c feedtest.Call) error {
	r.mu.Lock()
	r.calls[c.At]++
	r.mu.Unlock()
	if g := r.gate.Load(); g != nil {
		return (*g)(ctx, c)
	}
	return nil
}

func (r *rig) hold(g feedtest.Gate) { r.gate.Store(&g) }

func (r *rig) pass() { r.gate.Store(nil) }

// holdAt holds up the calls at the point until pass.
func (r *rig) holdAt(at feedtest.Point) (pass func()) {
	open := make(chan struct{})
	r.hold(func(ctx context.Context, c feedtest.Call) error {
		if c.At != at {
			return nil
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return func() {
		r.pass()
		close(open)
	}
}

// fail makes the calls at the points fail.
func (r *rig) fail(err error, at ...feedtest.Point) {
	r.hold(func(_ context.Context, c feedtest.Call) error {
		for _, p := range at {
			if p == c.At {
				return err
			}
		}
		return nil
	})
}

func (r *rig) count(at feedtest.Point) int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[at]
}

// append stores n events behind the hub's back, as another node would.
func (r *rig) append(name string, n int) []feed.Event {
	r.t.Helper()
	var b feed.Batch
	for range n {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: "x"})
	}
	results, err := r.store.Append(r.t.Context(), []feed.Batch{b})
	if err != nil {
		r.t.Fatal(err)
	}
	return results[0].Events
}

func (r *rig) publish(name, data string) feed.Event {
	r.t.Helper()
	events, err := r.pub.Publish(r.t.Context(), feed.Draft{Feed: name, Data: data})
	if err != nil {
		r.t.Fatal(err)
	}
	return events[0]
}

// subscribe may be called from any goroutine of the test.
func (r *rig) subscribe(name string, from feed.From) *feed.Subscription {
	r.t.Helper()
	s, err := r.hub.Subscribe(r.t.Context(), name, from)
	if err != nil {
		r.t.Errorf("subscribe to %s: %v", name, err)
		return nil
	}
	r.t.Cleanup(s.Close)
	return s
}

// next returns the next delivery, or an empty one if there is none within d.
func next(t *testing.T, s *feed.Subscription, d time.Duration) feed.Delivery {
	t.Helper()
	delivery, err := s.Next(t.Context(), time.After(d))
	if err != nil {
		t.Fatal(err)
	}
	return delivery
}

// reach reads until the subscription is at the cursor, and no longer than d.
func reach(t *testing.T, s *feed.Subscription, want feed.ID, d time.Duration) {
	t.Helper()
	began := time.Now()
	for s.Cursor() != want {
		left := d - time.Since(began)
		delivery := next(t, s, left)
		if delivery.Gap != nil {
			t.Fatalf("gap at %d: %+v", s.Cursor(), *delivery.Gap)
		}
		if len(delivery.Events()) == 0 {
			t.Fatalf("at %d after %v, want %d", s.Cursor(), d, want)
		}
	}
}

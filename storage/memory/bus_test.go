package memory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/storagetest"
)

// Closing leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBus(t *testing.T) {
	t.Parallel()
	storagetest.TestBus(t, func(t *testing.T) storagetest.Joiner {
		b := NewBus()
		return func(*testing.T) feed.Bus { return b }
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	storagetest.TestSignals(t, func(t *testing.T) storagetest.Joiner {
		b := NewBus()
		return func(*testing.T) feed.Bus { return b }
	})
}

func TestNodes(t *testing.T) {
	t.Parallel()
	storagetest.TestCluster(t, func(t *testing.T) (feed.Store, storagetest.Joiner) {
		b := NewBus()
		return feedtest.NewStore(), func(*testing.T) feed.Bus { return b }
	})
}

// node is a receiver that blocks while it is held.
type node struct {
	cursor map[string]feed.ID
	hold   chan struct{}
	asked  int
	got    []feed.Event
	missed int
}

func (n *node) Cursor(name string) (feed.ID, bool) {
	n.asked++
	c, open := n.cursor[name]
	return c, open
}

func (n *node) Receive(events []feed.Event) { n.got = append(n.got, events...); <-n.hold }
func (n *node) Grew(string, feed.ID)        {}
func (n *node) Missed()                     { n.missed++ }

// tail runs a Tail until the test or stop ends it.
func tail(t *testing.T, b *Bus, r feed.Receiver) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Tail(ctx, r) }()
	synctest.Wait()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("tail: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func tell(t *testing.T, b *Bus, events ...feed.Event) {
	t.Helper()
	if err := b.Tell(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func event(name string, id feed.ID, data string) feed.Event {
	return feed.Event{Feed: name, ID: id, Data: data}
}

// A receiver that falls behind costs the bus one full inbox and no more. The bus then
// calls Missed, and the receiver continues with the events told from then on.
func TestOverflow(t *testing.T) {
	tests := []struct {
		name   string
		told   int    // events that fit
		data   string // of each
		missed int
	}{
		{"as many events as fit", inboxEvents, "x", 0},
		{"an event too many", inboxEvents + 1, "x", 1},
		{"as many bytes as fit", 16, strings.Repeat("x", inboxBytes/16), 0},
		{"bytes too many", 17, strings.Repeat("x", inboxBytes/16), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBus()
				n := &node{cursor: map[string]feed.ID{"chat": 0}, hold: make(chan struct{})}
				tail(t, b, n)
				tell(t, b, event("chat", 1, "")) // holds the receiver
				for i := range test.told {
					if err := b.Tell(t.Context(), []feed.Event{event("chat", feed.ID(i+2), test.data)}); err != nil {
						t.Fatal(err)
					}
				}
				close(n.hold)
				synctest.Wait()
				want := 1
				if test.missed == 0 {
					want += test.told
				}
				if n.missed != test.missed || len(n.got) != want {
					t.Errorf("received %d events and missed %d times, want %d and %d", len(n.got), n.missed, want, test.missed)
				}
				tell(t, b, event("chat", 1_000_000, "after"))
				if last := n.got[len(n.got)-1]; last.Data != "after" {
					t.Errorf("after it had missed something the receiver got %v", last)
				}
			})
		})
	}
}

// One call of Tell may have more events than an inbox takes.
func TestTellMoreThanAnInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		n := &node{cursor: map[string]feed.ID{"chat": 0}, hold: make(chan struct{})}
		close(n.hold)
		tail(t, b, n)
		events := make([]feed.Event, inboxEvents+1)
		for i := range events {
			events[i] = event("chat", feed.ID(i+1), "")
		}
		tell(t, b, events...)
		if n.missed != 1 || len(n.got) != 0 {
			t.Errorf("received %d events and missed %d times, want 0 and 1", len(n.got), n.missed)
		}
	})
}

// A single node must not pay for its own events, which it has already: neither its
// goroutine nor memory, which a flood of large ones would take from the others.
func TestPassedAndClosedFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		n := &node{cursor: map[string]feed.ID{"chat": 2}, hold: make(chan struct{})}
		close(n.hold)
		tail(t, b, n)
		tell(t, b, event("chat", 1, "passed"), event("chat", 2, "passed"), event("news", 9, "closed"))
		if len(n.got) != 0 || n.asked != 2 {
			t.Errorf("received %v, asked for %d cursors; want none and 2", n.got, n.asked)
		}
		if err := b.Tell(t.Context(), []feed.Event{event("chat", 2, "passed")}); err != nil {
			t.Fatal(err)
		}
		for in := range b.inboxes {
			if len(in.events) != 0 {
				t.Errorf("%v wait for a receiver that has them", in.events)
			}
		}
		tell(t, b, event("news", 10, "closed"), event("chat", 4, "wanted"), event("chat", 2, "passed"))
		if len(n.got) != 1 || n.got[0].Data != "wanted" {
			t.Errorf("received %v, want the event 4 alone", n.got)
		}
	})
}

// The caller may use its slice again.
func TestToldEventsAreCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		n := &node{cursor: map[string]feed.ID{"chat": 0}, hold: make(chan struct{})}
		close(n.hold)
		tail(t, b, n)
		events := []feed.Event{event("chat", 1, "told")}
		if err := b.Tell(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		events[0].Data = "used again"
		synctest.Wait()
		if len(n.got) != 1 || n.got[0].Data != "told" {
			t.Errorf("received %v", n.got)
		}
	})
}

// keeper keeps the slices that it receives.
type keeper struct {
	node
	kept [][]feed.Event
}

func (k *keeper) Receive(events []feed.Event) { k.kept = append(k.kept, events) }

// The inbox does not fill a slice again that a receiver got.
func TestReceivedSlicesAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		k := &keeper{node: node{cursor: map[string]feed.ID{"chat": 10}}}
		tail(t, b, k)
		ids := []feed.ID{1, 11, 12, 2, 13, 14, 3, 4, 15, 16, 17}
		for _, id := range ids {
			tell(t, b, event("chat", id, "x"))
		}
		want := slices.DeleteFunc(ids, func(id feed.ID) bool { return id <= 10 })
		if len(k.kept) != len(want) {
			t.Fatalf("received %d times, want %d", len(k.kept), len(want))
		}
		for i, events := range k.kept {
			if len(events) != 1 || events[0].ID != want[i] {
				t.Errorf("slice %d is now %v, and was of the event %d", i, events, want[i])
			}
		}
	})
}

func TestNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		told := []feed.Event{event("chat", 1, "x")}
		free := func(when string) {
			t.Helper()
			if n := testing.AllocsPerRun(100, func() { _ = b.Tell(t.Context(), told) }); n != 0 || len(b.inboxes) != 0 {
				t.Errorf("%s: telling takes %v allocations, and there are %d inboxes", when, n, len(b.inboxes))
			}
		}
		free("before anybody is there")
		n := &node{cursor: map[string]feed.ID{"chat": 0}, hold: make(chan struct{})}
		close(n.hold)
		tail(t, b, n)()
		if len(n.got) != 0 || n.missed != 0 {
			t.Errorf("received %v of what was told before", n.got)
		}
		free("after all have gone")
	})
}

func TestClose(t *testing.T) {
	b := NewBus()
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Tell(t.Context(), nil); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("tell: got %v, want %v", err, feed.ErrStopped)
	}
	if err := b.Tail(t.Context(), &node{}); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("tail: got %v, want %v", err, feed.ErrStopped)
	}
}

// BenchmarkTell measures what a single node pays for the bus.
func BenchmarkTell(b *testing.B) {
	bus := NewBus()
	n := &node{cursor: map[string]feed.ID{"chat": 100}}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- bus.Tail(ctx, n) }()
	events := make([]feed.Event, 64)
	for i := range events {
		events[i] = event("chat", feed.ID(i), "data")
	}
	for b.Loop() {
		if err := bus.Tell(ctx, events); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(events))/b.Elapsed().Seconds(), "events/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

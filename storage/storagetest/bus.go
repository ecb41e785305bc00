package storagetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Joiner returns the bus of another node on the same medium. The tests close each bus
// that they get, once; a bus that several nodes share must allow several closes.
type Joiner func(t *testing.T) feed.Bus

// TestBus tests a bus. It calls fresh once for each subtest, for an unused medium.
//
// A bus may drop, repeat, delay and reorder events. So the tests tell events again until
// they arrive, and demand of arriving events only that they are true.
func TestBus(t *testing.T, fresh func(t *testing.T) Joiner) {
	runEach(t, fresh, []test[Joiner]{
		{"what is told arrives", testArrives},
		{"several receivers", testReceivers},
		{"closed feeds", testClosedFeeds},
		{"concurrent tells", testConcurrentTells},
		{"a flood is received or missed", testFlood},
		{"tail ends", testTailEnds},
		{"tail again", testTailAgain},
		{"tell ends", testTellEnds},
		{"tell with nobody there", testNobodyThere},
	})
}

// patience is the time after which a test fails that should take milliseconds.
const patience = 20 * time.Second

// connect returns a node's bus until the test ends.
func connect(t *testing.T, join Joiner) feed.Bus {
	t.Helper()
	b := join(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// tail runs a Tail until the test or stop ends it.
func tail(t *testing.T, b feed.Bus, r *receiver) (stop func()) {
	t.Helper()
	return attend(t, "tail", func(ctx context.Context) error { return b.Tail(ctx, r) }, r.callee)
}

// attend runs a Tail or a Signals that calls c, until the test or stop ends it.
func attend(t *testing.T, what string, run func(context.Context) error, c *callee) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: got %v at the end of its context, want nil", what, err)
			}
		case <-time.After(patience):
			t.Errorf("%s goes on after its context has ended", what)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.overlap {
			t.Errorf("%s called from two goroutines at the same time", what)
		}
	})
	t.Cleanup(stop)
	return stop
}

// arrive tells the events until the receivers have them: the Tails may start after the
// first Tell, and the bus may lose any event.
func arrive(t *testing.T, b feed.Bus, events []feed.Event, receivers ...*receiver) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := b.Tell(ctx, events)
		cancel()
		if err != nil {
			t.Fatalf("tell: %v", err)
		}
		all := true
		for _, r := range receivers {
			all = r.wait(200*time.Millisecond, func() bool { return r.has(events) }) && all
		}
		if all {
			return
		}
	}
	t.Fatalf("%d events from %s %d on were told and have not arrived", len(events), events[0].Feed, events[0].ID)
}

// committed returns n events of a feed, after the id last.
func committed(name string, last feed.ID, n int) []feed.Event {
	events := make([]feed.Event, n)
	for i := range events {
		id := last + feed.ID(i) + 1
		events[i] = feed.Event{
			Feed: name, ID: id, Data: fmt.Sprintf("event %d of %s", id, name),
			Time: time.UnixMilli(1_700_000_000_000 + int64(id)).UTC(),
		}
	}
	return events
}

package redis_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/redis"
)

// world is a store and the events that were told.
type world struct {
	mu     sync.Mutex
	events map[string][]feed.Event
}

func newWorld() *world { return &world{events: make(map[string][]feed.Event)} }

// commit stores n more events of a feed.
func (w *world) commit(name string, n int) []feed.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := feed.ID(len(w.events[name]))
	for i := range n {
		id := last + feed.ID(i) + 1
		w.events[name] = append(w.events[name], feed.Event{
			Feed: name, ID: id, Type: "sent", Data: fmt.Sprintf("%s %d %s", name, id, rand.Text()),
			Time: time.UnixMilli(1_700_000_000_000 + int64(id)).UTC(),
		})
	}
	return w.events[name][last:len(w.events[name]):len(w.events[name])]
}

// rollback sets the store back to an older state.
func (w *world) rollback(name string, last int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[name] = w.events[name][:last:last]
}

func (w *world) last(name string) feed.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return feed.ID(len(w.events[name]))
}

func (w *world) event(name string, id feed.ID) (feed.Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == 0 || id > feed.ID(len(w.events[name])) {
		return feed.Event{}, false
	}
	return w.events[name][id-1], true
}

// node is a minimal hub. It takes the next event and no other, and reads the store
// only when the bus asks it to. So a test notices if the bus fails to report an
// event.
type node struct {
	t     *testing.T
	world *world
	bus   *redis.Bus
	log   *lines
	stop  func()

	mu      sync.Mutex
	cursors map[string]feed.ID
	live    int // events that came by the bus
	grew    int
	missed  int
	calls   atomic.Int32
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) count(part string) int { return strings.Count(l.String(), part) }

// join returns a node on the bus, for as long as the test runs.
func join(t *testing.T, w *world, url string, o redis.Options, feeds ...string) *node {
	t.Helper()
	n := &node{t: t, world: w, log: &lines{}, cursors: make(map[string]feed.ID)}
	o.Logger = slog.New(slog.NewTextHandler(n.log, nil))
	n.bus = open(t, url, o)
	for _, name := range feeds {
		n.cursors[name] = w.last(name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.bus.Tail(ctx, n) }()
	n.stop = sync.OnceFunc(func() {
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("tail: got %v, want nil", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("tail ended %v after its context", took)
		}
		if err := n.bus.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// enter notes a call of the receiver.
func (n *node) enter() func() {
	if n.calls.Add(1) > 1 {
		n.t.Error("the receiver was called from two goroutines at the same time")
	}
	n.mu.Lock()
	return func() { n.mu.Unlock(); n.calls.Add(-1) }
}

func (n *node) Cursor(name string) (feed.ID, bool) {
	defer n.enter()()
	c, open := n.cursors[name]
	return c, open
}

func (n *node) Receive(events []feed.Event) {
	defer n.enter()()
	for _, e := range events {
		if want, ok := n.world.event(e.Feed, e.ID); !ok || e != want {
			n.t.Errorf("received %+v, the store has %+v", e, want)
		}
		if c, open := n.cursors[e.Feed]; open && e.ID == c+1 {
			n.cursors[e.Feed]++
			n.live++
		}
	}
}

func (n *node) Grew(name string, last feed.ID) {
	defer n.enter()()
	n.grew++
	if _, open := n.cursors[name]; open {
		n.cursors[name] = n.world.last(name)
	}
}

func (n *node) Missed() {
	defer n.enter()()
	n.missed++
	for name := range n.cursors {
		n.cursors[name] = n.world.last(name)
	}
}

// counts returns the number of events that came by the bus, and of calls of Grew and
// Missed.
func (n *node) counts() (live, grew, missed int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live, n.grew, n.missed
}

func (n *node) current() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, c := range n.cursors {
		if c != n.world.last(name) {
			return false
		}
	}
	return true
}

// arrives waits until the node has everything that is stored.
func (n *node) arrives(within time.Duration) {
	n.t.Helper()
	eventually(n.t, within, "the node has all events", n.current)
}

// up waits until the bus of the node works.
func (n *node) up(within time.Duration) {
	n.t.Helper()
	eventually(n.t, within, "the bus works", func() bool {
		return n.bus.Stats().Up && n.bus.Ping(n.t.Context()) == nil
	})
}

// eventually waits until ok holds. It polls, because the other side is a server in
// another process and sends no signal.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// tell tells events as a publisher does, with a limit of one second.
func tell(b *redis.Bus, events []feed.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return b.Tell(ctx, events)
}

// flows checks that an event arrives by the bus, not by way of the store.
func flows(t *testing.T, teller *redis.Bus, n *node, name string) {
	t.Helper()
	eventually(t, 5*time.Second, "events flow again", func() bool {
		live, _, _ := n.counts()
		err := tell(teller, n.world.commit(name, 1))
		end := time.Now().Add(100 * time.Millisecond)
		for time.Now().Before(end) {
			if now, _, _ := n.counts(); now > live {
				return err == nil
			}
			time.Sleep(time.Millisecond) // as in eventually
		}
		return false
	})
	n.arrives(time.Second)
}

// named returns the id of a store whose id does not change.
func named(id string) func() string { return func() string { return id } }

func options() redis.Options {
	return redis.Options{StoreID: named(rand.Text()), Prefix: "test", Logger: slog.New(slog.DiscardHandler)}
}

// direct returns a client to look at Redis, and to damage what is there.
func direct(t *testing.T, url string) *goredis.Client {
	t.Helper()
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRetries = -1
	c := goredis.NewClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// keysOf returns the keys with this ending.
func keysOf(t *testing.T, c *goredis.Client, o redis.Options, end string) []string {
	t.Helper()
	keys, err := c.Keys(t.Context(), o.Prefix+":"+o.StoreID()+":*"+end).Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

package feed_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// tail is one node's end of the simulated bus.
type tail struct {
	world  *world
	node   *node
	broken chan error // makes Tail fail

	mu       sync.Mutex
	receiver feed.Receiver
	queue    [][]feed.Event // told, and not yet received
	hear     func([]byte)
	signals  [][]byte // sent and not yet received
}

func (t *tail) Tell(ctx context.Context, events []feed.Event) error {
	c := call{node: t.node, at: tellAsked, feeds: events[0].Feed, after: events[0].ID}
	if err := t.world.gate.pass(ctx, c); err != nil {
		return err
	}
	t.world.carry(events)
	return nil
}

func (t *tail) Tail(ctx context.Context, r feed.Receiver) error {
	t.mu.Lock()
	t.receiver = r
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.receiver = nil
		t.mu.Unlock()
	}()
	select {
	case err := <-t.broken:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (t *tail) Close() error { return nil }

func (t *tail) state() (feed.Receiver, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.receiver, len(t.queue)
}

// item returns the i-th thing on its way to the node, and removes it unless it
// is to arrive once more.
func (t *tail) item(i int, again bool) []feed.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	events := t.queue[i]
	if !again {
		t.queue = slices.Delete(t.queue, i, i+1)
	}
	return slices.Clone(events)
}

func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue, t.signals = nil, nil
}

// carrier is a way in which a bus may work when all is well. Each of them brings events
// to all nodes at once, except for the dead one.
type carrier struct {
	name   string
	within time.Duration // how soon other nodes have an event without asking the store more often
	hand   func(feed.Receiver, []feed.Event)
}

var carriers = []carrier{
	{"hands over events", 0, func(r feed.Receiver, events []feed.Event) { r.Receive(events) }},
	{"hands over events twice", 0, func(r feed.Receiver, events []feed.Event) { r.Receive(events); r.Receive(events) }},
	{"hands over the newest event", 0, func(r feed.Receiver, events []feed.Event) { r.Receive(events[len(events)-1:]) }},
	{"says what grew", 0, func(r feed.Receiver, events []feed.Event) {
		r.Grew(events[0].Feed, events[len(events)-1].ID)
	}},
	{"says that something was missed", 50 * time.Millisecond, func(r feed.Receiver, _ []feed.Event) { r.Missed() }},
	{"is dead", 0, nil},
}

// carry puts events on their way to every node, or through at once when all is
// well.
func (w *world) carry(events []feed.Event) {
	w.streamMu.Lock()
	for _, e := range events {
		w.stream[e.Feed] = append(w.stream[e.Feed], e)
	}
	w.streamMu.Unlock()
	for _, n := range w.running() {
		n.tail.mu.Lock()
		r, through := n.tail.receiver, w.through.Load()
		if through == nil {
			n.tail.queue = append(n.tail.queue, events)
		}
		n.tail.mu.Unlock()
		if through != nil && through.hand != nil && r != nil {
			through.hand(r, events)
		}
	}
}

// deliver takes events that are on their way to a node. They arrive, perhaps shuffled
// and perhaps not for the last time, or are only reported, or are lost.
func (w *world) deliver() bool {
	n := w.anyNode()
	if n == nil || w.busState != up {
		return false
	}
	r, queued := n.tail.state()
	if r == nil {
		return false
	}
	if w.chance(30) {
		return w.pull(n, r)
	}
	if queued == 0 {
		return false
	}
	i := 0
	if w.chance(30) {
		i = w.rng.IntN(queued)
	}
	again := w.chance(15)
	events := n.tail.item(i, again)
	what := events[0]
	switch {
	case w.chance(20):
		w.log("bus loses %s %d on the way to %s", what.Feed, what.ID, n.name)
	case w.chance(25):
		w.log("bus says that %s grew to %d, to %s", what.Feed, what.ID, n.name)
		r.Grew(what.Feed, what.ID)
	default:
		if w.chance(15) {
			w.rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		}
		w.log("bus hands %d events from %s %d to %s, again %t", len(events), what.Feed, what.ID, n.name, again)
		w.receive(r, events)
	}
	return true
}

// receive passes events on, one feed after the other: a log that gets events of one feed
// twice in one step may show subscribers the time in between, or not.
func (w *world) receive(r feed.Receiver, events []feed.Event) {
	slices.SortStableFunc(events, func(a, b feed.Event) int { return strings.Compare(a.Feed, b.Feed) })
	r.Receive(events)
}

// pull lets a node read a feed's stream from its own cursor.
func (w *world) pull(n *node, r feed.Receiver) bool {
	name := w.anyFeed()
	after, open := r.Cursor(name)
	w.streamMu.Lock()
	var events []feed.Event
	for _, e := range w.stream[name] {
		if open && e.ID > after {
			events = append(events, e)
		}
	}
	w.streamMu.Unlock()
	if len(events) == 0 {
		return false
	}
	if w.chance(50) {
		events = events[len(events)/2:]
	}
	w.log("%s reads %s after %d from the bus, gets %d from %d", n.name, name, after, len(events), events[0].ID)
	r.Receive(events)
	return true
}

// lie makes the bus report something that is wrong.
func (w *world) lie() bool {
	n := w.anyNode()
	if n == nil || w.plan.honest {
		return false
	}
	r, _ := n.tail.state()
	if r == nil {
		return false
	}
	name := w.anyFeed()
	b := w.bounds(name)
	last := b.Last + 1 + feed.ID(w.rng.IntN(5))
	switch w.rng.IntN(5) {
	case 0:
		last = 1 << 63
	case 1:
		last = math.MaxUint64
	case 2:
		w.log("bus hands %s events of a feed that does not exist", n.name)
		r.Receive([]feed.Event{{Feed: "nobody", ID: 1}, {Feed: "nobody", ID: math.MaxUint64}})
		return true
	case 3:
		last = feed.ID(w.rng.IntN(int(b.Last) + 1))
	}
	w.log("bus lies that %s grew to %d, to %s", name, last, n.name)
	r.Grew(name, last)
	return true
}

func (w *world) missed() bool {
	n := w.anyNode()
	if n == nil {
		return false
	}
	r, _ := n.tail.state()
	if r == nil {
		return false
	}
	w.log("bus says that %s may have missed something", n.name)
	r.Missed()
	return true
}

// loseAll restarts the bus, which then has lost every event, or breaks a node's tail.
func (w *world) loseAll() bool {
	if n := w.anyNode(); n != nil && w.chance(50) {
		if r, _ := n.tail.state(); r != nil {
			w.log("the tail of %s fails", n.name)
			n.tail.broken <- errors.New("simulated")
		}
		return true
	}
	w.log("bus loses everything")
	w.emptyBus()
	return true
}

func (w *world) emptyBus() {
	w.streamMu.Lock()
	clear(w.stream)
	w.streamMu.Unlock()
	for _, n := range w.running() {
		n.tail.clear()
	}
}

package feed_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// node is one run of one server process.
type node struct {
	name      string
	run       int // counts the nodes of the world
	hub       *feed.Hub
	pub       *feed.Publisher
	retention *feed.Retention // or nil
	tail      *tail
	dead      atomic.Bool // crashed: no client sees what it still does
	closed    atomic.Bool // hub and publisher have been closed
	ending    bool        // a regular end has begun

	mu     sync.Mutex
	gone   map[string]feed.ID // the events of a feed before the id were trimmed here
	spoken int                // ephemeral events that it was asked to send
	speaks bool               // it is sending one
}

func (n *node) noteTrim(name string, before feed.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone[name] = max(n.gone[name], before)
}

func (n *node) trimmed(name string) feed.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone[name]
}

// untrim forgets the trims: an older store may have those events again.
func (n *node) untrim() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.gone)
}

// startNode starts a node in the slot.
func (w *world) startNode(slot int) {
	w.runs++
	w.moment()
	n := &node{name: fmt.Sprintf("n%d.%d", slot, w.runs), run: w.runs, gone: make(map[string]feed.ID)}
	n.tail = &tail{world: w, node: n, broken: make(chan error)}
	var store feed.RetentionStore = access{w, n}
	var bus feed.Bus = n.tail
	if w.plan.signals {
		bus = signalTail{n.tail}
	}
	if w.plan.store != nil {
		store = w.plan.store(w, store)
	}
	if w.plan.bus != nil {
		bus = w.plan.bus(bus)
	}
	o := feed.HubOptions{Logger: quiet}
	if w.plan.blind {
		o.Verify = time.Hour
	}
	n.hub = feed.NewHub(store, bus, o)
	if w.runs%2 == 0 {
		// A node without memory for logs, beside one with.
		memory := n.hub.Memory()
		memory.Take(feed.HoldLogs, int(memory.Limit(feed.HoldLogs))-32<<10)
	}
	n.pub = feed.NewPublisher(store, n.hub, bus, feed.PublisherOptions{Logger: quiet})
	if w.plan.retention {
		w.moment()
		r, err := feed.NewRetention(n.hub, feed.RetentionOptions{Rules: []feed.Rule{w.plan.retain}, Every: retainEvery, Logger: quiet})
		if err != nil {
			panic(err) // the store is a RetentionStore, and the rule is sound
		}
		n.retention = r
	}
	w.nodes[slot] = n
	alive := append(slices.Clone(w.running()), n)
	w.alive.Store(&alive)
}

// running returns the nodes that run, in the order of their starts.
func (w *world) running() []*node { return *w.alive.Load() }

// leave removes a node from those that run.
func (w *world) leave(slot int) {
	n := w.nodes[slot]
	w.nodes[slot] = nil
	alive := slices.DeleteFunc(slices.Clone(w.running()), func(other *node) bool { return other == n })
	w.alive.Store(&alive)
}

// endNode closes a node's parts in order. They end by themselves if the node
// has crashed; otherwise the scheduler has to let its calls go on.
func (w *world) endNode(n *node) {
	n.ending = true
	w.ending.Go(func() {
		if n.retention != nil {
			n.retention.Close()
		}
		n.pub.Close()
		n.hub.Close()
		n.closed.Store(true)
	})
}

func (w *world) start() bool {
	for slot, n := range w.nodes {
		if n == nil {
			w.startNode(slot)
			w.log("%s starts", w.nodes[slot].name)
			return true
		}
	}
	return false
}

func (w *world) crash() bool {
	slot := w.rng.IntN(len(w.nodes))
	n := w.nodes[slot]
	if n == nil {
		return false
	}
	w.leave(slot)
	w.log("%s crashes", n.name)
	for _, name := range w.feeds {
		// The store may take its time to notice that the holder of a feed is gone.
		if w.chance(50) {
			w.locks.haunt(name, n)
		}
	}
	w.gate.crash(n)
	if !n.ending {
		w.endNode(n)
	}
	for _, r := range w.readers {
		if r.conn != nil && r.conn.node == n {
			r.conn.cancel()
		}
	}
	return true
}

// end stops a node regularly. Its clients find out by themselves.
func (w *world) end() bool {
	slot := w.rng.IntN(len(w.nodes))
	n := w.nodes[slot]
	if n == nil {
		return false
	}
	w.log("%s is stopped", n.name)
	w.leave(slot)
	w.endNode(n)
	return true
}

func (w *world) trim() bool {
	if !w.plan.trims {
		return false
	}
	name := w.anyFeed()
	b := w.bounds(name)
	if b.First > b.Last {
		return false
	}
	before := b.First + 1 + feed.ID(w.rng.Uint64N(uint64(b.Last-b.First+1)))
	if w.chance(15) {
		before = b.Last + 1
	}
	w.checker.Trimming(name, before)
	n := w.anyNode()
	if n == nil || w.chance(50) {
		w.log("%s is trimmed before %d of %d elsewhere", name, before, b.Last)
		_ = w.store.Trim(context.Background(), name, before)
		return true
	}
	w.log("%s is trimmed before %d of %d on %s", name, before, b.Last, n.name)
	go w.trimOn(n, name, before)
	return true
}

// trimOn trims a feed on a node. From then on, its subscribers do not get the trimmed
// events.
func (w *world) trimOn(n *node, name string, before feed.ID) {
	replaced := w.replaced.Load()
	err := w.plan.trim(w, n, name, before)
	switch {
	case n.dead.Load():
	case err == nil:
		if replaced == w.replaced.Load() {
			n.noteTrim(name, before)
		}
	case !expected(err) && !isUncertain(err):
		w.gate.fault(fmt.Errorf("trim %s on %s: %w", name, n.name, err))
	}
}

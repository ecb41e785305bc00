package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

var errCrashed = errors.New("the node has crashed")

// gate holds up every call that a node makes of the store or the bus, until
// the scheduler lets it go on.
type gate struct {
	step atomic.Int64 // of the world

	mu     sync.Mutex
	parked []*parked
	open   bool // calls are no longer held up
	faults []error
	calls  int
}

type parked struct {
	node   *node
	at     feedtest.Point
	step   int64
	key    string // calls with equal keys are let go together, as their order is not ours to know
	answer chan error
}

const tellAsked feedtest.Point = "tell asked"

func (g *gate) pass(ctx context.Context, n *node, at feedtest.Point, what string) error {
	if n.closed.Load() {
		g.fault(fmt.Errorf("%s: %s %s after its hub and publisher were closed", n.name, at, what))
	}
	if n.dead.Load() {
		return errCrashed
	}
	g.mu.Lock()
	g.calls++
	if g.open {
		g.mu.Unlock()
		return nil
	}
	p := &parked{node: n, at: at, step: g.step.Load(), key: n.name + " " + string(at) + " " + what, answer: make(chan error, 1)}
	// A node begins one append after another, so their order is known, as is that
	// of calls that have come here in different steps.
	ordered := at == feedtest.AppendAsked || at == feedtest.AppendCommitted
	for slices.ContainsFunc(g.parked, func(q *parked) bool { return p.key == q.key && (ordered || p.step != q.step) }) {
		p.key += "'"
	}
	g.parked = append(g.parked, p)
	g.mu.Unlock()
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		g.remove(func(q *parked) bool { return p == q })
		return ctx.Err()
	}
}

func (g *gate) fault(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, err)
}

func (g *gate) remove(which func(*parked) bool) (removed []*parked) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parked = slices.DeleteFunc(g.parked, func(p *parked) bool {
		if which(p) {
			removed = append(removed, p)
			return true
		}
		return false
	})
	return removed
}

// keys returns the keys of what is held up, sorted, each once.
func (g *gate) keys() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := make([]string, len(g.parked))
	for i, p := range g.parked {
		keys[i] = p.key
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// at returns the point where the calls with this key are held up, or "" if
// there are none any more.
func (g *gate) at(key string) feedtest.Point {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.parked {
		if p.key == key {
			return p.at
		}
	}
	return ""
}

// release lets the calls with this key go on, or fail.
func (g *gate) release(key string, err error) {
	for _, p := range g.remove(func(p *parked) bool { return p.key == key }) {
		p.answer <- err
	}
}

// crash ends every call of the node; to the node it is as if it never ended.
func (g *gate) crash(n *node) {
	n.dead.Store(true)
	for _, p := range g.remove(func(p *parked) bool { return p.node == n }) {
		p.answer <- errCrashed
	}
}

// heal lets everything go on, from now on without holding it up.
func (g *gate) heal() {
	g.mu.Lock()
	g.open = true
	g.mu.Unlock()
	for _, key := range g.keys() {
		g.release(key, nil)
	}
}

// failure is how a call fails that has come as far as this.
func failure(at feedtest.Point) error {
	if at == feedtest.AppendCommitted || at == feedtest.TrimDone {
		return fmt.Errorf("simulated: %w", feed.ErrUncertain)
	}
	return fmt.Errorf("simulated: %w", feed.ErrUnavailable)
}

// node is one run of one server process.
type node struct {
	name   string
	hub    *feed.Hub
	pub    *feed.Publisher
	tail   *tail
	dead   atomic.Bool // crashed: nothing that it still does is seen by anybody
	closed atomic.Bool // hub and publisher have been closed
	ending bool        // a regular end has begun

	mu   sync.Mutex
	gone map[string]uint64 // the events of a feed before the id were trimmed here
}

func (n *node) noteTrim(name string, before uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone[name] = max(n.gone[name], before)
}

func (n *node) trimmed(name string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone[name]
}

// startNode starts a node in the slot.
func (w *world) startNode(slot int) {
	w.runs++
	n := &node{name: fmt.Sprintf("n%d.%d", slot, w.runs), gone: make(map[string]uint64)}
	n.tail = &tail{world: w, node: n, broken: make(chan error)}
	var store feed.Keeper = w.store.Through(func(ctx context.Context, c feedtest.Call) error {
		return w.gate.pass(ctx, n, c.At, fmt.Sprint(strings.Join(c.Feeds, ","), " after ", c.After))
	})
	var bus feed.Bus = n.tail
	if w.plan.store != nil {
		store = w.plan.store(store)
	}
	if w.plan.bus != nil {
		bus = w.plan.bus(bus)
	}
	n.hub = feed.NewHub(store, bus, feed.HubOptions{Memory: 1, Logger: quiet})
	n.pub = feed.NewPublisher(store, n.hub, bus, feed.PublisherOptions{Logger: quiet})
	w.nodes[slot] = n
}

// endNode closes a node's parts in order. They end by themselves if the node
// has crashed; otherwise the scheduler has to let its calls go on.
func (w *world) endNode(n *node) {
	n.ending = true
	w.ending.Go(func() {
		n.pub.Close()
		n.hub.Close()
		n.closed.Store(true)
	})
}

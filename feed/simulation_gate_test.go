package feed_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

var errCrashed = errors.New("the node has crashed")

// point is a place in a call of the store or the bus where it is held up.
type point int

// An answer is true at one instant, between asked and answered. A call that is held up
// at answered brings an answer that may no longer be true.
const (
	appendAsked     point = iota // nothing is stored yet
	appendNumbered               // the same, but the feeds are locked
	appendCommitted              // stored, but not answered
	readAsked
	readAnswered
	boundsAsked
	boundsAnswered
	seekAsked
	seekAnswered
	listAsked
	trimAsked // no event is trimmed yet
	trimDone  // trimmed, but not answered
	sweepAsked
	tellAsked
	signalAsked
)

var pointNames = [...]string{
	"append asked", "append numbered", "append committed", "read asked", "read answered", "bounds asked", "bounds answered",
	"seek asked", "seek answered", "list asked", "trim asked", "trim done", "sweep asked", "tell asked", "signal asked",
}

func (p point) String() string { return pointNames[p] }

// ofStore reports whether it is a call of the store, and not of the bus.
func (p point) ofStore() bool { return p < tellAsked }

// unanswered reports whether the store has done nothing yet that a client can see.
func (p point) unanswered() bool {
	return p.ofStore() && p != appendCommitted && p != readAnswered && p != boundsAnswered && p != seekAnswered && p != trimDone
}

// call is a call that is held up. Equal ones go on together, as their order is not
// known.
type call struct {
	node  *node
	at    point
	feeds string
	after feed.ID
	again int // tells calls apart that have come here in different steps
}

func (c call) compare(d call) int {
	return cmp.Or(cmp.Compare(c.node.run, d.node.run), cmp.Compare(c.at, d.at), strings.Compare(c.feeds, d.feeds),
		cmp.Compare(c.after, d.after), cmp.Compare(c.again, d.again))
}

func (c call) String() string {
	return fmt.Sprint(c.node.name, " ", c.at, " ", c.feeds, " after ", c.after, strings.Repeat("'", c.again))
}

type parked struct {
	call
	step   int
	waits  []string // for these feeds, while others hold them
	answer chan error
}

// gate holds up every call that a node makes of the store or the bus, until
// the scheduler lets it go on.
type gate struct {
	mu     sync.Mutex
	step   int       // of the world
	parked []*parked // in the order of their calls
	open   bool      // calls are no longer held up
	faults []error
}

// pass returns when the scheduler lets the call go on, and why it fails if it does.
func (g *gate) pass(ctx context.Context, c call, waits ...string) error {
	if c.node.closed.Load() {
		g.fault(fmt.Errorf("%v after its hub and publisher were closed", c))
	}
	if c.node.dead.Load() {
		return errCrashed
	}
	g.mu.Lock()
	if g.open {
		g.mu.Unlock()
		return nil
	}
	p := &parked{call: c, step: g.step, waits: waits, answer: make(chan error, 1)}
	g.park(p)
	g.mu.Unlock()
	select {
	case err := <-p.answer:
		return err
	case <-ctx.Done():
		g.remove(func(q *parked) bool { return p == q })
		return ctx.Err()
	}
}

// park puts p in its place. A node begins one append after another, so their
// order is known, as is that of calls that have come here in different steps.
func (g *gate) park(p *parked) {
	ordered := p.at <= appendCommitted
	for {
		i, found := slices.BinarySearchFunc(g.parked, p.call, func(q *parked, c call) int { return q.compare(c) })
		if !found || !ordered && g.parked[i].step == p.step {
			g.parked = slices.Insert(g.parked, i, p)
			return
		}
		p.again++
	}
}

func (g *gate) fault(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faults = append(g.faults, err)
}

func (g *gate) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.step++
}

func (g *gate) now() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.step
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

// calls returns the calls that are held up and may go on, in order, each once.
func (g *gate) calls(free func(*parked) bool) []call {
	g.mu.Lock()
	defer g.mu.Unlock()
	calls := make([]call, 0, len(g.parked))
	for _, p := range g.parked {
		if n := len(calls); (n == 0 || calls[n-1] != p.call) && (free == nil || free(p)) {
			calls = append(calls, p.call)
		}
	}
	return calls
}

// release lets the calls that are equal to c go on, or fail.
func (g *gate) release(c call, err error) {
	for _, p := range g.remove(func(p *parked) bool { return p.call == c }) {
		p.answer <- err
	}
}

// crash ends every call of the node. To the node, none of them ever returns.
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
	for _, c := range g.calls(nil) {
		g.release(c, nil)
	}
}

// failure returns the error of a call that fails at this point.
func failure(at point) error {
	if at == appendCommitted || at == trimDone {
		return fmt.Errorf("simulated: %w", feed.ErrUncertain)
	}
	return fmt.Errorf("simulated: %w", feed.ErrUnavailable)
}

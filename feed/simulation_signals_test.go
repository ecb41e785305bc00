package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// signalTail is a tail that carries signals as well: in order, if at all.
type signalTail struct{ *tail }

func (t signalTail) Signal(ctx context.Context, payload []byte) error {
	w := t.world
	well := w.through.Load() != nil
	if !well && (bytes.Contains(payload, []byte(`"here"`)) || bytes.Contains(payload, []byte(`"gone"`))) {
		return nil // lost: only counts of subscribers need them, and those come when all is well
	}
	if err := w.gate.pass(ctx, call{node: t.node, at: signalAsked}); err != nil {
		return err
	}
	for _, n := range w.running() {
		n.tail.mu.Lock()
		hear := n.tail.hear
		if !well && n != t.node {
			n.tail.signals = append(n.tail.signals, payload)
		}
		n.tail.mu.Unlock()
		if well && hear != nil {
			hear(payload)
		}
	}
	return nil
}

func (t signalTail) Signals(ctx context.Context, receive func([]byte)) error {
	t.mu.Lock()
	t.hear = receive
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.hear = nil
	t.mu.Unlock()
	return nil
}

// signal lets the oldest signal that is on its way to a node arrive there, or
// be lost.
func (w *world) signal() bool {
	n := w.anyNode()
	if n == nil || w.busState != up {
		return false
	}
	n.tail.mu.Lock()
	hear, queued := n.tail.hear, n.tail.signals
	if len(queued) > 0 {
		n.tail.signals = slices.Delete(slices.Clone(queued), 0, 1)
	}
	n.tail.mu.Unlock()
	if hear == nil || len(queued) == 0 {
		return false
	}
	_, notes, _ := strings.Cut(string(queued[0]), "\n")
	if w.chance(20) {
		w.log("bus loses a signal to %s: %s", n.name, notes)
		return true
	}
	w.log("bus signals to %s: %s", n.name, notes)
	hear(queued[0])
	return true
}

// spoken holds the ephemeral events that were sent, by their data.
type spoken struct {
	mu     sync.Mutex
	drafts map[string]feed.Draft
}

// speak makes a node send an ephemeral event. A node sends one after another, so
// that their order is known.
func (w *world) speak() bool {
	n := w.anyNode()
	if n == nil || !w.plan.signals {
		return false
	}
	return w.speakOn(n, w.anyFeed())
}

func (w *world) speakOn(n *node, name string) bool {
	n.mu.Lock()
	if n.speaks {
		n.mu.Unlock()
		return false
	}
	n.speaks = true
	n.spoken++
	d := feed.Draft{Feed: name, Type: "typing", Data: n.name + "~" + strconv.Itoa(n.spoken)}
	n.mu.Unlock()
	w.spoken.mu.Lock()
	w.spoken.drafts[d.Data] = d
	w.spoken.mu.Unlock()
	w.log("%s sends %s to %s, ephemeral", n.name, d.Data, name)
	go func() {
		err := n.pub.PublishEphemeral(context.Background(), d)
		switch {
		case n.dead.Load():
		case errors.Is(err, feed.ErrClosed):
			w.checker.RefusedClosed(name)
		case err != nil && !expected(err):
			w.gate.fault(fmt.Errorf("send %s on %s: %w", d.Data, n.name, err))
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.speaks = false
	}()
	return true
}

// hear judges an ephemeral event: it was sent, to this feed, and the events of one
// node come in order, none twice.
func (c *conn) hear(p *part, d feed.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = make(map[string]int)
	}
	for _, e := range d.Events() {
		c.world.spoken.mu.Lock()
		draft, ok := c.world.spoken.drafts[e.Data]
		c.world.spoken.mu.Unlock()
		if !ok || e.Feed != p.feed || draft != (feed.Draft{Feed: e.Feed, Type: e.Type, Data: e.Data}) || e.ID != 0 {
			c.world.gate.fault(fmt.Errorf("%s: got the ephemeral event %v in %s, which was sent as %v", c.reader.name, e, p.feed, draft))
			continue
		}
		from, number, _ := strings.Cut(e.Data, "~")
		n, _ := strconv.Atoi(number)
		key := from + " " + p.feed
		if n <= c.seen[key] {
			c.world.gate.fault(fmt.Errorf("%s: got the ephemeral event %d of %s after %d", c.reader.name, n, from, c.seen[key]))
		}
		c.seen[key] = n
	}
}

// newest returns the number of the newest ephemeral event that has come from
// the node.
func (c *conn) newest(n *node, name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[n.name+" "+name]
}

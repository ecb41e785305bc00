package feed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// The demands on a healthy world.

// speakLive demands that an ephemeral event reaches everyone at once.
func (w *world) speakLive() {
	name, n := w.anyFeed(), w.anyNode()
	if !w.plan.signals || w.bounds(name).Closed || !w.speakOn(n, name) {
		return
	}
	w.settle()
	w.connected(name, func(r *reader, _ *part) {
		if got := r.conn.newest(n, name); got != n.spoken {
			w.gate.fault(fmt.Errorf("%s: has the ephemeral event %d of %s, want %d", r.name, got, n.name, n.spoken))
		}
	})
}

// counted demands that every node knows how many subscribers a feed has.
func (w *world) counted() {
	if !w.plan.signals {
		return
	}
	time.Sleep(2100 * time.Millisecond) // every node knows of the others
	w.settle()
	name, n, want := w.anyFeed(), w.anyNode(), 0
	w.connected(name, func(*reader, *part) { want++ })
	if got := n.hub.Subscribers(context.Background(), name); got != want {
		w.gate.fault(fmt.Errorf("%s counts %d subscribers of %s, there are %d", n.name, got, name, want))
	}
}

// rollLive demands that a store which is replaced by an older one is noticed, and
// that every reader ahead of it gets a gap.
func (w *world) rollLive() {
	name := w.anyFeed()
	b := w.bounds(name)
	if !w.plan.rollbacks || b.Closed || b.First > b.Last {
		return
	}
	last := w.batchEnd(name, b.First-1, b.First-1+feed.ID(w.rng.Uint64N(uint64(b.Last+1-b.First))))
	for _, n := range w.running() {
		w.readAll(n, name, b.Last) // the node may keep some of it
	}
	w.interrupt()
	w.rollTo(name, last)
	if w.chance(50) {
		w.regrow(name, b.Last)
	}
	end := w.bounds(name).Last
	for _, n := range w.running() {
		if r, _ := n.tail.state(); r != nil && w.chance(70) {
			r.Missed() // then the node need not wait for its next comparison
		} else {
			time.Sleep(1100 * time.Millisecond)
		}
	}
	time.Sleep(60 * time.Millisecond)
	w.settle()
	want := feed.Gap{After: b.Last, Resumes: end + 1, Reason: feed.Ahead}
	w.connected(name, func(r *reader, p *part) {
		// The bus may have brought the event behind the old end first.
		if got := p.ahead.Load(); got == nil || got.After < want.After || got.Resumes != want.Resumes {
			w.gate.fault(fmt.Errorf("%s: was told %v after a rollback of %s, want %v", r.name, got, name, want))
		}
	})
	if w.fault() == nil {
		w.live()
	}
	for _, n := range w.running() {
		w.readAll(n, name, last)
	}
}

// readAll demands that a subscriber that starts with the oldest event on a node gets
// every event, and those after the id as they are stored now: not from before a rollback.
func (w *world) readAll(n *node, name string, after feed.ID) {
	stored := w.store.History(name)
	s, err := n.hub.Subscribe(context.Background(), name, feed.FromStart())
	if err != nil {
		w.gate.fault(fmt.Errorf("subscribe when all is well: %w", err))
		return
	}
	defer s.Close()
	var got []feed.Event
	for s.Cursor() < stored.Last {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		d, err := s.Next(ctx, nil)
		cancel()
		if err != nil {
			w.gate.fault(fmt.Errorf("read all of %s on %s: at %d of %d comes %w", name, n.name, s.Cursor(), stored.Last, err))
			return
		}
		got = append(got, d.Events()...)
	}
	for i, e := range stored.Events {
		if i >= len(got) || got[i].ID != e.ID || e.ID > after && got[i] != e {
			w.gate.fault(fmt.Errorf("read all of %s on %s: got other events than those stored, from %d on", name, n.name, e.ID))
			return
		}
	}
}

// trimLive demands that a trim on one node takes effect there at once, and everywhere two
// seconds later.
func (w *world) trimLive() {
	name, n := w.anyFeed(), w.anyNode()
	b := w.bounds(name)
	if !w.plan.trims || b.First >= b.Last {
		return
	}
	before := b.First + 1
	w.log("%s is trimmed before %d on %s", name, before, n.name)
	w.checker.Trimming(name, before)
	w.trimOn(n, name, before)
	w.gapBefore(n, name, before)
	w.settle()
	if !w.plan.signals { // the others do not know of it yet
		time.Sleep(2 * time.Second)
	}
	for _, other := range w.running() {
		w.gapBefore(other, name, before)
	}
}

// gapBefore demands that a subscriber that comes to a node with cursor 0 meets this gap.
func (w *world) gapBefore(n *node, name string, before feed.ID) {
	s, err := n.hub.Subscribe(context.Background(), name, feed.FromCursor(0))
	if err != nil {
		w.gate.fault(fmt.Errorf("subscribe when all is well: %w", err))
		return
	}
	defer s.Close()
	d, err := s.Next(context.Background(), nil)
	if err != nil || d.Gap == nil || *d.Gap != (feed.Gap{Resumes: before, Reason: feed.Trimmed}) {
		w.gate.fault(fmt.Errorf("after 0 of %s on %s comes %v, %v, want a gap up to %d", name, n.name, d.Gap, err, before))
	}
}

// closeLive demands that a close reaches subscribers of its node at once, and the others
// when their hubs next ask the store.
func (w *world) closeLive() {
	name, n := w.anyFeed(), w.anyNode()
	if !w.plan.closes || w.bounds(name).Closed {
		return
	}
	wr := &writer{name: "closer"}
	b := feed.Publication{Feed: name, Close: true}
	if w.chance(50) {
		b.Drafts = append(b.Drafts, w.draft(wr, name))
	}
	w.log("%s closes %v on %s", wr.name, described(b), n.name)
	var here, all []*part
	w.connected(name, func(r *reader, p *part) {
		if all = append(all, p); r.conn.node == n {
			here = append(here, p)
		}
	})
	w.publish(wr, n, b)
	w.settle()
	w.told(here, "at once")
	if w.plan.signals {
		w.told(all, "by a signal")
	}
	time.Sleep(1100 * time.Millisecond)
	w.settle()
	w.told(all, "when the store was asked")
}

func (w *world) told(parts []*part, when string) {
	for i, p := range parts {
		if !p.follower.Closed() {
			w.gate.fault(fmt.Errorf("reader %d of %d was not told %s that %s is closed", i, len(parts), when, p.feed))
		}
	}
}

package feed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// recover heals the world and demands that everything arrives within the bound.
func (w *world) recover() {
	w.log("all is well again")
	w.storeState, w.busState = up, up
	w.locks.release()
	w.emptyBus()
	w.gate.heal()
	w.settle()
	for w.start() {
	}
	for _, r := range w.readers {
		if r.conn != nil {
			r.conn.halt(false)
		}
	}
	w.settle()
	w.reopenAll()
	time.Sleep(1100 * time.Millisecond)
	w.settle()
	if w.plan.rollbacks {
		// Until then, a feed may look closed on a node that is open again, or is closed
		// at another end.
		w.cutMistaken()
		w.reopenAll()
	}
	time.Sleep(900 * time.Millisecond)
	w.settle()
	w.arrived("within 2 seconds of healing")
	w.retained()
	for range 1 + w.rng.IntN(2) {
		w.live()
	}
	for _, check := range []func(){w.exact, w.speakLive, w.counted, w.rollLive, w.trimLive, w.closeLive} {
		if w.fault() == nil && w.chance(50) {
			check()
		}
	}
	for _, name := range w.feeds {
		w.compare(name)
	}
}

func (w *world) reopenAll() {
	for _, r := range w.readers {
		if r.conn == nil {
			w.reopen(r)
		}
	}
}

// cutMistaken cuts off readers that saw the end of a feed which is not closed, or is
// closed elsewhere.
func (w *world) cutMistaken() {
	for _, r := range w.readers {
		for _, p := range r.parts {
			b := w.bounds(p.feed)
			mistaken := !b.Closed || p.follower.Cursor() != b.Last
			if r.conn != nil && p.follower.Closed() && mistaken {
				r.conn.cancel()
			}
		}
	}
	w.settle()
}

func (w *world) reopen(r *reader) {
	starts := make([]start, len(r.parts))
	for i, p := range r.parts {
		starts[i].from = feed.FromStart()
		if r.opened.Load() {
			starts[i].from = feed.FromCursor(p.follower.Cursor())
			p.follower.Resume(p.follower.Cursor())
		}
	}
	w.connect(r, w.anyNode(), starts)
}

// connected calls fn for each connected reader of the feed.
func (w *world) connected(name string, fn func(*reader, *part)) {
	for _, r := range w.readers {
		if p := r.follows(name); p != nil && r.conn != nil {
			fn(r, p)
		}
	}
}

// arrived demands that every reader is at the end of its feeds.
func (w *world) arrived(when string) {
	for _, r := range w.readers {
		if !r.opened.Load() || r.conn == nil && !r.done() {
			w.gate.fault(fmt.Errorf("%s: is not connected %s", r.name, when))
			continue
		}
		for _, p := range r.parts {
			b, at := w.bounds(p.feed), p.follower.Cursor()
			switch {
			case at != b.Last:
				w.gate.fault(fmt.Errorf("%s: is at %d of %d in %s %s", r.name, at, b.Last, p.feed, when))
			case p.follower.Closed() != b.Closed:
				w.gate.fault(fmt.Errorf("%s: was told that %s is closed: %t, %s", r.name, p.feed, !b.Closed, when))
			}
		}
	}
}

// retained demands that the retention has done its work, and ends it.
func (w *world) retained() {
	if !w.plan.retention || w.fault() != nil {
		return
	}
	time.Sleep(retainEvery + 100*time.Millisecond)
	w.settle()
	rule := w.plan.retain
	for _, name := range w.feeds {
		p := w.store.History(name)
		if rule.Events > 0 && uint64(len(p.Events)) > rule.Events {
			w.gate.fault(fmt.Errorf("%s keeps %d events, the rule says %d", name, len(p.Events), rule.Events))
		}
		for _, e := range p.Events {
			if rule.Age > 0 && time.Since(e.Time) > rule.Age+2*retainEvery {
				w.gate.fault(fmt.Errorf("event %d of %s is kept, and %v old", e.ID, name, time.Since(e.Time)))
				break
			}
		}
	}
	for _, n := range w.running() {
		n.retention.Close()
	}
	time.Sleep(1100 * time.Millisecond) // every node has noticed
	w.settle()
}

// live demands that with nothing broken, events reach everyone at once; and
// that with a dead bus they reach those on their own node at once, and the
// others when the store is next asked.
func (w *world) live() {
	c := carriers[w.rng.IntN(len(carriers))]
	w.through.Store(&c)
	name, n := w.anyFeed(), w.anyNode()
	if w.fault() != nil || w.bounds(name).Closed {
		return
	}
	wr := &writer{name: fmt.Sprint("last", len(w.trace))}
	time.Sleep(feed.TellEvery) // since the bus was last told
	w.settle()
	var drafts []feed.Draft
	for range 1 + w.rng.IntN(3)*w.rng.IntN(20) {
		drafts = append(drafts, w.draft(wr, name))
	}
	w.log("%d events for %s on %s, the bus %s", len(drafts), name, n.name, c.name)
	w.publish(wr, n, feed.Publication{Feed: name, Drafts: drafts})
	w.settle()
	time.Sleep(c.within)
	w.settle()
	w.connected(name, func(r *reader, p *part) {
		if c.hand == nil && r.conn.node != n {
			return
		}
		if got, last := p.follower.Cursor(), w.bounds(name).Last; got != last {
			w.gate.fault(fmt.Errorf("%s: is at %d of %d at once after a publish", r.name, got, last))
		}
	})
	if c.hand == nil {
		time.Sleep(1100 * time.Millisecond)
		w.settle()
	}
	w.arrived("after the last publishes")
}

// exact demands the exact cursor of each kind of start, now that all is quiet.
func (w *world) exact() {
	name, n := w.anyFeed(), w.anyNode()
	b := w.bounds(name)
	at := w.began.Add(time.Duration(w.rng.Int64N(int64(time.Since(w.began)))))
	sought, _ := w.store.Seek(context.Background(), name, at)
	newest := uint64(w.rng.IntN(6))
	for _, c := range []struct {
		from feed.From
		want feed.ID
	}{
		{feed.From{}, b.Last},
		{feed.FromStart(), b.First - 1},
		{feed.FromNewest(newest), max(b.First-1, b.Last-min(b.Last, feed.ID(newest)))},
		{feed.FromTime(at), sought},
	} {
		s, err := n.hub.Subscribe(context.Background(), name, c.from)
		if err != nil {
			w.gate.fault(fmt.Errorf("subscribe when all is well: %w", err))
			continue
		}
		if s.Cursor() != c.want || s.Bounds() != b {
			w.gate.fault(fmt.Errorf("%v of %s starts at %d, want %d; bounds %v, want %v", c.from, name, s.Cursor(), c.want, s.Bounds(), b))
		}
		s.Close()
	}
}

// compare compares a feed with everything that was promised about it.
func (w *world) compare(name string) {
	p := w.store.History(name)
	w.checker.End(name, p)
	w.refusedMu.Lock()
	defer w.refusedMu.Unlock()
	for _, e := range p.Events {
		if err := w.refused[e.Data]; err != nil {
			w.gate.fault(fmt.Errorf("event %d of %s is stored, its publish was refused: %w", e.ID, name, err))
		}
	}
}

// shutdown ends every node. The bubble sees to it that no goroutine is left.
func (w *world) shutdown() {
	w.gate.heal()
	for _, n := range w.running() {
		w.endNode(n)
	}
	w.ending.Wait()
	w.settle()
	for _, r := range w.readers {
		if r.conn != nil {
			w.gate.fault(fmt.Errorf("%s: has a subscription to a closed hub", r.name))
			r.conn.cancel()
		}
	}
}

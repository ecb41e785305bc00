package feed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Faults of the store and the bus as a whole.

// anyState returns another state than now.
func (w *world) anyState(now state) state {
	if now != up {
		return up
	}
	return down + state(w.rng.IntN(2))
}

func (w *world) storeOutage() bool {
	w.storeState = w.anyState(w.storeState)
	w.log("store is %v", w.storeState)
	return true
}

func (w *world) busOutage() bool {
	w.busState = w.anyState(w.busState)
	w.log("bus is %v", w.busState)
	return true
}

// lock makes a foreign transaction hold a feed, and append to it.
func (w *world) lock() bool {
	name := w.anyFeed()
	if !w.plan.locks || w.locks.holder(name) != nil {
		return false
	}
	tx := &lock{}
	wr := &writer{name: fmt.Sprint("tx", len(w.trace))}
	for range w.rng.IntN(3) {
		tx.drafts = append(tx.drafts, w.draft(wr, name))
	}
	w.locks.take(feed.Batch{Feed: name}, tx)
	w.log("a transaction holds %s, with %d events", name, len(tx.drafts))
	return true
}

// unlock ends a foreign transaction, or that of a node which has crashed. It commits or
// not, and may notify some node.
func (w *world) unlock() bool {
	name := w.anyFeed()
	tx := w.locks.holder(name)
	if tx == nil || tx.node != nil {
		return false
	}
	w.locks.leave(tx)
	if len(tx.drafts) == 0 || w.chance(25) {
		w.log("the transaction that holds %s has ended without a commit", name)
		return true
	}
	results, _ := w.store.Append(context.Background(), []feed.Batch{{Feed: name, Drafts: tx.drafts}})
	events := results[0].Events
	w.log("the transaction that holds %s commits %d events: %v", name, len(events), results[0].Err)
	if n := w.anyNode(); n != nil && w.chance(50) && len(events) > 0 {
		if r, _ := n.tail.state(); r != nil {
			w.log("%s is told of %d", n.name, events[len(events)-1].ID)
			r.Grew(name, events[len(events)-1].ID)
		}
	}
	return true
}

// interrupt ends every call of the store, before another store replaces it. A page
// that was read may still be on its way to a node.
func (w *world) interrupt() {
	for _, c := range w.gate.calls(func(p *parked) bool { return p.at.ofStore() }) {
		if c.at == readAnswered && w.chance(50) {
			continue
		}
		w.gate.release(c, failure(c.at))
		w.settle()
	}
	for _, name := range w.feeds {
		if tx := w.locks.holder(name); tx != nil {
			w.locks.leave(tx)
		}
	}
	w.emptyBus()
	time.Sleep(2 * time.Millisecond) // events of different histories have different times
	w.store.NewEpoch()
}

// rollback replaces one feed by its state between two earlier batches. Clients of the
// newer state lose their connections, and the bus loses its events.
func (w *world) rollback() bool {
	if !w.plan.rollbacks {
		return false
	}
	name := w.anyFeed()
	b := w.bounds(name)
	if b.First > b.Last && !b.Closed {
		return false
	}
	span := b.Last + 1 - b.First
	if b.Closed {
		span++ // the close alone may be undone
	}
	w.interrupt()
	w.rollTo(name, w.batchEnd(name, b.First-1, b.First-1+feed.ID(w.rng.Uint64N(uint64(span)))))
	if w.chance(60) {
		w.regrow(name, b.Last)
	}
	return true
}

// regrow lets a foreign transaction append to a feed that was rolled back, in one commit,
// until it is at least as long as it was. The bus may report that.
func (w *world) regrow(name string, before feed.ID) {
	wr := &writer{name: fmt.Sprint("again", len(w.trace))}
	last := w.bounds(name).Last
	var drafts []feed.Draft
	for range before - min(before, last) + feed.ID(w.rng.IntN(4)) {
		drafts = append(drafts, w.draft(wr, name))
	}
	if len(drafts) == 0 {
		return
	}
	results, _ := w.store.Append(context.Background(), []feed.Batch{{Feed: name, Drafts: drafts}})
	events := results[0].Events
	if len(events) == 0 {
		return // it is closed
	}
	w.log("%s grows again, from %d to %d", name, last, events[len(events)-1].ID)
	if w.chance(50) {
		w.carry(events)
	}
}

func (w *world) rollTo(name string, last feed.ID) {
	w.log("%s is rolled back to %d of %d", name, last, w.bounds(name).Last)
	w.checker.RolledBack(name, last)
	w.store.Rollback(name, last)
	// Nodes and readers that have more of the feed are in another history now.
	for i, c := range w.copies {
		if b := c.Bounds(name); b.Last > last || b.Closed {
			w.copies = w.copies[:i]
			break
		}
	}
}

// copyStore keeps a copy of the store as it is.
func (w *world) copyStore() bool {
	if !w.plan.rollbacks {
		return false
	}
	w.copies = append(w.copies, w.store.Copy())
	w.log("a copy of the store is made")
	return true
}

// replaceStore puts an older copy of all feeds in the place of the store. The copy
// still has what was trimmed since.
func (w *world) replaceStore() bool {
	if len(w.copies) == 0 {
		return false
	}
	i := w.rng.IntN(len(w.copies))
	c := w.copies[i]
	w.copies = w.copies[:i+1]
	w.interrupt()
	w.replaced.Add(1)
	for _, n := range w.running() {
		n.untrim()
	}
	ends := make(map[string]feed.ID)
	for _, name := range w.feeds {
		now, then := w.bounds(name), c.Bounds(name)
		w.log("a copy is put in place: %s goes from %v to %v", name, now, then)
		if then.Last < now.Last || then.Closed != now.Closed {
			w.batchEnd(name, 0, then.Last)
			w.checker.RolledBack(name, then.Last)
		} else if then.First < now.First {
			w.checker.Untrimmed(name)
		}
		ends[name] = now.Last
	}
	w.store.Replace(c)
	for _, name := range w.feeds {
		if w.chance(40) {
			w.regrow(name, ends[name])
		}
	}
	return true
}

// batchEnd returns where the newest batch ends that is not newer than last, or
// oldest if that is later. It forgets the batches behind that.
func (w *world) batchEnd(name string, oldest, last feed.ID) feed.ID {
	w.batchesMu.Lock()
	defer w.batchesMu.Unlock()
	ends := w.batches[name]
	for len(ends) > 0 && ends[len(ends)-1] > last {
		ends = ends[:len(ends)-1]
	}
	w.batches[name] = ends
	if len(ends) == 0 {
		return oldest
	}
	return max(oldest, ends[len(ends)-1])
}

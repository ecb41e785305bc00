package feed_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// steps are what can happen, and how likely each is. A step that can't happen
// now returns false.
var steps = []struct {
	weight int
	do     func(*world) bool
}{
	{400, (*world).release},
	{140, (*world).deliver},
	{100, (*world).write},
	{80, (*world).open},
	{30, (*world).cut},
	{50, (*world).stall},
	{80, (*world).read},
	{60, (*world).pass},
	{25, (*world).start},
	{12, (*world).crash},
	{6, (*world).end},
	{20, (*world).trim},
	{15, (*world).lie},
	{8, (*world).missed},
	{4, (*world).loseAll},
	{10, (*world).storeOutage},
	{10, (*world).busOutage},
	{10, (*world).withdraw},
	{12, (*world).rollback},
	{40, (*world).repeat},
}

var stepWeights = func() (sum int) {
	for _, s := range steps {
		sum += s.weight
	}
	return sum
}()

// act makes one step.
func (w *world) act() {
	for {
		n := w.rng.IntN(stepWeights)
		i := 0
		for n >= steps[i].weight {
			n -= steps[i].weight
			i++
		}
		if steps[i].do(w) {
			return
		}
	}
}

// release lets a call that is held up go on, or fail.
func (w *world) release() bool {
	keys := w.gate.keys()
	if len(keys) == 0 || w.plan.slow && w.chance(75) {
		return false
	}
	key := keys[w.rng.IntN(len(keys))]
	at := w.gate.at(key)
	err := w.outcome(at)
	w.log("%s: %v", key, err)
	w.gate.release(key, err)
	return true
}

// outcome decides what becomes of a call that is held up there.
func (w *world) outcome(at feedtest.Point) error {
	asked := at == feedtest.AppendAsked || at == feedtest.ReadAsked || at == feedtest.BoundsAsked || at == feedtest.SeekAsked ||
		at == feedtest.TrimAsked
	switch {
	case at == tellAsked && w.busDown, asked && w.storeDown:
		return failure(at)
	case !w.chance(w.plan.faults):
		return nil
	case at == feedtest.AppendAsked && w.chance(50):
		return fmt.Errorf("simulated: %w", feed.ErrUncertain)
	}
	return failure(at)
}

func (w *world) write() bool {
	n := w.anyNode()
	wr := w.writers[w.rng.IntN(len(w.writers))]
	if n == nil || wr.isBusy() {
		return false
	}
	many := 1
	if w.chance(30) {
		many += w.rng.IntN(4)
	}
	b := w.batch(wr, w.anyFeed(), many)
	w.log("%s publishes %s on %s", wr.name, describe(b), n.name)
	w.publish(wr, n, b)
	return true
}

func describe(b feed.Batch) string {
	s := fmt.Sprintf("%d to %s", len(b.Drafts), b.Feed)
	if b.Key != nil {
		s += " as " + b.Key.Name
	}
	if b.IfLast != nil {
		s += fmt.Sprint(" if ", *b.IfLast, " is the last")
	}
	if b.Close {
		s += " and closes it"
	}
	return s
}

// repeat has a writer publish once more what it has published with a key,
// whatever became of that.
func (w *world) repeat() bool {
	n := w.anyNode()
	wr := w.writers[w.rng.IntN(len(w.writers))]
	if n == nil || wr.isBusy() || wr.keyed == nil {
		return false
	}
	w.log("%s repeats %s on %s", wr.name, describe(*wr.keyed), n.name)
	w.publish(wr, n, *wr.keyed)
	return true
}

func (w *world) withdraw() bool {
	wr := w.writers[w.rng.IntN(len(w.writers))]
	if !wr.isBusy() {
		return false
	}
	w.log("%s gives up", wr.name)
	wr.cancel()
	return true
}

// anyReader returns a reader that is connected, or one that is not.
func (w *world) anyReader(connected bool) *reader {
	r := w.readers[w.rng.IntN(len(w.readers))]
	if (r.conn != nil) != connected {
		return nil
	}
	return r
}

func (w *world) open() bool {
	n, r := w.anyNode(), w.anyReader(false)
	if n == nil || r == nil {
		return false
	}
	if !r.opened.Load() {
		from, upper := w.from(r.feed)
		w.log("%s follows %s on %s: %v", r.name, r.feed, n.name, from)
		w.connect(r, n, from, upper)
		return true
	}
	if w.chance(30) {
		n = w.answering(r.feed, n)
	}
	c := r.follower.Cursor()
	if w.chance(15) { // what it was sent last has not reached it
		c -= min(c, feed.Cursor(w.rng.IntN(4)))
	}
	r.follower.Resume(c)
	w.log("%s comes back to %s on %s with %d", r.name, r.feed, n.name, c)
	w.connect(r, n, feed.After(c), nil)
	return true
}

// answering returns a node that the store has told the bounds of the feed, but
// that has yet to hear them; instead if there is none. Who comes there brings
// what that answer may not know.
func (w *world) answering(name string, instead *node) *node {
	for _, key := range w.gate.keys() {
		for _, n := range w.alive() {
			if key == n.name+" "+string(feedtest.BoundsAnswered)+" "+name+" after 0" {
				return n
			}
		}
	}
	return instead
}

func (w *world) cut() bool {
	r := w.anyReader(true)
	if r == nil {
		return false
	}
	w.log("%s is cut off", r.name)
	r.conn.cancel()
	return true
}

func (w *world) stall() bool {
	r := w.anyReader(true)
	if r == nil {
		return false
	}
	if opened, _, stalled, _ := r.conn.state(); !opened || stalled {
		return false
	}
	w.log("%s stalls", r.name)
	r.conn.halt(true)
	return true
}

// read lets a stalled reader read once.
func (w *world) read() bool {
	r := w.anyReader(true)
	if r == nil {
		return false
	}
	select {
	case r.conn.permit <- struct{}{}:
		w.log("%s reads", r.name)
		return true
	default: // not stalled, or it has yet to get what it reads
		return false
	}
}

// pass lets time pass: from a millisecond to half a minute.
func (w *world) pass() bool {
	d := time.Millisecond << w.rng.IntN(15)
	d += time.Duration(w.rng.Int64N(int64(d)))
	w.log("time passes: %v", d)
	time.Sleep(d)
	return true
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
	w.log("%s crashes", n.name)
	w.nodes[slot] = nil
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
	w.nodes[slot] = nil
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
	before := b.First + 1 + w.rng.Uint64N(b.Last-b.First+1)
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

// trimOn trims a feed on a node, whose subscribers get nothing of it any more
// from then on.
func (w *world) trimOn(n *node, name string, before uint64) {
	err := w.plan.trim(w, n, name, before)
	switch {
	case n.dead.Load():
	case err == nil:
		n.noteTrim(name, before)
	case !expected(err) && !errors.Is(err, feed.ErrUncertain):
		w.gate.fault(fmt.Errorf("trim %s on %s: %w", name, n.name, err))
	}
}

// rollback puts an older store in place, of a moment between two batches. Whoever is connected to the present
// one loses that connection, and nothing of it is left on the bus.
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
	last := w.batchEnd(name, b.First-1, b.First-1+w.rng.Uint64N(span))
	w.log("%s is rolled back to %d of %d", name, last, b.Last)
	for _, key := range w.gate.keys() {
		if at := w.gate.at(key); at != "" && at != tellAsked {
			w.gate.release(key, failure(at))
			w.settle()
		}
	}
	w.emptyBus()
	w.checker.RolledBack(name, last)
	w.store.Rollback(name, last)
	return true
}

// batchEnd returns where the newest batch ends that is not newer than last, or
// oldest if that is later. What came behind it is forgotten.
func (w *world) batchEnd(name string, oldest, last uint64) uint64 {
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

func (w *world) storeOutage() bool {
	w.storeDown = !w.storeDown
	w.log("store is down: %t", w.storeDown)
	return true
}

func (w *world) busOutage() bool {
	w.busDown = !w.busDown
	w.log("bus is down: %t", w.busDown)
	return true
}

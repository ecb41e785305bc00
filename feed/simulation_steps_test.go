package feed_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// steps are the possible steps, and how likely each is. A step that can't happen
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
	{25, (*world).lie},
	{8, (*world).missed},
	{4, (*world).loseAll},
	{12, (*world).storeOutage},
	{12, (*world).busOutage},
	{10, (*world).withdraw},
	{10, (*world).rollback},
	{10, (*world).copyStore},
	{8, (*world).replaceStore},
	{40, (*world).repeat},
	{15, (*world).lock},
	{20, (*world).unlock},
	{30, (*world).speak},
	{40, (*world).signal},
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
	if w.plan.slow && w.chance(75) {
		return false
	}
	calls := w.gate.calls(func(p *parked) bool {
		state := w.busState
		if p.at.ofStore() {
			state = w.storeState
		}
		return state != frozen && (len(p.waits) == 0 || w.locks.free(p.waits))
	})
	if len(calls) == 0 {
		return false
	}
	c := calls[w.rng.IntN(len(calls))]
	err := w.outcome(c.at)
	w.log("%v: %v", c, err)
	w.gate.release(c, err)
	return true
}

// outcome decides how a call that is held up there goes on.
func (w *world) outcome(at point) error {
	switch {
	case !at.ofStore() && w.busState == down, at.unanswered() && w.storeState == down:
		return failure(at)
	case !w.chance(w.plan.faults):
		return nil
	case at <= appendNumbered && w.chance(50):
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
	w.log("%s publishes %v on %s", wr.name, described(b), n.name)
	w.publish(wr, n, b)
	return true
}

// described is a publication in words.
type described feed.Publication

func (b described) String() string {
	s := fmt.Sprintf("%d to %s", len(b.Drafts), b.Feed)
	if b.Key != "" {
		s += " as " + b.Key
	}
	if b.IfLast != nil {
		s += fmt.Sprint(" if ", *b.IfLast, " is the last")
	}
	if b.Close {
		s += " and closes it"
	}
	return s
}

// repeat makes a writer publish once more the batch that it has published with a key,
// whatever its outcome was.
func (w *world) repeat() bool {
	n := w.anyNode()
	wr := w.writers[w.rng.IntN(len(w.writers))]
	if n == nil || wr.isBusy() || wr.keyed == nil {
		return false
	}
	w.log("%s repeats %v on %s", wr.name, described(*wr.keyed), n.name)
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
		starts := w.starts(r)
		w.log("%s follows %v on %s: %v", r.name, r.feeds(), n.name, starts)
		w.connect(r, n, starts)
		return true
	}
	if w.chance(60) {
		n = w.answering(r.parts[0].feed, n)
	}
	starts := make([]start, len(r.parts))
	for i, p := range r.parts {
		c := p.follower.Cursor()
		if w.chance(15) { // the last delivery has not reached it
			c -= min(c, feed.ID(w.rng.IntN(4)))
		}
		p.follower.Resume(c)
		starts[i].from = feed.FromCursor(c)
	}
	w.log("%s comes back to %v on %s: %v", r.name, r.feeds(), n.name, starts)
	w.connect(r, n, starts)
	return true
}

// answering returns a node to which an answer with the bounds of the feed is on its way;
// instead if there is none. A reader that comes there may bring a cursor that is newer
// than that answer.
func (w *world) answering(name string, instead *node) *node {
	for _, c := range w.gate.calls(nil) {
		if c.at == boundsAnswered && c.feeds == name && slices.Contains(w.running(), c.node) {
			return c.node
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

// read lets a stalled reader read once. A reader of a group reads all that there is:
// which feed a single read returns depends on which was first in a step.
func (w *world) read() bool {
	r := w.anyReader(true)
	if r == nil {
		return false
	}
	if _, _, stalled, _ := r.conn.state(); !stalled {
		return false
	}
	if r.group {
		w.log("%s reads all", r.name)
		r.conn.halt(false)
		w.settle()
		if r.conn != nil {
			r.conn.halt(true)
		}
		return true
	}
	select {
	case r.conn.permit <- struct{}{}:
		w.log("%s reads", r.name)
		return true
	default: // it has yet to get its delivery
		return false
	}
}

// pass lets time pass: from a millisecond to a quarter of a minute.
func (w *world) pass() bool {
	d := time.Millisecond << w.rng.IntN(14)
	d += time.Duration(w.rng.Int64N(int64(d)))
	w.log("time passes: %v", d)
	time.Sleep(d)
	return true
}

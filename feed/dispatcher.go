package feed

import (
	"sync"
	"sync/atomic"
	"time"
)

// Notifier learns that a [Subscriber] of a [Dispatcher] may have something to read.
type Notifier interface {
	// Notify reports that Poll of the subscriber may return something. Only the
	// dispatcher's Step calls it, so calls never overlap. It may be called without
	// need, before SubscribeAll has returned, and for some time after the
	// subscriber was closed. It does not block.
	Notify()
}

// stepSubscribers is how many subscribers of one feed a step notifies: those of other
// feeds wait no longer than that for a feed that has very many.
const stepSubscribers = 64

// A step takes about stepTime, of which the subscribers of one feed get passTime.
const (
	stepTime = 4 * time.Millisecond
	passTime = time.Millisecond
)

// Dispatcher notifies many subscribers, one after the other, on the goroutine that
// calls Step. It takes the place of a goroutine for each: a subscriber that waits costs
// nothing but its memory, and an event that reaches thousands wakes one goroutine.
//
// Step is for one goroutine. Any goroutine may call the other methods.
type Dispatcher struct {
	hub  *Hub
	more chan struct{}

	mu    sync.Mutex
	grown []*audience   // whose log has something new
	ready []*Subscriber // that have something new of their own

	backlog atomic.Int64 // subscribers that wait for a later step

	// Only Step uses these.
	passes []*audience
	left   int // subscribers that the passes have yet to notify
	queue  []*Subscriber
	chunk  [stepSubscribers]*Subscription
}

// NewDispatcher returns a dispatcher for subscribers of the hub. As long as it has any,
// its owner calls Step whenever C has a token.
func (h *Hub) NewDispatcher() *Dispatcher {
	d := &Dispatcher{hub: h, more: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dispatchers = append(h.dispatchers, d)
	return d
}

// C gets a token when there is something for Step to do.
func (d *Dispatcher) C() <-chan struct{} { return d.more }

// Step notifies subscribers that may have something to read, some of each feed, and
// reports whether there are more of them.
func (d *Dispatcher) Step() (more bool) {
	d.mu.Lock()
	for i, a := range d.grown {
		a.queued = false
		if a.again = true; !a.passing {
			a.passing = true
			d.passes = append(d.passes, a)
		}
		d.grown[i] = nil
	}
	d.grown = d.grown[:0]
	d.queue = append(d.queue, d.ready...)
	clear(d.ready)
	d.ready = d.ready[:0]
	d.mu.Unlock()

	began := time.Now()
	for n := len(d.passes); n > 0 && time.Since(began) < stepTime; n-- {
		a := d.passes[0]
		d.passes[0], d.passes = nil, d.passes[1:]
		if d.pass(a) {
			d.passes = append(d.passes, a) // its next turn comes after those of the others
		}
	}

	n := 0
	for began = time.Now(); n < min(len(d.queue), stepSubscribers) && time.Since(began) < passTime; n++ {
		s := d.queue[n]
		s.queued.Store(false)
		s.notifier.Notify()
	}
	clear(d.queue[:n])
	if d.queue = d.queue[n:]; len(d.queue) == 0 {
		d.queue = nil
	}
	d.backlog.Store(int64(d.left + len(d.queue)))
	return len(d.passes)+len(d.queue) > 0
}

// pass notifies the next subscribers of a log, from the last to the first, and reports
// whether there are more. If the log grows during a pass, those that are yet to come
// read that in this pass, and the others in another one.
func (d *Dispatcher) pass(a *audience) (more bool) {
	before := a.remaining
	a.log.subsMu.Lock()
	if a.remaining == 0 {
		a.remaining, a.again = len(a.subs), false
	}
	// Some may have left meanwhile. In the place of each is now the last one, which
	// this pass has notified already, or none.
	a.remaining = min(a.remaining, len(a.subs))
	n := min(a.remaining, stepSubscribers)
	copy(d.chunk[:n], a.subs[a.remaining-n:a.remaining])
	a.remaining -= n
	a.log.subsMu.Unlock()

	began := time.Now()
	for i := n - 1; i >= 0; i-- {
		s := d.chunk[i]
		s.setPending()
		s.subscriber.notifier.Notify()
		if i%8 == 0 && time.Since(began) >= passTime {
			a.remaining += i // in the next turn
			break
		}
	}
	clear(d.chunk[:n])
	d.left += a.remaining - before
	a.passing = a.remaining > 0 || a.again
	return a.passing
}

// addGrown queues the subscribers of a log that has something new. The caller holds the
// log's subsMu.
func (d *Dispatcher) addGrown(a *audience) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !a.queued {
		a.queued = true
		d.grown = append(d.grown, a)
		poke(d.more)
	}
}

// addReady queues one subscriber.
func (d *Dispatcher) addReady(s *Subscriber) {
	if s.queued.Swap(true) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = append(d.ready, s)
	poke(d.more)
}

// waiting returns about how many subscribers wait to be notified. A feed whose
// subscribers are all yet to be notified counts as one.
func (d *Dispatcher) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int(d.backlog.Load()) + len(d.grown) + len(d.ready)
}

// dispatchLoop steps through the dispatcher of those subscribers that wait on
// goroutines of their own.
func (h *Hub) dispatchLoop() {
	for {
		if h.dispatcher.Step() {
			continue
		}
		select {
		case <-h.dispatcher.more:
		case <-h.ctx.Done():
			return
		}
	}
}

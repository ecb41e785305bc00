package feed

import (
	"sync"
	"time"
)

// Notifier reads a group that is on a [Dispatcher].
type Notifier interface {
	// Notify says that Poll of the group may have something. It is called by
	// the lane's Step alone, so never twice at one time, also without need, and
	// from before SubscribeAll has returned until some time after the group was
	// closed. It does not block.
	Notify()
}

// stepReaders is how many readers of one feed a step calls: those of other
// feeds wait no longer than that for a feed that has very many.
const stepSubscribers = 64

// stepTime is about how long a step takes, and passTime how much of that the readers
// of one feed do.
const (
	stepTime = 4 * time.Millisecond
	passTime = time.Millisecond
)

// Dispatcher is a place where the readers of many groups are called, one after the
// other, by whoever calls Step. It takes the place of a goroutine for each: a
// subscriber that waits costs nothing but its memory, and an event that reaches
// thousands wakes one goroutine.
//
// Step is for one goroutine; all else may be called by any.
type Dispatcher struct {
	hub  *Hub
	more chan struct{}

	mu    sync.Mutex
	grown []*audience   // with something new in their log
	ready []*Subscriber // with something new of their own

	// Of Step alone.
	passes []*audience
	queue  []*Subscriber
	chunk  [stepSubscribers]*Subscription
}

// NewDispatcher returns a lane for groups of the hub, which somebody has to step
// through whenever C says so, for as long as there are any.
func (h *Hub) NewDispatcher() *Dispatcher { return &Dispatcher{hub: h, more: make(chan struct{}, 1)} }

// C gets a token when there is something to step through.
func (l *Dispatcher) C() <-chan struct{} { return l.more }

// Step calls readers that may have something to read, some of each feed, and
// reports whether there are more of them.
func (l *Dispatcher) Step() (more bool) {
	l.mu.Lock()
	for i, a := range l.grown {
		a.queued = false
		if a.again = true; !a.passing {
			a.passing = true
			l.passes = append(l.passes, a)
		}
		l.grown[i] = nil
	}
	l.grown = l.grown[:0]
	l.queue = append(l.queue, l.ready...)
	clear(l.ready)
	l.ready = l.ready[:0]
	l.mu.Unlock()

	began := time.Now()
	for n := len(l.passes); n > 0 && time.Since(began) < stepTime; n-- {
		a := l.passes[0]
		l.passes[0], l.passes = nil, l.passes[1:]
		if l.pass(a) {
			l.passes = append(l.passes, a) // its next turn comes after those of the others
		}
	}

	n := 0
	for began = time.Now(); n < min(len(l.queue), stepSubscribers) && time.Since(began) < passTime; n++ {
		g := l.queue[n]
		g.queued.Store(false)
		g.notifier.Notify()
	}
	clear(l.queue[:n])
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return len(l.passes)+len(l.queue) > 0
}

// pass calls the next readers of a log, from the last to the first, and reports
// whether there are more. What a log gets while a pass is under way is read by
// those that are yet to come, and by the others in another pass.
func (l *Dispatcher) pass(a *audience) (more bool) {
	a.log.subsMu.Lock()
	if a.remaining == 0 {
		a.remaining, a.again = len(a.subs), false
	}
	// Readers may have left. Each that did was replaced by the last one, which
	// has been called, or by nobody.
	a.remaining = min(a.remaining, len(a.subs))
	n := min(a.remaining, stepSubscribers)
	copy(l.chunk[:n], a.subs[a.remaining-n:a.remaining])
	a.remaining -= n
	a.log.subsMu.Unlock()

	began := time.Now()
	for i := n - 1; i >= 0; i-- {
		s := l.chunk[i]
		s.setPending()
		s.subscriber.notifier.Notify()
		if i%8 == 0 && time.Since(began) >= passTime {
			a.remaining += i // in the next turn
			break
		}
	}
	clear(l.chunk[:n])
	a.passing = a.remaining > 0 || a.again
	return a.passing
}

// grew has the readers of a log called. The caller holds the log's subsMu.
func (l *Dispatcher) grew(a *audience) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !a.queued {
		a.queued = true
		l.grown = append(l.grown, a)
		poke(l.more)
	}
}

// call has the reader of one group called.
func (l *Dispatcher) call(g *Subscriber) {
	if g.queued.Swap(true) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = append(l.ready, g)
	poke(l.more)
}

// dispatchLoop steps through the lane of those that wait on goroutines of their own.
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

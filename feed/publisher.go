package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// PublisherOptions tunes a publisher. The zero value is good.
type PublisherOptions struct {
	// EventBytes is the size limit of one event, counted as in [Draft];
	// 0 means DefaultEventBytes.
	EventBytes int
	// KeyWindow is for how long the store remembers keys; 0 means DefaultKeyWindow.
	KeyWindow time.Duration
	// Observe, if not nil, is called after each append that stored something.
	Observe func(took time.Duration, events int)
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

// DefaultKeyWindow is how long a store remembers keys, see [PublisherOptions].
const DefaultKeyWindow = 24 * time.Hour

const (
	// How long a publish waits for a commit to take it, and how much longer for the
	// end of that commit.
	publishPatience = 10 * time.Second
	commitGrace     = time.Second

	// How many publishes may wait, and what each takes in memory beside its data,
	// roughly.
	publishesMost = 10_000
	publishCost   = 512
	draftCost     = 128
)

// Publisher commits events to a store, hands them to the hub of this node and
// tells the bus. What arrives while a commit is in flight is committed
// together by the next one, so that a busy publisher pays the disk once for
// many, and an idle one adds no wait. Behind a commit of several, the next one
// gives those it answered a moment to come back.
//
// A Publisher is safe for concurrent use. Close it before its hub.
type Publisher struct {
	store     Store
	hub       *Hub
	limit     atomic.Int64 // PublisherOptions.EventBytes
	keyWindow time.Duration
	observe   func(took time.Duration, events int)

	queueWork   sync.WaitGroup // goroutines that commit the queue
	blockedWork sync.WaitGroup // goroutines that commit blocked calls
	tellerWork  sync.WaitGroup

	calls atomic.Int64 // that are queued, being committed, or not back with their callers
	bytes atomic.Int64 // that these calls hold

	mu      sync.Mutex
	closed  bool
	queue   queue
	enough  int               // how many calls in the queue are worth a token in more
	more    chan struct{}     // gets a token when the queue has enough, or closed is set
	blocked map[string]*queue // by feed: calls for feeds that another transaction holds

	late      chan struct{} // of the newest calls
	lateSince time.Time     // when the oldest of these calls came

	teller    *teller
	published atomic.Uint64 // events
}

// publishCall is one call of PublishBatch or PublishChain on its way through a commit.
type publishCall struct {
	feed    string  // that its drafts are for; empty if they are for several
	batches []Batch // that have no result yet
	size    int
	holders atomic.Int32 // that have not let go of it: who called, and the queue or a commit

	results []Result        // of the batches that are stored
	err     error           // that ended the call
	done    chan struct{}   // closed when the call has ended
	late    <-chan struct{} // closed when the call has waited for publishPatience
}

// next returns the batches that the next commit takes. One that waits for a held feed
// takes one of a chain at a time: a store may split it.
func (c *publishCall) next(noWait bool) []Batch {
	if noWait {
		return c.batches
	}
	return c.batches[:1]
}

// take takes the results of the call's next batches, and reports whether all is done.
// What has no result yet, because its feed is held, remains in batches.
func (c *publishCall) take(results []Result, noWait bool) (ended bool) {
	for _, r := range results {
		if noWait && errors.Is(r.Err, ErrBusy) {
			break
		}
		c.batches = c.batches[1:]
		if r.Err != nil {
			c.err = r.Err
			return true
		}
		c.results = append(c.results, r)
	}
	if len(c.batches) == 0 {
		return true
	}
	if len(c.results) > 0 {
		c.batches[0], _ = c.batches[0].Behind(c.results[len(c.results)-1])
		c.batches[0].Follows = false
	}
	return false
}

// NewPublisher returns a publisher to store, hub and bus, and starts it.
func NewPublisher(store Store, hub *Hub, bus Bus, o PublisherOptions) *Publisher {
	p := &Publisher{
		store:     timedStore{store, hub.store.times, hub.store.commits},
		hub:       hub,
		keyWindow: cmp.Or(o.KeyWindow, DefaultKeyWindow),
		observe:   o.Observe,
		more:      make(chan struct{}, 1),
		blocked:   make(map[string]*queue),
		teller:    newTeller(bus, hub.memory, hub.cache.tracer, store.ID, hub.verify, cmp.Or(o.Logger, slog.Default())),
	}
	if p.observe == nil {
		p.observe = func(time.Duration, int) {}
	}
	p.limit.Store(int64(cmp.Or(o.EventBytes, DefaultEventBytes)))
	p.queue.commits = 1
	p.queueWork.Go(func() { p.commitLoop(false) })
	p.tellerWork.Go(p.teller.loop)
	return p
}

// Close refuses further calls of Publish, finishes those in progress, and
// returns when everything that the publisher started has ended.
func (p *Publisher) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	poke(p.more)
	p.queueWork.Wait()
	p.blockedWork.Wait()
	p.teller.stop()
	p.tellerWork.Wait()
}

// Published returns how many events the publisher has stored.
func (p *Publisher) Published() uint64 { return p.published.Load() }

// Waiting returns how many calls of Publish wait for their results.
func (p *Publisher) Waiting() int { return int(p.calls.Load()) }

// WaitingBytes returns about how many bytes these calls hold.
func (p *Publisher) WaitingBytes() int { return int(p.bytes.Load()) }

// Publish stores the drafts as events, all of them or none, and returns them.
// It is PublishBatch of a publication that has nothing but drafts.
func (p *Publisher) Publish(ctx context.Context, drafts ...Draft) ([]Event, error) {
	r, err := p.PublishBatch(ctx, Publication{Drafts: drafts})
	return r.Events, err
}

// PublishBatch stores a publication. When it returns without an error the events
// are committed, and this node's subscribers and the bus are about to get them.
//
// A bad publication is refused before anything is stored: with ErrInvalid or
// ErrTooLarge, in a [*DraftError] if it is about one of several drafts. A store
// refuses one with ErrClosed, ErrKeyReused or a [*LastError], as [Batch]
// describes. ErrStopped and ErrUnavailable mean that nothing was stored,
// ErrUncertain that the outcome is unknown, and ErrOverloaded that the most
// publishes wait that may. When ctx ends before the publication is part of a
// commit, it is withdrawn and ctx's error is returned; once it is, PublishBatch
// waits for the outcome. It returns within 11 seconds, whatever the store does.
func (p *Publisher) PublishBatch(ctx context.Context, pub Publication) (Result, error) {
	call := &publishCall{done: make(chan struct{})}
	if err := p.prepare(call, pub); err != nil {
		return Result{}, err
	}
	results, err := p.await(ctx, call)
	if err != nil {
		return Result{Err: err}, err
	}
	return results[0], nil
}

// PublishChain stores publications about one feed in order, each whole or not at all,
// and ends with the first that is refused. It returns the results of those that are
// stored, and the error of that one: see PublishBatch. As a rule one commit takes them
// all.
//
// If the first has an IfLast, no other event comes in between: each publication has to
// follow the last event of the one before it. The others' IfLast does not count.
func (p *Publisher) PublishChain(ctx context.Context, pubs []Publication) ([]Result, error) {
	call := &publishCall{done: make(chan struct{})}
	var bad error
	for _, pub := range pubs {
		pub.IfLast = pubs[0].IfLast
		if bad = p.prepare(call, pub); bad != nil {
			break
		}
	}
	if len(call.batches) == 0 {
		return nil, bad
	}
	results, err := p.await(ctx, call)
	return results, cmp.Or(err, bad)
}

// await queues a call and waits for its results.
func (p *Publisher) await(ctx context.Context, call *publishCall) (_ []Result, err error) {
	if err := p.enqueue(call); err != nil {
		return nil, err
	}
	defer p.release(call)
	overdue := call.late
	select {
	case <-call.done:
		return call.results, call.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-call.late:
		err = fmt.Errorf("publish: %w: no commit has taken it within %v", ErrUnavailable, publishPatience)
		grace, cancel := context.WithTimeout(context.Background(), commitGrace)
		defer cancel()
		overdue = grace.Done()
	}
	if p.withdraw(call) {
		return call.results, err
	}
	select {
	case <-call.done:
		return call.results, call.err
	case <-overdue:
		return nil, fmt.Errorf("publish: %w: its commit has not ended within %v", ErrUncertain, publishPatience)
	}
}

// commit stores the calls' batches in one append and answers each call. With
// noWait, it blocks those whose feeds another transaction holds.
func (p *Publisher) commit(calls []*publishCall, noWait bool) {
	batches := make([]Batch, 0, len(calls))
	for _, c := range calls {
		batches = append(batches, c.next(noWait)...)
	}
	for i := range batches {
		batches[i].NoWait = noWait
	}
	// The append has no deadline, and outlives the callers: an answer that
	// comes late is better than not knowing what was stored.
	began, id, epoch := time.Now(), p.store.ID(), p.hub.epoch()
	results, err := p.store.Append(context.Background(), batches)
	if err == nil && len(results) != len(batches) {
		err = fmt.Errorf("%w: the store returned %d results for %d batches", ErrUncertain, len(results), len(batches))
	}
	if err != nil {
		results = nil
	}
	blocked := ""
	if !noWait {
		blocked = cmp.Or(calls[0].feed, "(several)")
	}
	// The logs come first, which costs next to nothing: a caller that subscribes here
	// after its publish starts behind its own event.
	events := p.hub.takeAppend(appendOutcome{batches, results, err, epoch, blocked})
	if err != nil {
		for _, c := range calls {
			c.err = fmt.Errorf("publish: %w", err)
		}
		p.finish(calls)
		return
	}
	trace(p.hub.cache.tracer, StageCommit, events, began, nil)
	p.published.Add(uint64(len(events)))
	if len(events) > 0 {
		p.observe(time.Since(began), len(events))
	}
	p.answer(calls, results, noWait)
	p.teller.tell(id, events)
}

// answer gives each call its results, or blocks it.
func (p *Publisher) answer(calls []*publishCall, results []Result, noWait bool) {
	answered := calls[:0]
	for _, c := range calls {
		n := len(c.next(noWait))
		if c.take(results[:n], noWait) {
			answered = append(answered, c)
		} else {
			p.block(c)
		}
		results = results[n:]
	}
	p.finish(answered)
}

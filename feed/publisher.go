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
	limit     int
	keyWindow time.Duration
	observe   func(took time.Duration, events int)

	queueWork   sync.WaitGroup // goroutines that commit the queue
	blockedWork sync.WaitGroup // goroutines that commit blocked calls
	tellerWork  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	calls   int // that have no result yet
	queue   queue
	enough  int               // how many calls in the queue are worth a token in more
	more    chan struct{}     // gets a token when the queue has enough, or closed is set
	blocked map[string]*queue // by feed: calls for feeds that another transaction holds

	late      chan struct{} // of the newest calls
	lateSince time.Time     // when the oldest of these calls came

	teller    *teller
	published atomic.Uint64 // events
}

// publishCall is one call of PublishBatch on its way through a commit.
type publishCall struct {
	feed  string // that its drafts are for; empty if they are for several
	batch Batch
	size  int

	result Result
	done   chan struct{}   // closed when there is a result
	late   <-chan struct{} // closed when the call has waited for publishPatience
}

// NewPublisher returns a publisher to store, hub and bus, and starts it.
func NewPublisher(store Store, hub *Hub, bus Bus, o PublisherOptions) *Publisher {
	p := &Publisher{
		store:     store,
		hub:       hub,
		limit:     cmp.Or(o.EventBytes, DefaultEventBytes),
		keyWindow: cmp.Or(o.KeyWindow, DefaultKeyWindow),
		observe:   o.Observe,
		more:      make(chan struct{}, 1),
		blocked:   make(map[string]*queue),
		teller:    newTeller(bus, hub.memory, store.ID, cmp.Or(o.Logger, slog.Default())),
	}
	if p.observe == nil {
		p.observe = func(time.Duration, int) {}
	}
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
func (p *Publisher) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

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
	call, err := p.prepare(pub)
	if err != nil {
		return Result{}, err
	}
	if err := p.enqueue(call); err != nil {
		return Result{}, err
	}
	overdue := call.late
	select {
	case <-call.done:
		return call.result, call.result.Err
	case <-ctx.Done():
		err = ctx.Err()
	case <-call.late:
		err = fmt.Errorf("publish: %w: no commit has taken it within %v", ErrUnavailable, publishPatience)
		grace, cancel := context.WithTimeout(context.Background(), commitGrace)
		defer cancel()
		overdue = grace.Done()
	}
	if p.withdraw(call) {
		return Result{}, err
	}
	select {
	case <-call.done:
		return call.result, call.result.Err
	case <-overdue:
		return Result{}, fmt.Errorf("publish: %w: its commit has not ended within %v", ErrUncertain, publishPatience)
	}
}

// commit stores the calls' batches in one append and answers each call. With
// noWait, it blocks those whose feeds another transaction holds.
func (p *Publisher) commit(calls []*publishCall, noWait bool) {
	batches := make([]Batch, len(calls))
	for i, c := range calls {
		batches[i] = c.batch
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
			c.result = Result{Err: fmt.Errorf("publish: %w", err)}
		}
		p.finish(calls)
		return
	}
	p.published.Add(uint64(len(events)))
	if len(events) > 0 {
		p.observe(time.Since(began), len(events))
	}
	p.answer(calls, results, noWait)
	p.teller.tell(id, events)
}

// answer gives each call its result, or blocks it.
func (p *Publisher) answer(calls []*publishCall, results []Result, noWait bool) {
	answered := calls[:0]
	for i, c := range calls {
		if noWait && errors.Is(results[i].Err, ErrBusy) {
			p.block(c)
			continue
		}
		c.result = results[i]
		answered = append(answered, c)
	}
	p.finish(answered)
}

package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PublisherOptions tunes a publisher. The zero value is good.
type PublisherOptions struct {
	// EventBytes is the size limit of one event, counted as [Draft] says;
	// 0 means DefaultEventBytes.
	EventBytes int
	// KeyWindow is for how long keys are remembered; 0 means 24 hours.
	KeyWindow time.Duration
	// Observe, if not nil, is told of each append that stored something.
	Observe func(took time.Duration, events int)
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

const (
	// What one commit takes at most. The larger a commit, the better it uses
	// the disk, and the longer those in it wait.
	commitEvents = 4096
	commitBytes  = 4 << 20

	// How long the next commit waits for one in flight. A store that has gone
	// away may take long to find out what became of a commit, and what comes
	// later is to be told at once that nothing can be stored.
	commitPatience = 500 * time.Millisecond

	// How many commits may be in flight while the store stands still: one that is
	// of use, and the others to find out when the store works again.
	commitsMost = 8

	// How long a publish waits for a commit to take it, and how much longer for the
	// end of that commit.
	publishPatience = 10 * time.Second
	commitGrace     = time.Second

	// How many publishes may wait, and what each takes in memory beside its data,
	// roughly.
	publishesMost = 10_000
	publishCost   = 512
	draftCost     = 128

	// How long a commit waits for publishers to come back, at most: a few times
	// the way through a local network.
	gatherPatience = 2 * time.Millisecond
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

	commits sync.WaitGroup // for the goroutines that commit what is in queue
	work    sync.WaitGroup // for the teller

	mu          sync.Mutex
	closed      bool
	calls       int // that have no result yet
	queue       queue
	enough      int               // how many calls in queue are worth saying more
	more        chan struct{}     // says that queue has enough, or closed is set
	blocked     map[string]*queue // of feeds that somebody else holds
	blockedWork sync.WaitGroup    // for the goroutines that commit what is aside

	teller    *teller
	published atomic.Uint64 // events
}

// Published returns how many events the publisher has stored.
func (p *Publisher) Published() uint64 { return p.published.Load() }

// Waiting returns how many calls of Publish wait for their results.
func (p *Publisher) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// queue holds calls of Publish that no commit has taken yet.
type queue struct {
	calls   []*publishCall
	commits int // goroutines that commit what was in it
}

// publish is one call of Publish on its way through a commit.
type publishCall struct {
	feed  string // that its drafts are for; empty if they are for several
	batch Batch
	size  int

	result Result
	done   chan struct{} // closed when there is a result
}

// NewPublisher returns a publisher to store, hub and bus, and starts it.
func NewPublisher(store Store, hub *Hub, bus Bus, o PublisherOptions) *Publisher {
	p := &Publisher{
		store:     store,
		hub:       hub,
		limit:     cmp.Or(o.EventBytes, DefaultEventBytes),
		keyWindow: cmp.Or(o.KeyWindow, 24*time.Hour),
		observe:   o.Observe,
		more:      make(chan struct{}, 1),
		blocked:   make(map[string]*queue),
		teller:    newTeller(bus, hub.memory, store.ID, cmp.Or(o.Logger, slog.Default())),
	}
	if p.observe == nil {
		p.observe = func(time.Duration, int) {}
	}
	p.queue.commits = 1
	p.commits.Go(func() { p.commitLoop(false) })
	p.work.Go(p.teller.loop)
	return p
}

// Close refuses further calls of Publish, finishes those in progress, and
// returns when everything that the publisher started has ended.
func (p *Publisher) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	poke(p.more)
	p.commits.Wait()
	p.blockedWork.Wait()
	p.teller.stop()
	p.work.Wait()
}

// Publish stores the drafts as events, all of them or none, and returns them.
// It is PublishBatch of a batch that has nothing but drafts.
func (p *Publisher) Publish(ctx context.Context, drafts ...Draft) ([]Event, error) {
	r, err := p.PublishBatch(ctx, Batch{Drafts: drafts})
	return r.Events, err
}

// PublishBatch stores a batch. When it returns without an error the events are
// committed, and this node's subscribers and the bus are about to get them. Of
// a Key, only the name counts: the publisher knows the rest.
//
// What is wrong with a batch is refused before anything is stored: with
// ErrInvalid, or ErrTooLarge; errors about one of several drafts are a
// [*DraftError]. ErrClosed, ErrKeyReused and a [*LastError] refuse what Batch
// says. ErrStopped and ErrUnavailable mean that nothing was stored, ErrUncertain
// that nobody knows. ErrOverloaded means that as many publishes wait as may. When
// ctx ends before the batch is part of a commit, it is withdrawn and ctx's error is
// returned; once it is, PublishBatch waits for the outcome. It returns within 11
// seconds, whatever the store does.
func (p *Publisher) PublishBatch(ctx context.Context, b Batch) (Result, error) {
	call, err := p.prepare(b)
	if err != nil {
		return Result{}, err
	}
	if err := p.enqueue(call); err != nil {
		return Result{}, err
	}
	patience := time.NewTimer(publishPatience)
	defer patience.Stop()
	select {
	case <-call.done:
		return call.result, call.result.Err
	case <-ctx.Done():
		err = ctx.Err()
	case <-patience.C:
		err = fmt.Errorf("publish: %w: no commit has taken it within %v", ErrUnavailable, publishPatience)
		patience.Reset(commitGrace)
	}
	if p.withdraw(call) {
		return Result{}, err
	}
	select {
	case <-call.done:
		return call.result, call.result.Err
	case <-patience.C:
		return Result{}, fmt.Errorf("publish: %w: its commit has not ended within %v", ErrUncertain, publishPatience)
	}
}

func (p *Publisher) enqueue(call *publishCall) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("publish: %w", ErrStopped)
	}
	if p.calls >= publishesMost || !p.hub.memory.Take(HoldPublishes, call.size) {
		return fmt.Errorf("publish: %w", ErrOverloaded)
	}
	p.calls++
	if held := p.blocked[call.feed]; held != nil {
		held.calls = append(held.calls, call)
		return nil
	}
	p.queue.calls = append(p.queue.calls, call)
	if len(p.queue.calls) >= p.enough {
		poke(p.more)
	}
	return nil
}

// forget no longer counts a call. The caller holds mu.
func (p *Publisher) forget(call *publishCall) {
	p.calls--
	p.hub.memory.Give(HoldPublishes, call.size)
}

// finish gives calls their results.
func (p *Publisher) finish(calls []*publishCall) {
	p.mu.Lock()
	for _, c := range calls {
		p.forget(c)
	}
	p.mu.Unlock()
	for _, c := range calls {
		close(c.done)
	}
}

// withdraw takes back a call that no commit has taken yet.
func (p *Publisher) withdraw(call *publishCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.blocked[call.feed]
	if !p.queue.remove(call) && (held == nil || !held.remove(call)) {
		return false
	}
	p.forget(call)
	return true
}

func (q *queue) remove(call *publishCall) bool {
	i := slices.Index(q.calls, call)
	if i >= 0 {
		q.calls = slices.Delete(q.calls, i, i+1)
	}
	return i >= 0
}

// commitLoop commits what is queued until the publisher is closed, or until
// another goroutine has taken over. A probe begins with one call.
func (p *Publisher) commitLoop(probe bool) {
	var answered int       // calls in the last commit
	var took time.Duration // by the last commit
	for {
		p.gather(answered, min(took, gatherPatience))
		p.mu.Lock()
		calls, closed := p.queue.take(probe), p.closed
		p.mu.Unlock()
		if len(calls) > 0 {
			began := time.Now()
			if p.commitOrYield(&p.queue, calls, true, func() { p.commits.Go(func() { p.commitLoop(true) }) }) {
				return
			}
			answered, took, probe = len(calls), time.Since(began), false
			continue
		}
		if closed {
			return
		}
		answered = 0
		<-p.more
	}
}

// gather waits for the publishers that the last commit has answered, unless more
// than a third as many wait already. Those who publish one event after another
// come back all at once, and a moment too late: a commit that starts with the
// first of them costs as much as one of all, and the others wait for its end.
// Publishers that are independent of each other seldom look like that: about as
// many come during a commit as it answers, and they are not held up.
func (p *Publisher) gather(answered int, patience time.Duration) {
	if answered < 3 {
		return
	}
	p.mu.Lock()
	waiting := len(p.queue.calls)
	if p.closed || 3*waiting > answered {
		p.mu.Unlock()
		return
	}
	p.enough = waiting + answered
	select {
	case <-p.more: // said before
	default:
	}
	p.mu.Unlock()
	timeout := time.NewTimer(patience)
	select {
	case <-p.more:
	case <-timeout.C:
	}
	timeout.Stop()
	p.mu.Lock()
	p.enough = 0
	p.mu.Unlock()
}

// commitOrYield commits calls of the queue. If that takes long, it has next start a
// goroutine that goes on with what is queued, and reports that. That one begins with a
// single call: while the store stands still, whatever is in a commit cannot be
// withdrawn.
func (p *Publisher) commitOrYield(q *queue, calls []*publishCall, noWait bool, next func()) (yielded bool) {
	started := make(chan struct{})
	relief := time.AfterFunc(commitPatience, func() {
		defer close(started)
		p.mu.Lock()
		if yielded = q.commits < commitsMost; yielded {
			q.commits++
		}
		p.mu.Unlock()
		if yielded {
			next()
		}
	})
	p.commit(calls, noWait)
	if relief.Stop() {
		return false
	}
	<-started // so that Close, which waits for either, waits for both
	if yielded {
		p.mu.Lock()
		q.commits--
		p.mu.Unlock()
	}
	return yielded
}

// take returns the calls for the next commit. A probe takes one.
func (q *queue) take(probe bool) []*publishCall {
	n, events, size := 0, 0, 0
	for n < len(q.calls) && (n == 0 || !probe && events < commitEvents && size < commitBytes) {
		events += max(1, len(q.calls[n].batch.Drafts)) // one that only closes a feed is work, too
		size += q.calls[n].size
		n++
	}
	// A commit that takes long must not hold on to those behind it.
	calls := slices.Clone(q.calls[:n])
	q.calls = slices.Delete(q.calls, 0, n)
	return calls
}

// block has a call committed apart from the others, because a feed of it is
// held by somebody else. What is published to that feed from now on waits
// behind it.
func (p *Publisher) block(call *publishCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if call.feed == "" {
		// Of several feeds: it goes alone, and nobody waits behind it.
		p.blockedWork.Go(func() { p.commit([]*publishCall{call}, false) })
		return
	}
	if held := p.blocked[call.feed]; held != nil {
		held.calls = append(held.calls, call)
		return
	}
	held := &queue{calls: []*publishCall{call}, commits: 1}
	p.blocked[call.feed] = held
	p.blockedWork.Go(func() { p.commitBlocked(call.feed, held, false) })
}

// commitBlocked commits what is aside for a feed until nothing is left, or until
// another goroutine has taken over. A probe begins with one call.
func (p *Publisher) commitBlocked(feed string, held *queue, probe bool) {
	for {
		p.mu.Lock()
		calls := held.take(probe)
		if len(calls) == 0 && p.blocked[feed] == held {
			delete(p.blocked, feed)
		}
		p.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		if p.commitOrYield(held, calls, false, func() { p.blockedWork.Go(func() { p.commitBlocked(feed, held, true) }) }) {
			return
		}
		probe = false
	}
}

// commit stores the calls' batches in one append and answers each call. With
// noWait, it sets aside those whose feeds are held by somebody else.
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
	// The logs come first, which costs next to nothing: a caller that subscribes here
	// after its publish starts behind its own event.
	blocked := ""
	if !noWait {
		blocked = cmp.Or(calls[0].feed, "(several)")
	}
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

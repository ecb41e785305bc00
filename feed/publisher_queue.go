package feed

import (
	"fmt"
	"slices"
	"time"
)

const (
	// What one commit takes at most. The larger a commit, the better it uses
	// the disk, and the longer those in it wait.
	commitEvents = 4096
	commitBytes  = 4 << 20

	// How long the next commit waits for one in flight. A store that has gone
	// away may take long to find out what became of a commit, and later callers
	// have to learn at once that nothing can be stored.
	commitPatience = 500 * time.Millisecond

	// How many commits may be in flight while the store stands still: one that is
	// of use, and the others to find out when the store works again.
	commitsMost = 8

	// Calls that are queued within this time share a timer.
	lateShared = 100 * time.Millisecond

	// How long a commit waits for publishers to come back, at most: a few times
	// the way through a local network.
	gatherPatience = 2 * time.Millisecond
)

// queue holds calls of PublishBatch that no commit has taken yet.
type queue struct {
	calls   []*publishCall
	commits int // goroutines that commit what was in it
}

// enqueue queues a call, unless the publisher is closed or too many calls wait.
func (p *Publisher) enqueue(call *publishCall) error {
	// Before it waits for mu: those who do so hold their bytes, too.
	if err := p.count(call); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.uncount(call)
		return fmt.Errorf("publish: %w", ErrStopped)
	}
	call.late = p.lateFrom(time.Now())
	if blocked := p.blocked[call.feed]; blocked != nil {
		blocked.calls = append(blocked.calls, call)
		return nil
	}
	p.queue.calls = append(p.queue.calls, call)
	if len(p.queue.calls) >= p.enough {
		poke(p.more)
	}
	return nil
}

// lateFrom returns a channel that is closed publishPatience after now, or up to
// lateShared earlier. The calls of that time share it: a timer for each would cost
// more than most of them wait. The caller holds mu.
func (p *Publisher) lateFrom(now time.Time) <-chan struct{} {
	if p.late == nil || now.Sub(p.lateSince) > lateShared {
		late := make(chan struct{})
		p.late, p.lateSince = late, now
		time.AfterFunc(publishPatience, func() { close(late) })
	}
	return p.late
}

// withdraw takes back a call, and reports false if a commit has taken it.
func (p *Publisher) withdraw(call *publishCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	blocked := p.blocked[call.feed]
	if !p.queue.remove(call) && (blocked == nil || !blocked.remove(call)) {
		return false
	}
	p.release(call)
	return true
}

// finish gives calls their results.
func (p *Publisher) finish(calls []*publishCall) {
	for _, c := range calls {
		p.release(c)
		close(c.done)
	}
}

// release lets go of a call, which counts until all of its holders have. When a store
// comes back, a thousand callers have their results long before they run, and the bytes
// that they hold must not be there for the next ones, too.
func (p *Publisher) release(call *publishCall) {
	if call.holders.Add(-1) == 0 {
		p.uncount(call)
	}
}

// count counts a call with two holders, unless too many calls wait.
func (p *Publisher) count(call *publishCall) error {
	if !p.hub.memory.Take(HoldPublishes, call.size) {
		return fmt.Errorf("publish: %w", ErrOverloaded)
	}
	call.holders.Store(2)
	p.bytes.Add(int64(call.size))
	if p.calls.Add(1) > publishesMost {
		p.uncount(call)
		return fmt.Errorf("publish: %w", ErrOverloaded)
	}
	return nil
}

func (p *Publisher) uncount(call *publishCall) {
	p.calls.Add(-1)
	p.bytes.Add(-int64(call.size))
	p.hub.memory.Give(HoldPublishes, call.size)
}

func (q *queue) remove(call *publishCall) bool {
	i := slices.Index(q.calls, call)
	if i >= 0 {
		q.calls = slices.Delete(q.calls, i, i+1)
	}
	return i >= 0
}

// take returns the calls for the next commit. A probe takes one.
func (q *queue) take(probe bool) []*publishCall {
	n, events, size := 0, 0, 0
	for n < len(q.calls) && (n == 0 || !probe && events < commitEvents && size < commitBytes) {
		for _, b := range q.calls[n].batches {
			events += max(1, len(b.Drafts)) // one that only closes a feed is work, too
		}
		size += q.calls[n].size
		n++
	}
	// A commit that takes long must not hold on to those behind it.
	calls := slices.Clone(q.calls[:n])
	q.calls = slices.Delete(q.calls, 0, n)
	return calls
}

// commitLoop commits the queue until the publisher is closed, or until
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
			if p.commitOrYield(&p.queue, calls, true, func() { p.queueWork.Go(func() { p.commitLoop(true) }) }) {
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
// than a third as many wait already. Those that publish one event after another
// come back all at once, and a moment too late: a commit that starts with the
// first of them costs as much as one of all, and the others wait for its end.
// Publishers that are independent of each other seldom look like that: about as
// many come during a commit as it answers, and gather does not hold them up.
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
	case <-p.more: // a token from before
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

// commitOrYield commits calls that were taken from the queue. If that takes long, it
// calls next, which starts a goroutine that goes on with the queue, and reports true.
// That goroutine begins with a single call: while the store stands still, no call in a
// commit can be withdrawn.
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
	<-started // so that Close, which waits for this goroutine, waits for the next one, too
	if yielded {
		p.mu.Lock()
		q.commits--
		p.mu.Unlock()
	}
	return yielded
}

// block commits a call apart from the others, because another transaction holds a feed
// of it. Later calls for that feed wait behind it.
func (p *Publisher) block(call *publishCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if call.feed == "" {
		// It is for several feeds: it goes alone, and no other call waits behind it.
		p.blockedWork.Go(func() { p.commit([]*publishCall{call}, false) })
		return
	}
	if blocked := p.blocked[call.feed]; blocked != nil {
		blocked.calls = append(blocked.calls, call)
		return
	}
	blocked := &queue{calls: []*publishCall{call}, commits: 1}
	p.blocked[call.feed] = blocked
	p.blockedWork.Go(func() { p.commitBlocked(call.feed, blocked, false) })
}

// commitBlocked commits the blocked calls for a feed until none is left, or until
// another goroutine has taken over. A probe begins with one call.
func (p *Publisher) commitBlocked(feed string, blocked *queue, probe bool) {
	for {
		p.mu.Lock()
		calls := blocked.take(probe)
		if len(calls) == 0 && p.blocked[feed] == blocked {
			delete(p.blocked, feed)
		}
		p.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		if p.commitOrYield(blocked, calls, false, func() { p.blockedWork.Go(func() { p.commitBlocked(feed, blocked, true) }) }) {
			return
		}
		probe = false
	}
}

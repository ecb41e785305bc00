package server

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

// The reasons for which a stream ends that the application was asked about again.
var (
	errRevoked   = fmt.Errorf("%w any longer", auth.ErrRefused)
	errUndecided = fmt.Errorf("%w: the application that decides about this has not answered for too long", auth.ErrUnavailable)
)

// rechecks asks the application again about open streams. Streams with the same question
// form a group, which costs one question and keeps the credentials once. One goroutine
// looks at each group when its time has come.
type rechecks struct {
	memory *feed.Memory

	mu     sync.Mutex
	groups map[questionKey]*recheckGroup
	// visitors has the groups with the same credentials.
	visitors map[auth.Visitor]map[*recheckGroup]struct{}
	queue    recheckQueue
	asking   int           // questions under way
	away     bool          // the last question had no answer
	wake     chan struct{} // wakes run; nil before the first group
	closed   bool
	ctx      context.Context
	cancel   context.CancelFunc
	ended    sync.WaitGroup
}

type questionKey = [sha256.Size]byte

// rechecked is a stream that can be ended.
type rechecked interface {
	rechecking() *recheckSlot
	// end ends the stream soon, for errRevoked or errUndecided.
	end(why error)
}

// recheckSlot is a stream's place in a group.
type recheckSlot struct {
	group  *recheckGroup // under rechecks.mu
	index  int32         // in the group's streams
	joined bool
}

func (s *recheckSlot) rechecking() *recheckSlot { return s }

// recheckGroup is the open streams with one question.
type recheckGroup struct {
	question *auth.Question
	policy   auth.Policy
	key      questionKey
	size     int // bytes charged to the memory budget
	streams  []rechecked

	answered time.Time // when the last question that has an answer was asked
	expires  time.Time // when that answer ends; zero means never
	asked    bool      // the application was asked because it ends soon
	due      time.Time // of the next question
	asking   bool
	failed   bool // the last question had no answer

	at     time.Time // when run looks at it next
	number int       // index in the queue; -1 if it is gone
}

// groupCost is about what a group takes in memory beside its question.
const groupCost = 1024

// A question without an answer is repeated after a time between these.
const firstRecheck, lastRecheck = time.Second, 10 * time.Second

// recheckRetry returns the time until a question without an answer is repeated.
func recheckRetry() time.Duration {
	return firstRecheck + rand.N(lastRecheck-firstRecheck)
}

// join adds a stream that a grant has allowed, unless the grant is from a token. The
// caller calls leave if it succeeds.
func (r *rechecks) join(one rechecked, grant auth.Grant) error {
	question, asked := grant.Question()
	if question == nil {
		return nil
	}
	revoked, err := r.enter(one, grant, question, asked)
	if revoked {
		one.end(errRevoked)
	}
	return err
}

// enter is join for a grant from an application. It reports whether that has refused the
// credentials since.
func (r *rechecks) enter(one rechecked, grant auth.Grant, question *auth.Question, asked time.Time) (revoked bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return false, feed.ErrStopped
	case grant.Revoked(): // else answer sees the stream in its group
		return true, nil
	}
	key := question.Key()
	g := r.groups[key]
	if g == nil {
		size := question.Size() + groupCost
		if !r.memory.Take(feed.HoldStreams, size) {
			return false, errNoMemory
		}
		g = &recheckGroup{question: question.Clone(), policy: question.Policy(), key: key, size: size}
		g.due = asked.Add(jitter(g.policy.Recheck, 0.5))
		r.add(g)
	}
	slot := one.rechecking()
	slot.group, slot.index, slot.joined = g, int32(len(g.streams)), true
	g.streams = append(g.streams, one)
	if asked.After(g.answered) {
		g.take(asked, grant.Expires())
		r.schedule(g)
	}
	return false, nil
}

// add adds a group, and starts run for the first one. The caller holds mu.
func (r *rechecks) add(g *recheckGroup) {
	if r.wake == nil {
		r.wake = make(chan struct{}, 1)
		r.groups = make(map[questionKey]*recheckGroup)
		r.visitors = make(map[auth.Visitor]map[*recheckGroup]struct{})
		r.ctx, r.cancel = context.WithCancel(context.Background())
		r.ended.Go(r.run)
	}
	r.groups[g.key] = g
	visitor := g.question.Visitor()
	if r.visitors[visitor] == nil {
		r.visitors[visitor] = make(map[*recheckGroup]struct{}, 1)
	}
	r.visitors[visitor][g] = struct{}{}
	g.at = g.due
	heap.Push(&r.queue, g)
}

// leave removes a stream that has ended.
func (r *rechecks) leave(one rechecked) {
	slot := one.rechecking()
	if !slot.joined {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g := slot.group
	if g == nil {
		return
	}
	last := len(g.streams) - 1
	moved := g.streams[last]
	g.streams[slot.index] = moved
	moved.rechecking().index = slot.index
	g.streams[last] = nil
	g.streams = g.streams[:last]
	if slot.group = nil; last == 0 {
		r.remove(g)
	}
}

// remove removes a group. The caller holds mu.
func (r *rechecks) remove(g *recheckGroup) {
	if g.number < 0 {
		return
	}
	heap.Remove(&r.queue, g.number)
	g.number = -1
	delete(r.groups, g.key)
	visitor := g.question.Visitor()
	if delete(r.visitors[visitor], g); len(r.visitors[visitor]) == 0 {
		delete(r.visitors, visitor)
	}
	r.memory.Give(feed.HoldStreams, g.size)
}

// dissolve removes a group and returns its streams, which the caller ends once it no
// longer holds mu.
func (r *rechecks) dissolve(g *recheckGroup) []rechecked {
	r.remove(g)
	streams := g.streams
	for _, one := range streams {
		one.rechecking().group = nil
	}
	g.streams = nil
	return streams
}

// close ends run and its questions.
func (r *rechecks) close() {
	r.mu.Lock()
	r.closed = true
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	r.ended.Wait()
}

// run looks at each group when its time has come, until close.
func (r *rechecks) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.step(time.Now()))
		select {
		case <-timer.C:
		case <-r.wake:
		case <-r.ctx.Done():
			return
		}
	}
}

// step looks at the groups whose time has come, and returns the time until the next one's.
func (r *rechecks) step(now time.Time) time.Duration {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.mu.Unlock()
			return time.Hour
		}
		g := r.queue[0]
		if wait := g.at.Sub(now); wait > 0 {
			r.mu.Unlock()
			return wait
		}
		streams, why := r.look(g, now)
		r.mu.Unlock()
		for _, one := range streams {
			one.end(why)
		}
	}
}

// look asks about a group or ends it, as its times demand, and sets the time of the next
// look. It returns the streams to end. The caller holds mu.
func (r *rechecks) look(g *recheckGroup, now time.Time) (streams []rechecked, why error) {
	over := !g.expires.IsZero() && !now.Before(g.expires)
	graceOver := !now.Before(g.answered.Add(g.policy.Grace))
	busy := r.asking >= max(1, g.policy.Concurrency/2) // the other half is for new requests
	switch {
	case over && g.asked && !g.asking && !g.failed:
		return r.dissolve(g), errRevoked // the application has said once more that it ends now
	case over, g.failed && graceOver:
		return r.dissolve(g), errUndecided
	case g.asking || now.Before(g.nextQuestion()):
	case !busy:
		g.asking = true
		g.asked = g.asked || !now.Before(g.early())
		r.asking++
		r.ended.Go(func() { r.ask(g) })
	case r.away && graceOver:
		return r.dissolve(g), errUndecided
	default:
		r.schedule(g)
		g.at = now.Add(jitter(time.Second, 0.5))
		heap.Fix(&r.queue, g.number)
		return nil, nil
	}
	r.schedule(g)
	return nil, nil
}

// take notes an answer that allows the streams.
func (g *recheckGroup) take(asked, expires time.Time) {
	if !expires.Equal(g.expires) {
		g.asked = false
	}
	g.answered, g.expires, g.failed = asked, expires, false
}

// early returns when to ask because the answer ends soon: the next answer can be there
// by then. It is zero for an answer that does not end.
func (g *recheckGroup) early() time.Time {
	if g.expires.IsZero() {
		return time.Time{}
	}
	return g.expires.Add(-min(g.policy.Timeout, g.expires.Sub(g.answered)/2))
}

// nextQuestion returns when to ask next.
func (g *recheckGroup) nextQuestion() time.Time {
	if early := g.early(); !early.IsZero() && !g.asked && early.Before(g.due) {
		return early
	}
	return g.due
}

// schedule sets when to look at a group next. The caller holds mu.
func (r *rechecks) schedule(g *recheckGroup) {
	at := g.nextQuestion()
	if g.asking {
		at = at.Add(time.Hour) // the answer comes before
	}
	if end := g.answered.Add(g.policy.Grace); g.failed && end.Before(at) {
		at = end
	}
	if !g.expires.IsZero() && g.expires.Before(at) {
		at = g.expires
	}
	g.at = at
	heap.Fix(&r.queue, g.number)
	if r.queue[0] == g {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// ask asks about a group once.
func (r *rechecks) ask(g *recheckGroup) {
	grant, err := g.question.Again(r.ctx)
	for _, one := range r.answer(g, grant, err) {
		one.end(errRevoked)
	}
}

// answer notes the answer about a group. It returns the streams to end.
func (r *rechecks) answer(g *recheckGroup, grant auth.Grant, err error) []rechecked {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking--
	g.asking = false
	_, refused := errors.AsType[*auth.Refusal](err)
	r.away = err != nil && !refused
	switch {
	case g.number < 0 || r.ctx.Err() != nil:
		return nil
	case err == nil:
		_, asked := grant.Question()
		g.take(asked, grant.Expires())
		g.due = asked.Add(jitter(g.policy.Recheck, 0.5))
	case refused:
		// What else these credentials have open counts on an earlier answer, too.
		for other := range r.visitors[g.question.Visitor()] {
			other.due = time.Now()
			r.schedule(other)
		}
		return r.dissolve(g)
	default:
		g.failed = true
		g.due = time.Now().Add(recheckRetry())
	}
	r.schedule(g)
	return nil
}

// recheckQueue is a heap of groups, the next to look at first.
type recheckQueue []*recheckGroup

func (q recheckQueue) Len() int           { return len(q) }
func (q recheckQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q recheckQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].number, q[j].number = i, j
}

// Push implements [heap.Interface].
func (q *recheckQueue) Push(x any) {
	g := x.(*recheckGroup)
	g.number = len(*q)
	*q = append(*q, g)
}

// Pop implements [heap.Interface].
func (q *recheckQueue) Pop() any {
	last := len(*q) - 1
	g := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return g
}

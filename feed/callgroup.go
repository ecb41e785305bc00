package feed

import (
	"context"
	"maps"
	"sync"
	"time"
)

// callGroup lets callers that want the same thing at the same time share one
// call for it. It keeps the result for a moment longer, so that thousands that
// come back together need not be quite simultaneous.
//
// Where there are slots, a call waits in a queue until it gets one, and its result holds
// the slot until no caller needs the result. Each caller of do then calls leave once.
type callGroup[K comparable, V any] struct {
	keep  time.Duration // how long later callers of do share a result; 0: not at all
	most  int           // how many results are kept
	slots int           // for calls under way and their results; 0 for any number
	count func(n int)   // counts slots that are taken, or given back

	mu    sync.Mutex
	calls map[K]*call[V]
	kept  int
	taken int            // slots
	queue []queued[K, V] // calls without a slot
}

type queued[K comparable, V any] struct {
	key   K
	call  *call[V]
	begin func()
}

// call is one shared call. value and err may be read once done is closed; where there
// are slots, with result.
type call[V any] struct {
	done  chan struct{}
	value V
	err   error

	mu       sync.Mutex
	finished bool
	waiters  []func()

	// Under the group's mu.
	users int  // callers of do that have not left
	kept  bool // later callers of do share it
	ended bool // fn has returned
	slot  bool // it holds a slot
	gone  bool // the value has been freed
}

// then calls fn, which does not block, when the call has ended.
func (c *call[V]) then(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		fn()
		return
	}
	c.waiters = append(c.waiters, fn)
}

// wait returns the result of the call, or ctx's error if ctx ends before it. It is
// for groups without slots: they keep each result for as long as a caller may read it.
func (c *call[V]) wait(ctx context.Context) (value V, err error) {
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// finish ends the call.
func (c *call[V]) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	close(c.done)
	for _, fn := range c.waiters {
		fn()
	}
	c.waiters = nil
}

// do returns the call for key. If there is none, it begins one, which runs
// fn on a goroutine that start starts.
func (g *callGroup[K, V]) do(key K, start func(func()), fn func() (V, error)) *call[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		c.users++
		return c
	}
	if g.calls == nil {
		g.calls = make(map[K]*call[V])
	}
	c := &call[V]{done: make(chan struct{}), users: 1}
	g.calls[key] = c
	begin := func() {
		start(func() {
			c.value, c.err = fn()
			g.done(key, c)
			c.finish()
		})
	}
	if g.slots == 0 {
		begin()
		return c
	}
	g.queue = append(g.queue, queued[K, V]{key, c, begin})
	g.fillSlots()
	return c
}

// fillSlots gives the free slots to the calls at the head of the queue. It drops those
// whose result no caller needs any more. The caller holds mu.
func (g *callGroup[K, V]) fillSlots() {
	for g.taken < g.slots && len(g.queue) > 0 {
		next := g.queue[0]
		g.queue[0], g.queue = queued[K, V]{}, g.queue[1:]
		if next.call.users == 0 {
			next.call.gone = true
			g.remove(next.key, next.call)
			continue
		}
		next.call.slot = true
		g.taken++
		g.count(1)
		next.begin()
	}
	if len(g.queue) == 0 {
		g.queue = nil
	}
}

func (g *callGroup[K, V]) done(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.ended = true
	c.kept = g.calls[key] == c && c.err == nil && g.keep > 0 && g.kept < g.most
	if c.kept {
		g.kept++
	} else {
		g.remove(key, c)
		g.release(c)
	}
	if c.kept || c.slot {
		time.AfterFunc(g.keep, func() { g.expire(key, c) })
	}
}

// expire frees a result, which may be of a moment that is long past. Callers that have
// not read it call do again.
func (g *callGroup[K, V]) expire(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.kept {
		c.kept = false
		g.kept--
	}
	g.remove(key, c)
	if c.users = 0; c.slot {
		g.release(c)
	}
}

func (g *callGroup[K, V]) remove(key K, c *call[V]) {
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}

// release frees the slot of a result that no caller needs.
func (g *callGroup[K, V]) release(c *call[V]) {
	if c.slot && !c.kept && (c.users == 0 || c.err != nil) {
		var none V
		c.value, c.gone, c.slot = none, c.err == nil, false
		g.count(-1)
		g.taken--
		g.fillSlots()
	}
}

// result returns what the call has returned. If ok is false, the result has been freed,
// and the caller calls do again.
func (g *callGroup[K, V]) result(c *call[V]) (value V, err error, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return c.value, c.err, !c.gone
}

// leave notes that a caller of do has the result or no longer needs it.
func (g *callGroup[K, V]) leave(c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.users--; c.ended {
		g.release(c)
	}
}

// forget makes later callers of do begin new calls for these keys.
func (g *callGroup[K, V]) forget(which func(K) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.calls, func(key K, _ *call[V]) bool { return which(key) })
}

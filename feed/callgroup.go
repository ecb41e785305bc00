package feed

import (
	"context"
	"maps"
	"sync"
	"time"
)

// callGroup lets callers that want the same thing at the same time share one
// call for it. What a call returned is handed out for a moment longer, so that
// thousands that come back together need not be quite simultaneous.
type callGroup[K comparable, V any] struct {
	keep  time.Duration // how long a result is handed out; 0: to those that waited for it
	most  int           // how many results are kept
	slots chan struct{} // of calls under way and their results, or nil for any number
	count func(n int)   // counts slots that are taken, or given back

	mu    sync.Mutex
	calls map[K]*call[V]
	kept  int
}

// call is one shared call. value and err may be read once done is closed, with
// result where there are slots.
type call[V any] struct {
	done  chan struct{}
	value V
	err   error

	mu       sync.Mutex
	finished bool
	waiters  []func()

	// Under the lock of the flights.
	users int  // callers of join that have not left
	kept  bool // it is handed out to others
	ended bool // the call has
	slot  bool // it has one
	gone  bool // the value is
}

// then calls fn, which does not block, once the call has ended.
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
// for groups without slots: they keep results for as long as somebody may read them.
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

// do returns the flight for key. If there is none, it begins one, which runs
// fn on a goroutine that start begins. Where there are slots, the caller leaves it.
func (f *callGroup[K, V]) do(key K, start func(func()), fn func() (V, error)) *call[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		c.users++
		return c
	}
	if f.calls == nil {
		f.calls = make(map[K]*call[V])
	}
	c := &call[V]{done: make(chan struct{}), users: 1}
	f.calls[key] = c
	start(func() {
		if f.enter(key, c) {
			c.value, c.err = fn()
			f.done(key, c)
		}
		c.finish()
	})
	return c
}

// enter waits for a slot, and reports whether anybody still needs the result.
func (f *callGroup[K, V]) enter(key K, c *call[V]) bool {
	if f.slots == nil {
		return true
	}
	f.slots <- struct{}{}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.users == 0 {
		c.gone = true
		f.remove(key, c)
		<-f.slots
		return false
	}
	c.slot = true
	f.count(1)
	return true
}

func (f *callGroup[K, V]) done(key K, c *call[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.ended = true
	c.kept = f.calls[key] == c && c.err == nil && f.keep > 0 && f.kept < f.most
	if c.kept {
		f.kept++
	} else {
		f.remove(key, c)
		f.release(c)
	}
	if c.kept || c.slot {
		time.AfterFunc(f.keep, func() { f.expire(key, c) })
	}
}

// expire ends the time of a result, which may be of a moment that is long past.
// Those that have not read it ask again.
func (f *callGroup[K, V]) expire(key K, c *call[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.kept {
		c.kept = false
		f.kept--
	}
	f.remove(key, c)
	if c.users = 0; c.slot {
		f.release(c)
	}
}

func (f *callGroup[K, V]) remove(key K, c *call[V]) {
	if f.calls[key] == c {
		delete(f.calls, key)
	}
}

// release frees the slot of a result that nobody needs.
func (f *callGroup[K, V]) release(c *call[V]) {
	if c.slot && !c.kept && (c.users == 0 || c.err != nil) {
		var none V
		c.value, c.gone, c.slot = none, c.err == nil, false
		f.count(-1)
		<-f.slots
	}
}

// result returns what the call has returned; ok is false if it has to be made again.
func (f *callGroup[K, V]) result(c *call[V]) (value V, err error, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.value, c.err, !c.gone
}

// leave is called once by each caller of join, when it has the result or no longer
// needs it.
func (f *callGroup[K, V]) leave(c *call[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.users--; c.ended {
		f.release(c)
	}
}

// forget keeps what is or was called for these keys from those who join later.
func (f *callGroup[K, V]) forget(which func(K) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.calls, func(key K, _ *call[V]) bool { return which(key) })
}

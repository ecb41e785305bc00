package feed

import (
	"maps"
	"sync"
	"time"
)

// flights lets callers that want the same thing at the same time share one
// call for it. What a call returned is handed out for a moment longer, so that
// thousands that come back together need not be quite simultaneous.
type flights[K comparable, V any] struct {
	keep time.Duration // how long a result is handed out; 0: to those that waited for it
	most int           // how many results are kept

	mu    sync.Mutex
	calls map[K]*flight[V]
	kept  int
}

// flight is one shared call. value and err may be read once done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error

	mu      sync.Mutex
	landed  bool
	waiters []func()
}

// then calls fn, which does not block, once the call has ended.
func (c *flight[V]) then(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.landed {
		fn()
		return
	}
	c.waiters = append(c.waiters, fn)
}

// finish ends the call.
func (c *flight[V]) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.landed = true
	close(c.done)
	for _, fn := range c.waiters {
		fn()
	}
	c.waiters = nil
}

// join returns the flight for key. If there is none, it begins one, which runs
// fn on a goroutine that start begins.
func (f *flights[K, V]) join(key K, start func(func()), fn func() (V, error)) *flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		return c
	}
	if f.calls == nil {
		f.calls = make(map[K]*flight[V])
	}
	c := &flight[V]{done: make(chan struct{})}
	f.calls[key] = c
	start(func() {
		c.value, c.err = fn()
		f.land(key, c)
		c.finish()
	})
	return c
}

func (f *flights[K, V]) land(key K, c *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[key] != c {
		return // forgotten
	}
	if c.err != nil || f.keep == 0 || f.kept >= f.most {
		delete(f.calls, key)
		return
	}
	f.kept++
	time.AfterFunc(f.keep, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.kept--
		if f.calls[key] == c {
			delete(f.calls, key)
		}
	})
}

// forget keeps what is or was called for these keys from those who join later.
func (f *flights[K, V]) forget(which func(K) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.calls, func(key K, _ *flight[V]) bool { return which(key) })
}

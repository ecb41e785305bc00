package h2

import (
	"net/http"
	"sync"
	"time"
)

const (
	// idleHandlers limits the goroutines that wait for a request, and handlerIdle how
	// long each waits. A new one costs more than most handlers, because its stack has
	// to grow.
	idleHandlers = 8
	handlerIdle  = time.Second

	// keptQueue limits the room that an empty queue keeps.
	keptQueue = 256
)

// handlers runs the handlers of requests, many of them on one goroutine. When a handler
// blocks, another goroutine takes the next request.
type handlers struct {
	wake       chan struct{} // has a token when one of the idle goroutines has to start
	done       chan struct{} // is closed when they have to end
	goroutines sync.WaitGroup

	mu       sync.Mutex
	queue    []request // the first of them, up to next, have been taken
	next     int
	starting bool // a goroutine has been started, and has taken nothing yet
	idle     int
}

// request is one whose handler has not begun.
type request struct {
	stream *Stream
	http   *http.Request
}

func newHandlers() *handlers {
	return &handlers{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// close returns after the last handler.
func (h *handlers) close() {
	close(h.done)
	h.goroutines.Wait()
}

// add queues a request.
func (h *handlers) add(r request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, r)
	h.start()
}

// start starts a goroutine if there is a request, unless one is starting already. The
// caller holds mu.
func (h *handlers) start() {
	if h.starting || h.next == len(h.queue) {
		return
	}
	h.starting = true
	if h.idle > 0 {
		h.idle--
		h.wake <- struct{}{}
		return
	}
	h.goroutines.Go(func() {
		timer := time.NewTimer(handlerIdle)
		defer timer.Stop()
		for h.runQueued() && h.sleep(timer) {
		}
	})
}

// runQueued runs handlers until no request is left. It reports whether the goroutine,
// which has been started, stays.
func (h *handlers) runQueued() (stays bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.starting = false
	for h.next < len(h.queue) {
		r := h.queue[h.next]
		h.queue[h.next] = request{}
		if h.next++; h.next == len(h.queue) {
			h.queue, h.next = h.queue[:0], 0
			if cap(h.queue) > keptQueue {
				h.queue = nil
			}
		}
		h.start() // because this handler may block
		h.mu.Unlock()
		r.stream.serve(r.http)
		h.mu.Lock()
	}
	if stays = h.idle < idleHandlers; stays {
		h.idle++
	}
	return stays
}

// sleep waits until the goroutine is started again. It reports false if the goroutine has
// to end.
func (h *handlers) sleep(timer *time.Timer) (started bool) {
	timer.Reset(handlerIdle)
	select {
	case <-h.wake:
		return true
	case <-timer.C:
	case <-h.done:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.wake: // at the last moment
		return true
	default:
		h.idle--
		return false
	}
}

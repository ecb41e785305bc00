//go:build !386 && !s390x

package engine

import (
	"sync"
	"sync/atomic"
	"time"
)

// worker is a goroutine that writes to many sockets.
type worker struct {
	turns       sync.Mutex // is held during a turn, which guards all up to mu
	engine      *Engine
	dispatcher  Dispatcher
	sockets     atomic.Int64
	wheel       wheel
	ring        *ring // nil where the kernel takes no batches
	now         time.Duration
	stagedSince time.Duration // the time of the batch's first write
	stagedBytes int
	sealed      []byte // the batch's bytes that TLS has sealed
	input       []byte // see scratch
	output      []byte // see Socket.Buffer
	soon        []*Socket

	mu    sync.Mutex
	woken []*Socket
	wakes chan struct{}
}

// batchWait limits how long a staged write waits while the worker has sockets to
// serve.
const batchWait = 2 * time.Millisecond

// batchBytes limits the bytes of a batch, and sealedBytes those of it that TLS has
// sealed, which the worker has to hold.
const (
	batchBytes  = 1 << 20
	sealedBytes = 256 << 10
)

func (e *Engine) newWorker(d Dispatcher) *worker {
	w := &worker{engine: e, dispatcher: d, now: e.options.Now(), wakes: make(chan struct{}, 1)}
	w.wheel.now = w.now
	if !e.options.Plain {
		w.ring = newRing()
	}
	return w
}

// loop serves the sockets until stop is closed and no socket is left.
func (w *worker) loop(stop <-chan struct{}) {
	ticker := time.NewTicker(wheelTick)
	defer ticker.Stop()
	if w.ring != nil {
		defer w.ring.close()
	}
	for stopping := false; !stopping || w.sockets.Load() > 0; {
		w.turns.Lock()
		more := w.turn()
		w.turns.Unlock()
		if more {
			continue
		}
		var ticks <-chan time.Time
		if w.sockets.Load() > 0 {
			ticks = ticker.C
		}
		select {
		case <-w.dispatcher.C():
		case <-w.wakes:
		case <-ticks:
		case <-stop:
			stopping, stop = true, nil
		}
	}
}

// turn serves sockets that have something to do. It reports whether more have.
func (w *worker) turn() (more bool) {
	w.now = w.engine.options.Now()
	more, limit := w.dispatcher.Step(), dueAtOnce
	if more {
		limit = busyDueAtOnce
	}
	more = w.wheel.advance(w.now, limit, (*Socket).Notify) || more
	w.takeWoken()
	if more && w.now-w.stagedSince < batchWait {
		return true
	}
	w.serveSoon()
	w.submit()
	return more || len(w.soon) > 0
}

// serveAtOnce serves a socket, and whatever else there is to do, on the caller's
// goroutine. It reports false if the worker is at work. For a single socket, that costs
// less than to wake the worker.
func (w *worker) serveAtOnce(s *Socket) bool {
	if !w.turns.TryLock() {
		return false
	}
	s.Soon()
	more := w.turn()
	w.turns.Unlock()
	if more {
		w.wake()
	}
	return true
}

// wake makes the worker take a turn. Any goroutine may call it.
func (w *worker) wake() {
	select {
	case w.wakes <- struct{}{}:
	default:
	}
}

// Wake makes the worker call Notify soon. Any goroutine may call it.
func (s *Socket) Wake() {
	if s.flags.Or(woken)&woken != 0 {
		return
	}
	w := s.worker
	w.mu.Lock()
	w.woken = append(w.woken, s)
	w.mu.Unlock()
	w.wake()
}

// Soon is Wake for what the worker itself calls: the dispatcher's Step, and the methods
// of streams.
func (s *Socket) Soon() {
	if s.soon || s.closed {
		return
	}
	w := s.worker
	if len(w.soon) == 0 && (w.ring == nil || w.ring.empty()) {
		w.stagedSince = w.now
	}
	s.soon = true
	w.soon = append(w.soon, s)
}

func (w *worker) takeWoken() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.woken {
		s.flags.And(^woken)
		s.Soon()
		w.woken[i] = nil
	}
	w.woken = w.woken[:0]
}

// serveSoon calls Notify of the sockets for which Wake or Soon was called.
func (w *worker) serveSoon() {
	sockets := w.soon
	w.soon = nil
	for _, s := range sockets {
		s.soon = false
		s.Notify()
	}
	clear(sockets)
	if len(w.soon) == 0 {
		w.soon = sockets[:0]
	}
}

// stage adds a write to the batch.
func (w *worker) stage(s *Socket, b []byte) {
	if w.ring.full() || w.stagedBytes >= batchBytes {
		w.submit()
	}
	if s.staged = true; w.ring.empty() && len(w.soon) == 0 {
		w.stagedSince = w.now
	}
	w.stagedBytes += len(b)
	w.ring.add(s, b)
}

// submit writes the batch.
func (w *worker) submit() {
	if w.ring != nil {
		w.ring.submit()
	}
	w.sealed, w.stagedBytes = w.sealed[:0], 0
}

// seal returns the records of b. They are valid until the next submit.
func (w *worker) seal(t *secured, b []byte) (records []byte, err error) {
	if w.ring.full() || w.stagedBytes >= batchBytes || len(w.sealed) >= sealedBytes {
		w.submit()
	}
	before := len(w.sealed)
	w.sealed, err = t.seal(w.sealed, b)
	return w.sealed[before:], err
}

// Buffer returns an empty buffer, in which a [Receiver] may build what it returns. It is
// valid until the stream is called again, or Next returns.
func (s *Socket) Buffer() []byte {
	if s.worker.output == nil {
		s.worker.output = make([]byte, 0, 4*recordBytes)
	}
	return s.worker.output[:0]
}

// copied returns a copy of b that is valid until the next submit.
func (w *worker) copied(b []byte) []byte {
	if w.ring.full() || w.stagedBytes >= batchBytes || len(w.sealed) >= sealedBytes {
		w.submit()
	}
	before := len(w.sealed)
	w.sealed = append(w.sealed, b...)
	return w.sealed[before:]
}

// scratch returns a buffer for what the worker reads.
func (w *worker) scratch() []byte {
	if w.input == nil {
		w.input = make([]byte, recordBytes)
	}
	return w.input
}

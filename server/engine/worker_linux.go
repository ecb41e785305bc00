//go:build !386 && !s390x

package engine

import (
	"sync/atomic"
	"time"
)

// worker is a goroutine that writes to many sockets.
type worker struct {
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
	w := &worker{engine: e, dispatcher: d, now: e.options.Now()}
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
		w.now = w.engine.options.Now()
		more, limit := w.dispatcher.Step(), dueAtOnce
		if more {
			limit = busyDueAtOnce
		}
		more = w.wheel.advance(w.now, limit, (*Socket).Notify) || more
		if more && w.now-w.stagedSince < batchWait {
			continue
		}
		w.submit()
		if more {
			continue
		}
		var ticks <-chan time.Time
		if w.sockets.Load() > 0 {
			ticks = ticker.C
		}
		select {
		case <-w.dispatcher.C():
		case <-ticks:
		case <-stop:
			stopping, stop = true, nil
		}
	}
}

// stage adds a write to the batch.
func (w *worker) stage(s *Socket, b []byte) {
	if w.ring.full() || w.stagedBytes >= batchBytes {
		w.submit()
	}
	if s.staged = true; w.ring.empty() {
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

// scratch returns a buffer for what the worker reads.
func (w *worker) scratch() []byte {
	if w.input == nil {
		w.input = make([]byte, recordBytes)
	}
	return w.input
}

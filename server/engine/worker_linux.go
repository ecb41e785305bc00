//go:build !386 && !s390x

package engine

import (
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// worker is a goroutine that writes to many sockets.
type worker struct {
	engine      *Engine
	dispatcher  *feed.Dispatcher
	sockets     atomic.Int64
	wheel       wheel
	ring        *ring // nil where the kernel takes no batches
	now         time.Duration
	stagedSince time.Duration // since when there is something in the batch
	stagedBytes int           // bytes in the batch
}

// batchWait is how long a write may wait for others while the lane has sockets to
// look after.
const batchWait = 2 * time.Millisecond

// batchBytes is how much a batch takes.
const batchBytes = 1 << 20

func (e *Engine) newWorker(hub *feed.Hub) *worker {
	w := &worker{engine: e, dispatcher: hub.NewLane(), now: e.options.Now()}
	w.wheel.now = w.now
	if !e.options.Plain {
		w.ring = newRing()
	}
	return w
}

// loop runs the lane until it is to stop and has no socket left.
func (w *worker) loop(stop <-chan struct{}) {
	tick := time.NewTicker(wheelTick)
	defer tick.Stop()
	if w.ring != nil {
		defer w.ring.close()
	}
	for stopping := false; !stopping || w.sockets.Load() > 0; {
		w.now = w.engine.options.Now()
		more, most := w.dispatcher.Step(), dueAtOnce
		if more {
			most = busyDueAtOnce
		}
		more = w.wheel.advance(w.now, most, (*Socket).Notify) || more
		if more && w.now-w.stagedSince < batchWait {
			continue
		}
		w.submit()
		if more {
			continue
		}
		var ticks <-chan time.Time
		if w.sockets.Load() > 0 {
			ticks = tick.C
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
		w.stagedSince, w.stagedBytes = w.now, 0
	}
	w.stagedBytes += len(b)
	w.ring.add(s, b)
}

// submit writes the batch.
func (w *worker) submit() {
	if w.ring != nil {
		w.ring.submit()
	}
}

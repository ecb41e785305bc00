//go:build !386 && !s390x

package engine

import (
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// lane is a goroutine that writes to many sockets.
type lane struct {
	engine  *Engine
	feed    *feed.Dispatcher
	sockets atomic.Int64
	wheel   wheel
	ring    *ring // nil where the kernel takes no batches
	now     time.Duration
	staged  time.Duration // since when there is something in the batch
	held    int           // bytes in the batch
}

// batchWait is how long a write may wait for others while the lane has sockets to
// look after.
const batchWait = 2 * time.Millisecond

// batchBytes is how much a batch takes.
const batchBytes = 1 << 20

func (e *Engine) newLane(hub *feed.Hub) *lane {
	l := &lane{engine: e, feed: hub.NewDispatcher(), now: e.options.Now()}
	l.wheel.now = l.now
	if !e.options.Plain {
		l.ring = newRing()
	}
	return l
}

// loop runs the lane until it is to stop and has no socket left.
func (l *lane) loop(stop <-chan struct{}) {
	tick := time.NewTicker(wheelTurn)
	defer tick.Stop()
	if l.ring != nil {
		defer l.ring.close()
	}
	for stopping := false; !stopping || l.sockets.Load() > 0; {
		l.now = l.engine.options.Now()
		more, most := l.feed.Step(), wheelLooks
		if more {
			most = busyLooks
		}
		more = l.wheel.advance(l.now, most, (*Socket).Notify) || more
		if more && l.now-l.staged < batchWait {
			continue
		}
		l.submit()
		if more {
			continue
		}
		var ticks <-chan time.Time
		if l.sockets.Load() > 0 {
			ticks = tick.C
		}
		select {
		case <-l.feed.C():
		case <-ticks:
		case <-stop:
			stopping, stop = true, nil
		}
	}
}

// stage adds a write to the batch.
func (l *lane) stage(s *Socket, b []byte) {
	if l.ring.full() || l.held >= batchBytes {
		l.submit()
	}
	if s.staged = true; l.ring.empty() {
		l.staged, l.held = l.now, 0
	}
	l.held += len(b)
	l.ring.add(s, b)
}

// submit writes the batch.
func (l *lane) submit() {
	if l.ring != nil {
		l.ring.submit()
	}
}

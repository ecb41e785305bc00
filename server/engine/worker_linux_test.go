//go:build !386 && !s390x

package engine

import (
	"io"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestWorkers: there is a worker for each processor that the runtime may use. In a
// container, these are fewer than the machine has.
func TestWorkers(t *testing.T) {
	machine := runtime.GOMAXPROCS(3)
	defer runtime.GOMAXPROCS(machine)
	if workers := len(newWorld(t, Options{}).engine.workers); workers != 3 {
		t.Errorf("%d workers for 3 processors", workers)
	}
}

// TestBatchDoesNotStarve: staged writes leave soon even if the worker always has other
// sockets to serve: a busy feed must not delay another.
func TestBatchDoesNotStarve(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		workers := len(w.engine.workers)
		var calm []*script
		var clients []*net.TCPConn
		for range workers { // one for each worker
			s, client := w.stream(0)
			calm, clients = append(calm, s), append(clients, client)
		}
		var conns []net.Conn
		for range workers * 100 { // more than a step calls
			ours, _ := w.dial(0)
			conns = append(conns, ours)
		}
		for _, conn := range conns {
			w.takeRestless(conn, nil)
		}
		for i, s := range calm {
			s.send(nil, []byte("hello"))
			_ = clients[i].SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(clients[i], make([]byte, 5)); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

// TestEventsBeforeKeepAlives: while a worker has events to write, it looks at few due
// sockets at a time. Thousands of streams that opened together have their keep-alives
// together.
func TestEventsBeforeKeepAlives(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		byWorker := make(map[*worker]*looks)
		for _, l := range w.engine.workers {
			byWorker[l] = &looks{}
		}
		var idle []*due
		var conns []net.Conn // dialed before the workers are busy
		for range len(byWorker) * 100 {
			socket := w.engine.NewSocket()
			s := &due{script{t: w.t, closed: make(chan error, 1)}, byWorker[socket.worker]}
			conn, _ := w.dial(0)
			w.carry(socket, conn, &s.script, s)
			idle = append(idle, s)
			other, _ := w.dial(0)
			conns = append(conns, other)
		}
		var busy []*restless
		for _, conn := range conns { // more than a step calls
			busy = append(busy, w.takeRestless(conn, byWorker))
		}
		await(w.t, "all have been asked", func() bool {
			return !slices.ContainsFunc(idle, func(s *due) bool { return s.asked() == 0 }) &&
				!slices.ContainsFunc(busy, func(s *restless) bool { return s.asked() == 0 })
		})
		for _, l := range byWorker {
			l.counted.Store(true)
		}
		for _, l := range byWorker {
			await(w.t, "the worker looks at all", func() bool { return l.all.Load() >= 100 })
			if most := l.most.Load(); most > busyDueAtOnce {
				w.t.Errorf("the worker looked at %d in a row, want %d at most", most, busyDueAtOnce)
			}
		}
	})
}

// looks counts how many due streams a worker looks at without an event in between.
type looks struct {
	counted        atomic.Bool
	now, most, all atomic.Int64
}

// due is a stream that is always due and sends nothing.
type due struct {
	script
	looks *looks
}

func (s *due) Due() time.Duration { return 0 }

func (s *due) Next(now time.Duration) ([]byte, error) {
	if s.looks.counted.Load() {
		s.looks.now.Add(1)
	}
	return s.script.Next(now)
}

// takeRestless takes a stream that sends nothing and wakes its socket again at once. It
// reports to the looks of its worker.
func (w *world) takeRestless(conn net.Conn, byWorker map[*worker]*looks) *restless {
	socket := w.engine.NewSocket()
	s := &restless{script{t: w.t, closed: make(chan error, 1)}, byWorker[socket.worker]}
	w.carry(socket, conn, &s.script, s)
	return s
}

type restless struct {
	script
	looks *looks // may be nil
}

func (s *restless) Next(now time.Duration) ([]byte, error) {
	if l := s.looks; l != nil {
		n := l.now.Swap(0)
		l.most.Store(max(l.most.Load(), n))
		l.all.Add(n)
	}
	s.Wake()
	return s.script.Next(now)
}

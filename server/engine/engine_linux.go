//go:build !386 && !s390x

package engine

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rejoin/rejoin/feed"
)

// Engine carries streams on sockets.
type Engine struct {
	options    Options
	poller     *poller
	idle       *idleConns
	workers    []*worker
	taken      atomic.Uint32 // the lane of the next socket
	goroutines sync.WaitGroup
	stop       chan struct{}
}

// New returns an engine for streams of groups of the hub, and starts it. The hub
// is closed before the engine is.
func New(hub *feed.Hub, o Options) (*Engine, error) {
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	if o.Returned == nil {
		o.Returned = NewReturned()
	}
	idle, err := newIdleConns(o.Returned)
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	e := &Engine{options: o, poller: p, idle: idle, stop: make(chan struct{})}
	for range runtime.GOMAXPROCS(0) {
		e.workers = append(e.workers, e.newWorker(hub))
	}
	e.goroutines.Go(p.loop)
	e.goroutines.Go(idle.loop)
	for _, w := range e.workers {
		e.goroutines.Go(func() { w.loop(e.stop) })
	}
	return e, nil
}

// Close closes the sockets that are left, and [Returned], and returns when everything that the
// engine started has ended.
func (e *Engine) Close() {
	e.poller.closeAll()
	e.idle.closeAll()
	close(e.stop)
	e.goroutines.Wait()
}

// NewSocket returns a socket without a connection. It is the reader of the group
// that its stream is of, on its Lane.
func (e *Engine) NewSocket() *Socket {
	n := e.taken.Add(1)
	return &Socket{worker: e.workers[int(n)%len(e.workers)]}
}

// Reuse has the connection that the socket is about to take returned after a clean end.
// Unread is what was read from it and belongs to its next request. It reports false if
// there is no place for that, or nobody to answer that request.
func (s *Socket) Reuse(unread []byte) bool {
	marks := reusable
	if len(unread) > 0 {
		if !s.worker.engine.idle.keepUnread(s, unread) {
			return false
		}
		marks |= pipelined
	}
	s.flags.Or(marks)
	return true
}

// takeUnread returns what Reuse kept, and forgets it.
func (s *Socket) takeUnread() []byte {
	if s.flags.Load()&pipelined == 0 {
		return nil
	}
	return s.worker.engine.idle.takeUnread(s)
}

// Take makes the socket carry the stream from here on, behind head, on conn, a TCP
// connection that nobody uses any more, whatever comes of it. After an error,
// Closed of the stream is not called.
func (s *Socket) Take(conn net.Conn, head []byte, group *feed.Subscriber, stream Stream) error {
	defer conn.Close()
	fd, err := duplicate(conn)
	if err != nil {
		s.takeUnread()
		return fmt.Errorf("take connection: %w", err)
	}
	s.fd, s.group, s.stream = int32(fd), group, stream
	s.backlog = &backlog{bytes: head, head: true}
	// From here on, the lane may look at it.
	s.worker.sockets.Add(1)
	if err := s.worker.engine.poller.add(s); err != nil {
		s.worker.sockets.Add(-1)
		s.takeUnread()
		_ = syscall.Close(fd)
		return fmt.Errorf("take connection: %w", err)
	}
	s.flags.Or(started)
	group.Wake()
	return nil
}

// duplicate returns a descriptor of the connection that the runtime does not know:
// what the runtime keeps for one costs more memory than all the rest.
func duplicate(conn net.Conn) (fd int, err error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("a %T is no socket", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(of uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		if fd = int(n); errno != 0 {
			err = errno
		}
	})
	if failed != nil {
		return 0, failed
	}
	return fd, err
}

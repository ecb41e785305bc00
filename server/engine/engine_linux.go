//go:build !386 && !s390x

package engine

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// Engine carries streams on sockets.
type Engine struct {
	options    Options
	poller     *poller
	idle       *idleConns
	workers    []*worker
	sockets    atomic.Uint32 // handed out so far; they go to the workers in turn
	goroutines sync.WaitGroup
	stop       chan struct{}
}

// New starts an engine with one worker for each processor, and a dispatcher for each
// worker. The dispatchers must work until Close has returned.
func New(newDispatcher func() Dispatcher, o Options) (*Engine, error) {
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
		e.workers = append(e.workers, e.newWorker(newDispatcher()))
	}
	e.goroutines.Go(p.loop)
	e.goroutines.Go(idle.loop)
	for _, w := range e.workers {
		e.goroutines.Go(func() { w.loop(e.stop) })
	}
	return e, nil
}

// Close closes the remaining sockets and [Returned]. It returns after every goroutine
// of the engine has ended.
func (e *Engine) Close() {
	e.poller.closeAll()
	e.idle.closeAll()
	close(e.stop)
	e.goroutines.Wait()
}

// NewSocket returns a socket without a connection.
func (e *Engine) NewSocket() *Socket {
	n := e.sockets.Add(1)
	return &Socket{worker: e.workers[int(n)%len(e.workers)]}
}

// Reuse makes the engine pass the connection that the socket is about to take to
// [Returned] after a clean end. Unread holds bytes already read from it, which belong
// to its next request. Reuse reports false if those take too much memory, or if no
// server would answer that request.
func (s *Socket) Reuse(unread []byte) bool {
	flags := reusable
	if len(unread) > 0 {
		if !s.worker.engine.idle.keepUnread(s, unread) {
			return false
		}
		flags |= pipelined
	}
	s.flags.Or(flags)
	return true
}

// takeUnread returns the bytes that Reuse kept, and forgets them.
func (s *Socket) takeUnread() []byte {
	if s.flags.Load()&pipelined == 0 {
		return nil
	}
	return s.worker.engine.idle.takeUnread(s)
}

// Take makes the socket write head and then the stream to conn, a connection that
// [Takes] accepts and that nothing else uses. It always closes the TCP connection, having
// duplicated its descriptor. If it returns an error, it does not call Closed of the
// stream.
func (s *Socket) Take(conn net.Conn, head []byte, stream Stream) error {
	secure, fd, err := detach(conn)
	if err != nil {
		s.takeUnread()
		return fmt.Errorf("take connection: %w", err)
	}
	s.fd, s.tls, s.stream = int32(fd), secure, stream
	if s.reads() {
		s.flags.Or(hasInput) // crypto/tls may have read ahead
	}
	s.backlog = &backlog{bytes: head, head: true}
	s.worker.sockets.Add(1)
	if err := s.worker.engine.poller.add(s); err != nil {
		s.worker.sockets.Add(-1)
		s.takeUnread()
		_ = syscall.Close(fd)
		return fmt.Errorf("take connection: %w", err)
	}
	s.flags.Or(started) // from here on, the socket is the worker's
	stream.Wake()
	return nil
}

// duplicate returns a descriptor of the connection outside the runtime's poller, whose
// record of a descriptor takes more memory than everything else about a socket.
func duplicate(conn net.Conn) (fd int, err error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("a %T has no descriptor", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(original uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, original, syscall.F_DUPFD_CLOEXEC, 0)
		if fd = int(n); errno != 0 {
			err = errno
		}
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return fd, err
}

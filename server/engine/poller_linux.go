//go:build !386 && !s390x

package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// key names a socket to the poller: a slot, and how often the slot was reused. A
// descriptor could not name it: the kernel may give the same descriptor to another
// connection while events of the closed one are still on their way.
type key struct{ slot, generation uint32 }

// poller reports which full sockets have room again, and which clients have left.
type poller struct {
	file *os.File
	conn syscall.RawConn

	mu     sync.Mutex
	closed bool
	slots  []slot
	free   []uint32 // slots without a socket
}

type slot struct {
	socket     *Socket
	generation uint32
}

// edges are the events of all sockets. Of a socket with TLS, the worker also reads what
// comes in.
const edges = syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31 // EPOLLET

func newPoller() (*poller, error) {
	file, conn, err := newEpoll()
	return &poller{file: file, conn: conn}, err
}

// newEpoll returns an epoll instance. The runtime waits for it as for any other
// descriptor, so it blocks no thread.
func newEpoll() (*os.File, syscall.RawConn, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("fcntl", err), syscall.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "epoll")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, conn, nil
}

// takeEvents fills events with those that an epoll instance has right now, and returns
// their number. It does not block, so it does not inform the scheduler, which would wake
// the runtime's monitor for each request to an idle server.
func takeEvents(epoll uintptr, events []syscall.EpollEvent) (n int) {
	for {
		r, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(r)
		case syscall.EINTR:
		default:
			panic(fmt.Errorf("epoll_pwait: %w", errno))
		}
	}
}

// add makes the poller watch a socket.
func (p *poller) add(s *Socket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrStopped
	}
	var n uint32
	if last := len(p.free) - 1; last >= 0 {
		n, p.free = p.free[last], p.free[:last]
	} else {
		n = uint32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	s.key = key{n, p.slots[n].generation}
	events := uint32(edges)
	if s.reads() {
		events |= syscall.EPOLLIN
	}
	event := syscall.EpollEvent{Events: events, Fd: int32(s.key.slot), Pad: int32(s.key.generation)}
	var failed error
	err := p.conn.Control(func(fd uintptr) { failed = syscall.EpollCtl(int(fd), syscall.EPOLL_CTL_ADD, int(s.fd), &event) })
	if err = errors.Join(err, os.NewSyscallError("epoll_ctl", failed)); err != nil {
		p.free = append(p.free, n)
		return err
	}
	p.slots[n].socket = s
	return nil
}

// remove forgets a socket whose descriptor is about to be closed, which removes it from
// the epoll instance, too.
func (p *poller) remove(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[k.slot].socket = nil
	p.slots[k.slot].generation++
	p.free = append(p.free, k.slot)
}

// release forgets a socket whose descriptor stays open.
func (p *poller) release(k key, fd int32) {
	p.remove(k)
	_ = p.conn.Control(func(epoll uintptr) { _ = syscall.EpollCtl(int(epoll), syscall.EPOLL_CTL_DEL, int(fd), nil) })
}

// closeAll refuses further sockets and stops the present ones.
func (p *poller) closeAll() {
	p.mu.Lock()
	p.closed = true
	for i := range p.slots {
		if s := p.slots[i].socket; s != nil {
			s.wake(stopped)
		}
	}
	p.mu.Unlock()
	_ = p.file.Close()
}

// wake sets a flag for the worker. The caller holds the poller's mu, so the socket
// still has its stream.
func (s *Socket) wake(flag uint32) {
	s.flags.Or(flag)
	s.stream.Wake()
}

// loop handles events until closeAll is called.
func (p *poller) loop() {
	events := make([]syscall.EpollEvent, 256)
	err := p.conn.Read(func(fd uintptr) (done bool) {
		for {
			n := takeEvents(fd, events)
			p.handle(events[:n])
			if n < len(events) {
				return false // others are reported to the runtime
			}
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		panic(fmt.Errorf("wait for sockets: %w", err))
	}
}

func (p *poller) handle(events []syscall.EpollEvent) {
	p.mu.Lock()
	if len(events) == 1 {
		s := p.note(&events[0])
		p.mu.Unlock()
		if s == nil || s.worker.serveAtOnce(s) {
			return
		}
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	for i := range events {
		// The socket may have been closed meanwhile, so it is looked up again.
		if s := p.note(&events[i]); s != nil {
			s.stream.Wake()
		}
	}
}

// note notes an event in the flags of its socket, which it returns if the worker has to
// do something about it. The caller holds mu, so the socket still has its stream.
func (p *poller) note(e *syscall.EpollEvent) *Socket {
	slot := &p.slots[uint32(e.Fd)]
	s := slot.socket
	switch {
	case s == nil || slot.generation != uint32(e.Pad):
		return nil // the event is of a socket that was closed since
	case e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0:
		s.flags.Or(clientGone)
		return s
	}
	wakes := e.Events&syscall.EPOLLIN != 0
	if wakes {
		s.flags.Or(hasInput)
	}
	if e.Events&syscall.EPOLLOUT != 0 && s.flags.Or(hasRoom)&wantsRoom != 0 {
		wakes = true
	}
	if !wakes {
		return nil
	}
	return s
}

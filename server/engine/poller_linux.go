//go:build !386 && !s390x

package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// key names a socket to the poller: a place, and how often it was given away. A
// descriptor would be the name of somebody else soon after it is closed, while
// what was said of the one before is still on its way.
type key struct{ slot, generation uint32 }

// poller says which sockets have room again, and which clients have left.
type poller struct {
	file *os.File
	conn syscall.RawConn

	mu     sync.Mutex
	closed bool
	slots  []slot
	free   []uint32 // places without a socket
}

type slot struct {
	socket     *Socket
	generation uint32
}

const edges = syscall.EPOLLOUT | syscall.EPOLLRDHUP | 1<<31 // EPOLLET

func newPoller() (*poller, error) {
	file, conn, err := newEpoll()
	return &poller{file: file, conn: conn}, err
}

// newEpoll returns an epoll instance that the runtime waits for as for any other
// descriptor, so that no thread has to.
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

// add has the poller watch a socket.
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
	event := syscall.EpollEvent{Events: edges, Fd: int32(s.key.slot), Pad: int32(s.key.generation)}
	var failed error
	err := p.conn.Control(func(fd uintptr) { failed = syscall.EpollCtl(int(fd), syscall.EPOLL_CTL_ADD, int(s.fd), &event) })
	if err = errors.Join(err, os.NewSyscallError("epoll_ctl", failed)); err != nil {
		p.free = append(p.free, n)
		return err
	}
	p.slots[n].socket = s
	return nil
}

// remove forgets a socket, which is about to be closed: then the kernel does, too.
func (p *poller) remove(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[k.slot].socket = nil
	p.slots[k.slot].generation++
	p.free = append(p.free, k.slot)
}

// release forgets a socket whose descriptor lives on.
func (p *poller) release(k key, fd int32) {
	p.remove(k)
	_ = p.conn.Control(func(epoll uintptr) { _ = syscall.EpollCtl(int(epoll), syscall.EPOLL_CTL_DEL, int(fd), nil) })
}

// closeAll takes no more sockets, and ends those there are.
func (p *poller) closeAll() {
	p.mu.Lock()
	p.closed = true
	for i := range p.slots {
		if s := p.slots[i].socket; s != nil {
			s.notify(stopped)
		}
	}
	p.mu.Unlock()
	_ = p.file.Close()
}

// notify has the lane look at the socket.
func (s *Socket) notify(mark uint32) {
	group := s.group
	s.flags.Or(mark)
	group.Wake()
}

// loop tells sockets what happens to them, until closeAll is called.
func (p *poller) loop() {
	events := make([]syscall.EpollEvent, 256)
	err := p.conn.Read(func(fd uintptr) (done bool) {
		for {
			n, err := syscall.EpollWait(int(fd), events, 0)
			if err != nil && err != syscall.EINTR {
				panic(fmt.Errorf("epoll_wait: %w", err))
			}
			if n == 0 {
				return false
			}
			p.handle(events[:max(n, 0)])
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
	defer p.mu.Unlock()
	for i := range events {
		e := &events[i]
		slot := &p.slots[uint32(e.Fd)]
		if slot.socket == nil || slot.generation != uint32(e.Pad) {
			continue // it was closed in the meantime
		}
		switch {
		case e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0:
			slot.socket.notify(clientGone)
		case slot.socket.flags.Or(hasRoom)&wantsRoom != 0:
			slot.socket.group.Wake()
		}
	}
}

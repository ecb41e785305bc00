//go:build !386 && !s390x

package engine

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// idleMost is how many connections may be there to be accepted, and how many
	// may linger. Beyond that, those that have waited longest make room.
	idleMost = 1 << 16
	// lingerFor is how long a connection outlives its last bytes, so that they
	// arrive: closed over what its client still sends, it would take them back.
	lingerFor = 2 * time.Second
	// unreadMost is how many bytes of requests that came too early are kept for
	// all sockets.
	unreadMost = 1 << 20
)

// idleConns are connections whose streams have ended. One goroutine waits for all of
// them, until their clients send more, or leave.
type idleConns struct {
	returned *Returned
	most     int // see idleMost
	file     *os.File
	conn     syscall.RawConn

	mu      sync.Mutex
	closed  bool
	conns   map[int32]*idleConn // by descriptor
	waits   list.List           // of those that are to be accepted, the oldest first
	lingers list.List           // of those that have been shut down, the oldest first
	wake    time.Time           // when the first of them is due, if that is not zero
	unread  map[*Socket][]byte  // what was read of the next requests while a stream runs
	bytes   int                 // of unread
}

type idleConn struct {
	fd     int32
	unread []byte
	until  time.Time
	in     *list.List
	at     *list.Element
}

func newIdleConns(returned *Returned) (*idleConns, error) {
	file, conn, err := newEpoll()
	if err != nil {
		return nil, err
	}
	i := &idleConns{returned: returned, most: idleMost, file: file, conn: conn, conns: make(map[int32]*idleConn), unread: make(map[*Socket][]byte)}
	returned.mu.Lock()
	defer returned.mu.Unlock()
	returned.drop = i.drop
	return i, nil
}

// keepUnread keeps what was read of the next request of the socket's connection. It
// reports false if that is too much, or if nobody would answer the request.
func (i *idleConns) keepUnread(s *Socket, b []byte) bool {
	_, open := i.returned.keeps()
	i.mu.Lock()
	defer i.mu.Unlock()
	if !open || i.bytes+len(b) > unreadMost {
		return false
	}
	i.unread[s] = append([]byte(nil), b...)
	i.bytes += len(b)
	return true
}

// takeUnread returns what was kept for the socket, and forgets it.
func (i *idleConns) takeUnread(s *Socket) []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	b := i.unread[s]
	delete(i.unread, s)
	i.bytes -= len(b)
	return b
}

// add takes a connection over. Without anybody who accepts it, it is shut down, and
// closed when the client has left, or soon.
func (i *idleConns) add(fd int32, unread []byte) {
	idle, open := i.returned.keeps()
	c := &idleConn{fd: fd, unread: unread, in: &i.waits, until: time.Now().Add(idle)}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !open {
		i.shutDown(c)
	}
	if i.waits.Len() >= i.most {
		oldest := i.remove(i.waits.Front().Value.(*idleConn))
		i.shutDown(oldest)
		i.insert(oldest)
	}
	if i.lingers.Len() >= i.most {
		i.close(i.lingers.Front().Value.(*idleConn))
	}
	i.insert(c)
}

// shutDown has the connection linger. The caller holds mu and inserts it.
func (i *idleConns) shutDown(c *idleConn) {
	_ = syscall.Shutdown(int(c.fd), syscall.SHUT_WR)
	c.unread, c.in, c.until = nil, &i.lingers, time.Now().Add(lingerFor)
}

// insert watches a connection. The caller holds mu.
func (i *idleConns) insert(c *idleConn) {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: c.fd}
	if len(c.unread) > 0 {
		event.Events |= syscall.EPOLLOUT // at once, as there is something to read
	}
	failed := i.control(syscall.EPOLL_CTL_ADD, c.fd, &event)
	if i.closed || failed != nil {
		_ = syscall.Close(int(c.fd))
		return
	}
	i.conns[c.fd] = c
	c.at = c.in.PushBack(c)
	if i.wake.IsZero() || c.until.Before(i.wake) {
		i.wakeAt(c.until)
	}
}

// remove forgets a connection. The caller holds mu.
func (i *idleConns) remove(c *idleConn) *idleConn {
	delete(i.conns, c.fd)
	c.in.Remove(c.at)
	_ = i.control(syscall.EPOLL_CTL_DEL, c.fd, nil)
	return c
}

// close closes a connection. The caller holds mu.
func (i *idleConns) close(c *idleConn) { _ = syscall.Close(int(i.remove(c).fd)) }

func (i *idleConns) control(op int, of int32, event *syscall.EpollEvent) (failed error) {
	err := i.conn.Control(func(fd uintptr) { failed = syscall.EpollCtl(int(fd), op, int(of), event) })
	return errors.Join(err, failed)
}

// wakeAt has the loop turn at that time. The caller holds mu.
func (i *idleConns) wakeAt(at time.Time) {
	i.wake = at
	_ = i.file.SetReadDeadline(at)
}

// drop closes what is there to be accepted.
func (i *idleConns) drop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.waits.Len() > 0 {
		i.close(i.waits.Front().Value.(*idleConn))
	}
}

// closeAll closes everything, and whatever is still added.
func (i *idleConns) closeAll() {
	i.returned.Close()
	i.mu.Lock()
	i.closed = true
	for _, c := range i.conns {
		i.close(c)
	}
	i.mu.Unlock()
	_ = i.file.Close()
}

// loop waits for the connections, until closeAll is called.
func (i *idleConns) loop() {
	events := make([]syscall.EpollEvent, 128)
	for {
		var n int
		err := i.conn.Read(func(fd uintptr) (done bool) {
			var err error
			if n, err = syscall.EpollWait(int(fd), events, 0); err != nil && err != syscall.EINTR {
				panic(fmt.Errorf("epoll_wait: %w", err))
			}
			return n > 0
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		i.expire(time.Now())
		for _, e := range events[:max(n, 0)] {
			i.look(e.Fd)
		}
	}
}

// expire closes the connections whose time is up.
func (i *idleConns) expire(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.wake.IsZero() || now.Before(i.wake) {
		return
	}
	var next time.Time
	for _, of := range []*list.List{&i.waits, &i.lingers} {
		for of.Len() > 0 {
			c := of.Front().Value.(*idleConn)
			if now.Before(c.until) {
				if next.IsZero() || c.until.Before(next) {
					next = c.until
				}
				break
			}
			i.close(c)
		}
	}
	i.wakeAt(next)
}

// look gives a connection to whoever accepts it, if there is something to read. The
// event that it comes from may be one of a descriptor that was closed since.
func (i *idleConns) look(fd int32) {
	if c := i.readable(fd); c != nil {
		if conn, err := c.open(); err == nil {
			i.returned.give(conn)
		}
	}
}

// readable returns the connection with that descriptor, which is no longer here, if
// there is something to read.
func (i *idleConns) readable(fd int32) *idleConn {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.conns[fd]
	switch {
	case c == nil:
		return nil
	case c.in == &i.lingers:
		if discard(fd) != syscall.EAGAIN {
			i.close(c)
		}
		return nil
	case len(c.unread) > 0:
		return i.remove(c)
	}
	var b [1]byte
	switch n, err := receive(fd, b[:], syscall.MSG_PEEK); {
	case n > 0:
		return i.remove(c)
	case err != syscall.EAGAIN:
		i.close(c)
	}
	return nil
}

// open returns the connection as the runtime knows it.
func (c *idleConn) open() (net.Conn, error) {
	file := os.NewFile(uintptr(c.fd), "")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err == nil && len(c.unread) > 0 {
		conn = &unreadConn{conn, c.unread}
	}
	return conn, err
}

// discard reads what the client has sent, some of it, and returns why there is no
// more at the moment: nil if the client has ended.
func discard(fd int32) error {
	var b [512]byte
	for range 128 {
		if n, err := receive(fd, b[:], 0); n == 0 {
			return err
		}
	}
	return syscall.EAGAIN
}

func receive(fd int32, b []byte, flags uintptr) (n int, err error) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT|flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

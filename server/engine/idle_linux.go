//go:build !386 && !s390x

package engine

import (
	"container/list"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// maxIdle limits the connections that wait for a request, and those that linger.
	// Beyond that, the oldest make room.
	maxIdle = 1 << 16
	// lingerTime is how long a connection stays open after its last bytes, so that
	// they arrive: if it were closed while its client still sends, the kernel would
	// reset it and drop them.
	lingerTime = 2 * time.Second
	// maxUnread limits the bytes of early requests kept for all sockets.
	maxUnread = 1 << 20
)

// idleConns holds connections whose streams have ended. One goroutine waits for all of
// them, until their clients send more, or leave.
type idleConns struct {
	returned *Returned
	limit    int // maxIdle, except in tests
	file     *os.File
	conn     syscall.RawConn

	mu           sync.Mutex
	closed       bool
	conns        map[int32]*idleConn // by descriptor
	waiting      list.List           // for a request, the oldest first
	lingering    list.List           // after their shutdown, the oldest first
	nextDeadline time.Time           // the first of all deadlines; zero for none
	unread       map[*Socket][]byte  // bytes of the next requests, of running streams
	unreadBytes  int                 // of unread
}

type idleConn struct {
	fd       int32
	tls      *secured // nil without TLS
	unread   []byte
	deadline time.Time
	list     *list.List
	element  *list.Element
}

func newIdleConns(returned *Returned) (*idleConns, error) {
	file, conn, err := newEpoll()
	if err != nil {
		return nil, err
	}
	i := &idleConns{
		returned: returned, limit: maxIdle, file: file, conn: conn,
		conns: make(map[int32]*idleConn), unread: make(map[*Socket][]byte),
	}
	returned.mu.Lock()
	defer returned.mu.Unlock()
	returned.closeWaiting = i.closeWaiting
	return i, nil
}

// keepUnread keeps the first bytes of the next request on the socket's connection. It
// reports false if those are too many, or if no server would answer the request.
func (i *idleConns) keepUnread(s *Socket, b []byte) bool {
	_, open := i.returned.accepting()
	i.mu.Lock()
	defer i.mu.Unlock()
	if !open || i.unreadBytes+len(b) > maxUnread {
		return false
	}
	i.unread[s] = append([]byte(nil), b...)
	i.unreadBytes += len(b)
	return true
}

// takeUnread returns the bytes kept for the socket, and forgets them.
func (i *idleConns) takeUnread(s *Socket) []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	b := i.unread[s]
	delete(i.unread, s)
	i.unreadBytes -= len(b)
	return b
}

// add takes a connection over. If Returned is not open, it shuts the connection down
// and lets it linger.
func (i *idleConns) add(fd int32, secure *secured, unread []byte) {
	idle, open := i.returned.accepting()
	c := &idleConn{fd: fd, tls: secure, unread: unread, list: &i.waiting, deadline: time.Now().Add(idle)}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !open {
		i.shutDown(c)
	}
	if i.waiting.Len() >= i.limit {
		oldest := i.remove(i.waiting.Front().Value.(*idleConn))
		i.shutDown(oldest)
		i.watch(oldest)
	}
	if i.lingering.Len() >= i.limit {
		i.close(i.lingering.Front().Value.(*idleConn))
	}
	i.watch(c)
}

// shutDown makes the connection linger. The caller holds mu, and calls watch.
func (i *idleConns) shutDown(c *idleConn) {
	c.goodbye()
	_ = syscall.Shutdown(int(c.fd), syscall.SHUT_WR)
	c.unread, c.list, c.deadline = nil, &i.lingering, time.Now().Add(lingerTime)
}

// watch adds a connection to its list and to the epoll instance. The caller holds mu.
func (i *idleConns) watch(c *idleConn) {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: c.fd}
	if len(c.unread) > 0 {
		event.Events |= syscall.EPOLLOUT // reports at once: there is something to read
	}
	failed := i.control(syscall.EPOLL_CTL_ADD, c.fd, &event)
	if i.closed || failed != nil {
		_ = syscall.Close(int(c.fd))
		return
	}
	i.conns[c.fd] = c
	c.element = c.list.PushBack(c)
	if i.nextDeadline.IsZero() || c.deadline.Before(i.nextDeadline) {
		i.setDeadline(c.deadline)
	}
}

// remove forgets a connection. The caller holds mu.
func (i *idleConns) remove(c *idleConn) *idleConn {
	delete(i.conns, c.fd)
	c.list.Remove(c.element)
	_ = i.control(syscall.EPOLL_CTL_DEL, c.fd, nil)
	return c
}

// close closes a connection. The caller holds mu.
func (i *idleConns) close(c *idleConn) {
	i.remove(c).goodbye()
	_ = syscall.Close(int(c.fd))
}

// goodbye tells a client with TLS, once, that nothing follows.
func (c *idleConn) goodbye() {
	if c.tls != nil {
		c.tls.goodbye()
		c.tls = nil
	}
}

func (i *idleConns) control(op int, of int32, event *syscall.EpollEvent) (failed error) {
	err := i.conn.Control(func(fd uintptr) { failed = syscall.EpollCtl(int(fd), op, int(of), event) })
	return errors.Join(err, failed)
}

// setDeadline makes loop call expire at that time. The caller holds mu.
func (i *idleConns) setDeadline(at time.Time) {
	i.nextDeadline = at
	_ = i.file.SetReadDeadline(at)
}

// closeWaiting closes the connections that wait for a request.
func (i *idleConns) closeWaiting() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.waiting.Len() > 0 {
		i.close(i.waiting.Front().Value.(*idleConn))
	}
}

// closeAll closes all connections, and those that are added later.
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

// loop handles events and deadlines until closeAll is called.
func (i *idleConns) loop() {
	events := make([]syscall.EpollEvent, 128)
	for {
		var n int
		err := i.conn.Read(func(fd uintptr) (done bool) {
			n = takeEvents(fd, events)
			return n > 0
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		i.expire(time.Now())
		for _, e := range events[:n] {
			i.check(e.Fd)
		}
	}
}

// expire closes the connections whose deadline has passed.
func (i *idleConns) expire(now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nextDeadline.IsZero() || now.Before(i.nextDeadline) {
		return
	}
	var next time.Time
	for _, of := range []*list.List{&i.waiting, &i.lingering} {
		for of.Len() > 0 {
			c := of.Front().Value.(*idleConn)
			if now.Before(c.deadline) {
				if next.IsZero() || c.deadline.Before(next) {
					next = c.deadline
				}
				break
			}
			i.close(c)
		}
	}
	i.setDeadline(next)
}

// check hands a connection to Accept if there is something to read. The event may be
// of a descriptor that was closed since.
func (i *idleConns) check(fd int32) {
	if c := i.takeReadable(fd); c != nil {
		if conn, err := c.open(); err == nil {
			i.returned.hand(conn)
		}
	}
}

// takeReadable removes and returns the connection with that descriptor if there is
// something to read. It closes one whose client has left.
func (i *idleConns) takeReadable(fd int32) *idleConn {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.conns[fd]
	switch {
	case c == nil:
		return nil
	case c.list == &i.lingering:
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

// open returns the connection as a net.Conn.
func (c *idleConn) open() (net.Conn, error) {
	file := os.NewFile(uintptr(c.fd), "")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err == nil && c.tls != nil {
		conn = c.tls.attach(conn)
	}
	if err == nil && len(c.unread) > 0 {
		conn = &unreadConn{conn, c.unread}
	}
	return conn, err
}

// discard reads some of what the client has sent. It returns why there is no more at
// the moment: nil if the client has closed its side.
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

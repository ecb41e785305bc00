package engine

import (
	"net"
	"sync"
	"time"
)

// Returned is a [net.Listener] for connections on which a stream has ended cleanly.
// Accept returns a connection when its client has sent its next request; until then
// the connection costs neither a goroutine nor a buffer. Close closes those that wait.
//
// It keeps connections from the first call of Open until Close. At other times, the
// engine closes a connection when its stream ends.
type Returned struct {
	conns chan net.Conn
	done  chan struct{}

	mu           sync.Mutex
	open         bool
	closed       bool
	idle         time.Duration
	closeWaiting func() // closes the connections that no call of Accept has returned
}

// NewReturned returns a listener that is not open.
func NewReturned() *Returned {
	return &Returned{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Open starts keeping connections, each until its client has been silent for idle.
func (r *Returned) Open(idle time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open, r.idle = true, idle
}

// accepting reports whether connections are kept, and for how long.
func (r *Returned) accepting() (idle time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.idle, r.open && !r.closed
}

// Accept implements [net.Listener].
func (r *Returned) Accept() (net.Conn, error) {
	select {
	case conn := <-r.conns:
		return conn, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

// hand blocks until Accept has returned the connection, or Close was called, which
// closes it.
func (r *Returned) hand(conn net.Conn) {
	select {
	case r.conns <- conn:
	case <-r.done:
		conn.Close()
	}
}

// Close implements [net.Listener].
func (r *Returned) Close() error {
	r.mu.Lock()
	drop := r.closeWaiting
	if !r.closed {
		r.closed = true
		close(r.done)
	}
	r.mu.Unlock()
	if drop != nil {
		drop()
	}
	return nil
}

// Addr implements [net.Listener]. Nothing can be dialed.
func (r *Returned) Addr() net.Addr { return returnedAddr{} }

type returnedAddr struct{}

func (returnedAddr) Network() string { return "tcp" }
func (returnedAddr) String() string  { return "returned" }

// unreadConn is a connection from which some bytes were read ahead.
type unreadConn struct {
	net.Conn
	unread []byte
}

func (c *unreadConn) Read(b []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

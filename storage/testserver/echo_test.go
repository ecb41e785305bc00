package testserver

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo is a server that repeats lines, and remembers them.
type echo struct {
	listener net.Listener
	work     sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
	heard    []string
	ends     []error // of connections
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{listener: listener}
	e.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, conn)
			e.mu.Unlock()
			e.work.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		e.mu.Lock()
		for _, conn := range e.conns {
			conn.Close()
		}
		e.mu.Unlock()
		e.work.Wait()
	})
	return e
}

func (e *echo) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		e.mu.Lock()
		if err != nil {
			e.ends = append(e.ends, err)
		} else {
			e.heard = append(e.heard, strings.TrimSuffix(line, "\n"))
		}
		e.mu.Unlock()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, line) // if it does not arrive, the test notices
	}
}

func (e *echo) addr() string { return e.listener.Addr().String() }

func (e *echo) hears(line string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.heard, line)
}

func (e *echo) ended() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.ends)
}

// client is a connection through a proxy.
type client struct {
	t     *testing.T
	conn  *net.TCPConn
	lines *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn.(*net.TCPConn), lines: bufio.NewReader(conn)}
}

// connected returns a connection that works.
func connected(t *testing.T, p *Proxy) *client {
	t.Helper()
	c := dial(t, p)
	c.says("hello", nil)
	return c
}

func (c *client) sends(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Errorf("send %q: %v", text, err)
	}
}

// gets demands the text, or that reading fails with this error. Silence is an
// exceeded deadline.
func (c *client) gets(text string, want error) {
	c.t.Helper()
	patience := 10 * time.Second
	if want == os.ErrDeadlineExceeded {
		patience = 200 * time.Millisecond
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.lines, got)
	if want != nil && err == nil || !errors.Is(err, want) || want == nil && string(got) != text {
		c.t.Errorf("got %q, %v; want %q, %v", got[:n], err, text, want)
	}
}

// says sends a line and demands it back, or that reading fails with this error.
func (c *client) says(line string, want error) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		if want != syscall.ECONNRESET || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			c.t.Errorf("send %q: %v", line, err)
		}
		return // the reset came before the line
	}
	c.gets(line+"\n", want)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) { // no signal comes
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}

package postgres

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// fault is what a proxy does to the next COMMIT.
type fault int

const (
	none               fault = iota
	dropAnswer               // it is done, and the connection breaks before the answer
	dropAnswerAndClose       // and no new connection is let through
	dropCommit               // both sides see the connection break before it
	vanishBeforeCommit       // the client does; the server does not
)

// proxy stands between a store and its server.
type proxy struct {
	t        *testing.T
	listener net.Listener
	server   string
	work     sync.WaitGroup

	mu     sync.Mutex
	next   fault
	count  int
	closed bool
	conns  []net.Conn
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, server: server}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

// url returns the URL, through the proxy, of what u is the URL of.
func (p *proxy) url(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		p.t.Fatal(err)
	}
	parsed.Host = p.listener.Addr().String()
	return parsed.String()
}

func (p *proxy) arm(f fault) { p.mu.Lock(); p.next = f; p.mu.Unlock() }
func (p *proxy) open()       { p.mu.Lock(); p.closed = false; p.mu.Unlock() }
func (p *proxy) fired() int  { p.mu.Lock(); defer p.mu.Unlock(); return p.count }

// take returns the fault if it is one of those and its time has come.
func (p *proxy) take(those ...fault) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range those {
		if p.next == f {
			p.next = none
			p.count++
			p.closed = f == dropAnswerAndClose
			return f
		}
	}
	return none
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		p.mu.Lock()
		closed := p.closed
		p.conns = append(p.conns, client)
		if err == nil {
			p.conns = append(p.conns, server)
		}
		p.mu.Unlock()
		if err != nil || closed {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		p.work.Go(func() { p.forward(client, server) })
		p.work.Go(func() { p.backward(client, server) })
	}
}

// forward carries what the client says. A COMMIT is the binding of a statement
// that was prepared with that text.
func (p *proxy) forward(client, server net.Conn) {
	defer server.Close()
	commits := make(map[string]bool)
	if _, err := copyMessage(server, client, false, nil); err != nil { // the startup message has no type
		return
	}
	for {
		_, err := copyMessage(server, client, true, func(kind byte, body []byte) bool {
			first, rest, _ := bytes.Cut(body, []byte{0})
			second, _, _ := bytes.Cut(rest, []byte{0})
			if kind == 'P' && string(second) == "COMMIT" {
				commits[string(first)] = true
			}
			if kind != 'B' || !commits[string(second)] {
				return true
			}
			switch p.take(dropCommit, vanishBeforeCommit) {
			case vanishBeforeCommit:
				_ = client.Close()
				_, _ = io.Copy(io.Discard, blackHole{server}) // until the server gives up
				return false
			case dropCommit:
				_ = client.Close()
				return false
			}
			return true
		})
		if err != nil {
			return
		}
	}
}

// blackHole reads from a connection that the other side must not see closed.
type blackHole struct{ net.Conn }

// backward carries what the server says.
func (p *proxy) backward(client, server net.Conn) {
	defer client.Close()
	for {
		_, err := copyMessage(client, server, true, func(kind byte, body []byte) bool {
			if kind == 'C' && string(body) == "COMMIT\x00" {
				return p.take(dropAnswer, dropAnswerAndClose) == none
			}
			return true
		})
		if err != nil {
			return
		}
	}
}

// copyMessage copies one message if pass, when there is one, lets it.
func copyMessage(to io.Writer, from io.Reader, typed bool, pass func(kind byte, body []byte) bool) (int, error) {
	head := make([]byte, 4, 5)
	if typed {
		head = head[:5]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return 0, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
	if _, err := io.ReadFull(from, body); err != nil {
		return 0, err
	}
	if pass != nil && !pass(head[0], body) {
		return 0, io.EOF
	}
	return to.Write(append(head, body...))
}

package postgres

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/storage/testserver"
)

// fault is what a commitProxy does to the next COMMIT.
type fault int

const (
	none               fault = iota
	dropAnswer               // it is done, and the connection breaks before the answer
	dropAnswerAndClose       // and no new connection is let through
	dropCommit               // both sides see the connection break before it
	vanishBeforeCommit       // the client does; the server does not
)

// commitProxy stands between a store and its server, and understands enough of the
// protocol to break a connection at a COMMIT.
type commitProxy struct {
	*testserver.Proxy

	mu      sync.Mutex
	next    fault
	count   int
	commits map[statement]bool // those that were prepared with that text
}

// statement names a prepared statement.
type statement struct {
	conn *testserver.Conn
	name string
}

func newProxy(t *testing.T, server string) *commitProxy {
	t.Helper()
	p := &commitProxy{Proxy: testserver.StartProxy(t, server), commits: make(map[statement]bool)}
	p.Tap(messageLength, p.pass)
	return p
}

func (p *commitProxy) open()       { p.Set(testserver.Fault{}) }
func (p *commitProxy) arm(f fault) { p.mu.Lock(); p.next = f; p.mu.Unlock() }
func (p *commitProxy) fired() int  { p.mu.Lock(); defer p.mu.Unlock(); return p.count }

// take returns the fault if it is one of those and its time has come.
func (p *commitProxy) take(those ...fault) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range those {
		if p.next == f {
			p.next = none
			p.count++
			return f
		}
	}
	return none
}

// messageLength returns the length of the first message in data. The first that a
// client sends has no type before its length.
func messageLength(c *testserver.Conn, d testserver.Direction, data []byte) int {
	kind := 1
	if d == testserver.ToServer && c.Seen(d) == 0 {
		kind = 0
	}
	if len(data) < kind+4 {
		return 0
	}
	length := kind + int(binary.BigEndian.Uint32(data[kind:]))
	if len(data) < length {
		return 0
	}
	return length
}

// pass passes on everything but the COMMIT, or the answer to it, at which it breaks
// the connection.
func (p *commitProxy) pass(c *testserver.Conn, d testserver.Direction, message []byte) bool {
	var fault fault
	switch {
	case d == testserver.ToServer && p.binds(c, message):
		fault = p.take(dropCommit, vanishBeforeCommit)
	case d == testserver.ToClient && message[0] == 'C' && string(message[5:]) == "COMMIT\x00":
		fault = p.take(dropAnswer, dropAnswerAndClose)
	}
	switch fault {
	case none:
		return true
	case vanishBeforeCommit:
		c.Cut(testserver.Vanish)
		return false
	case dropAnswerAndClose:
		p.Set(testserver.Fault{Refuse: true})
	}
	c.Cut(testserver.Close)
	return false
}

// binds reports whether a client's message is a COMMIT: the binding of a statement
// that was prepared with that text.
func (p *commitProxy) binds(c *testserver.Conn, message []byte) bool {
	if c.Seen(testserver.ToServer) == 0 {
		return false
	}
	first, rest, _ := bytes.Cut(message[5:], []byte{0})
	second, _, _ := bytes.Cut(rest, []byte{0})
	p.mu.Lock()
	defer p.mu.Unlock()
	if message[0] == 'P' && string(second) == "COMMIT" {
		p.commits[statement{c, string(first)}] = true
	}
	return message[0] == 'B' && p.commits[statement{c, string(second)}]
}

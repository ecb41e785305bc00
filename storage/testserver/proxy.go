package testserver

import (
	"context"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is a TCP proxy between clients and a server that fails on demand. Without
// a [Fault] it passes on what either side sends. An end or a reset of one side
// ends the whole connection, so half-closed connections are not supported.
//
// [Proxy.Set] gives all connections a fault, [Conn.Set] one of them, and
// [Proxy.Draw] each new one its own. [Proxy.Cut] and [Conn.Cut] end connections at
// once. A fault of certain messages needs a [Proxy.Tap].
//
// Its methods may be called at any time, by any goroutine.
type Proxy struct {
	t        testing.TB
	listener net.Listener
	ctx      context.Context // ends with the proxy
	work     sync.WaitGroup
	cuts     atomic.Int64
	lost     atomic.Int64

	mu      sync.Mutex // also of the faults of all connections
	closed  bool
	targets []string
	random  *rand.Rand
	draw    func(*rand.Rand) Fault
	split   func(*Conn, Direction, []byte) int
	pass    func(*Conn, Direction, []byte) bool
	conns   []*Conn // in the order in which they came
}

// Direction is one of the two ways through a proxy.
type Direction int

const (
	ToServer Direction = iota
	ToClient
)

// Fault describes how connections fail. The zero value is a network that works.
type Fault struct {
	Refuse   bool // reset new connections before a byte is passed on
	ToServer Flow
	ToClient Flow
}

// Flow describes what happens to the bytes of one direction. The proxy looks at one
// read at a time, or at one message at a time if it has a [Proxy.Tap].
type Flow struct {
	// Lose discards the bytes. The connection stays open. If both directions lose
	// their bytes, the connection is a black hole: no end and no reset gets through
	// either, for as long as the fault lasts.
	Lose bool
	// Hold makes the bytes, and the end of the connection, wait for the fault to end.
	Hold bool
	// Delay makes each read wait. The next read begins only after that.
	Delay time.Duration
	// Rate limits how many bytes pass in a second, if it is not zero.
	Rate int
	// CutAfter ends the connection with End once so many bytes have passed since
	// it got this fault, if it is not zero. A reset may overtake the last of them.
	CutAfter int64
	End      End
}

// Both returns a fault of both directions.
func Both(f Flow) Fault { return Fault{ToServer: f, ToClient: f} }

func (f Fault) flow(d Direction) Flow {
	if d == ToClient {
		return f.ToClient
	}
	return f.ToServer
}

// End is a way to end a connection.
type End int

const (
	Reset  End = iota // both sides see a reset
	Close             // both sides see an orderly end
	Vanish            // the client sees an orderly end, and the server nothing
)

// StartProxy starts a proxy to a server, on a port of 127.0.0.1, for as long as
// the test runs.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	return StartProxyAt(t, "127.0.0.1:0", target)
}

// StartProxyAt starts a proxy that listens on the address.
func StartProxyAt(t testing.TB, address, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{t: t, listener: listener, ctx: ctx, targets: []string{target}, random: rand.New(rand.NewPCG(rand.Uint64(), 0))}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close() // it ends the only call that could fail
		cancel()
		p.mu.Lock()
		p.closed = true
		for _, c := range p.conns {
			c.reset()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

// Addr returns the host and port at which the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL returns the URL of a server with the proxy's host and port in place of its
// own.
func (p *Proxy) URL(server string) string {
	p.t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		p.t.Fatalf("the URL of a server: %v", err)
	}
	u.Host = p.Addr()
	return u.String()
}

// Point makes new connections lead to the targets, each to a random one of them.
// Open connections stay where they are.
func (p *Proxy) Point(targets ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = slices.Clone(targets)
}

// Set gives all connections the fault, both open and new ones. A connection that
// has lost bytes goes on behind the hole when its fault ends, which TCP never
// does; see [Proxy.Heal].
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(f)
}

func (p *Proxy) set(f Fault) {
	p.draw = func(*rand.Rand) Fault { return f }
	for _, c := range p.conns {
		c.set(f)
	}
}

// Heal ends all faults, and resets the connections that have lost bytes.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(Fault{})
	for _, c := range p.conns {
		if c.lossy {
			c.reset()
		}
	}
}

// Draw gives each new connection the fault that draw returns for it. The random
// numbers follow from the seed; they choose among several targets, too. Open
// connections keep their faults. draw may call [Proxy.Cuts] and [Proxy.Lost], and
// nothing else of the proxy.
func (p *Proxy) Draw(seed uint64, draw func(*rand.Rand) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.random, p.draw = rand.New(rand.NewPCG(seed, 0)), draw
}

// Tap makes the proxy call pass with every message, before the fault of the
// connection applies to it. A message for which pass returns false is lost. pass may
// call the methods of the proxy and of the connection, for example to end the
// connection before the message. The proxy calls pass for both directions at the same
// time.
//
// split returns the length of the first message of data, or 0 if data ends before the
// message does. An incomplete message at the end of a connection is not passed on. A
// nil split takes each read for a message. Connections that are open already are not
// tapped.
func (p *Proxy) Tap(split func(c *Conn, d Direction, data []byte) int, pass func(c *Conn, d Direction, message []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.split, p.pass = split, pass
}

// Conns returns the open connections, in the order in which they came.
func (p *Proxy) Conns() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.conns), (*Conn).ended)
}

// Cut ends all open connections.
func (p *Proxy) Cut(e End) {
	for _, c := range p.Conns() {
		c.Cut(e)
	}
}

// Cuts returns how many connections [Flow.CutAfter] has ended.
func (p *Proxy) Cuts() int64 { return p.cuts.Load() }

// Lost returns how many reads or messages were lost on connections that stayed
// open.
func (p *Proxy) Lost() int64 { return p.lost.Load() }

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.work.Go(func() { p.carry(client.(*net.TCPConn)) })
	}
}

// carry carries a connection to its end.
func (p *Proxy) carry(client *net.TCPConn) {
	c := &Conn{proxy: p, client: client, done: make(chan struct{}), changed: make(chan struct{})}
	dialer := net.Dialer{Timeout: 2 * time.Second}
	server, err := dialer.DialContext(p.ctx, "tcp", p.target())
	if err != nil {
		reset(client)
		return
	}
	c.server = server.(*net.TCPConn)
	if !p.enter(c) {
		reset(client)
		reset(c.server)
		return
	}
	var back sync.WaitGroup
	back.Go(func() { c.carry(ToClient) })
	c.carry(ToServer)
	back.Wait()
	_ = client.Close() // either may be closed already
	_ = server.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = slices.DeleteFunc(p.conns, func(other *Conn) bool { return other == c })
}

func (p *Proxy) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets[p.random.IntN(len(p.targets))]
}

// enter gives a new connection its fault, and reports whether it may stay.
func (p *Proxy) enter(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draw != nil {
		c.fault = p.draw(p.random)
	}
	if p.closed || c.fault.Refuse {
		return false
	}
	c.split, c.pass = p.split, p.pass
	p.conns = append(p.conns, c)
	return true
}

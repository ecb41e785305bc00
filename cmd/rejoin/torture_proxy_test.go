package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tortureProxy is the way from one node to one of its servers, which does to the
// bytes what it is told to.
type tortureProxy struct {
	listener net.Listener
	target   atomic.Value // string
	mood     atomic.Int32
	delay    atomic.Int64 // of each read, while the mood is proxyDelays

	mu    sync.Mutex
	pairs map[*proxyPair]bool
	work  sync.WaitGroup
}

// The moods of a tortureProxy.
const (
	proxyPasses   = iota
	proxyDelays   // both ways
	proxySwallows // replies: the commands go through
	proxyHangs    // loses all, both ways, with the connections standing
	proxyRefuses  // connections are reset as they come
)

// proxyPair is a connection and its continuation.
type proxyPair struct {
	node, server *net.TCPConn
	lost         atomic.Bool // bytes are missing: it can only end
}

func newTortureProxy(t testing.TB, address, target string) *tortureProxy {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := &tortureProxy{listener: listener, pairs: make(map[*proxyPair]bool)}
	p.target.Store(target)
	p.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.carry(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mood.Store(proxyRefuses)
		p.reset(func(*proxyPair) bool { return true })
		p.work.Wait()
	})
	return p
}

func (p *tortureProxy) addr() string { return p.listener.Addr().String() }

// point has the proxy lead to another server, and ends what led to the old one.
func (p *tortureProxy) point(target string) {
	p.target.Store(target)
	p.reset(func(*proxyPair) bool { return true })
}

// calm ends any mood.
func (p *tortureProxy) calm() {
	p.mood.Store(proxyPasses)
	p.reset(func(pair *proxyPair) bool { return pair.lost.Load() })
}

// reset breaks off the connections that are picked, as hard as can be.
func (p *tortureProxy) reset(pick func(*proxyPair) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pair := range p.pairs {
		if pick(pair) {
			pair.reset()
		}
	}
}

func (pair *proxyPair) reset() {
	for _, conn := range []*net.TCPConn{pair.node, pair.server} {
		_ = conn.SetLinger(0) // it may be closed already, as below
		_ = conn.Close()
	}
}

func (p *tortureProxy) carry(node *net.TCPConn) {
	server, err := net.DialTimeout("tcp", p.target.Load().(string), 2*time.Second)
	if err != nil || p.mood.Load() == proxyRefuses {
		_ = node.SetLinger(0)
		node.Close()
		if err == nil {
			server.Close()
		}
		return
	}
	pair := &proxyPair{node: node, server: server.(*net.TCPConn)}
	p.mu.Lock()
	p.pairs[pair] = true
	p.mu.Unlock()
	defer func() {
		node.Close()
		server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pairs, pair)
	}()
	var back sync.WaitGroup
	back.Go(func() {
		p.pass(pair, node, server, true)
		node.Close()
	})
	p.pass(pair, server, node, false)
	server.Close()
	back.Wait()
}

func (p *tortureProxy) pass(pair *proxyPair, to io.Writer, from io.Reader, replies bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		mood := p.mood.Load()
		switch {
		case n == 0:
		case mood == proxyHangs, mood == proxySwallows && replies:
			pair.lost.Store(true)
			n = 0
		case pair.lost.Load() && mood == proxyPasses:
			pair.reset()
			return
		case mood == proxyDelays:
			time.Sleep(time.Duration(p.delay.Load())) // the network is slow
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if mood == proxyHangs && errors.Is(err, io.EOF) {
				p.await() // nor does the end of a connection get through
			}
			return
		}
	}
}

// await waits until the proxy no longer hangs.
func (p *tortureProxy) await() {
	for p.mood.Load() == proxyHangs {
		time.Sleep(10 * time.Millisecond) // until it is calmed
	}
}

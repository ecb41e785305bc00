package main

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// redisProxy is a network between a node and its Redis that loses what it is
// told to lose, with all connections standing.
type redisProxy struct {
	listener net.Listener
	target   string
	losing   atomic.Int32
	lost     atomic.Int64 // reads of the network that were lost

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// What a redisProxy loses.
const (
	loseNothing = iota
	loseTold    // every answer on the connections on which events are told
	loseAll
)

func newRedisProxy(t testing.TB, target string) *redisProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &redisProxy{listener: listener, target: target, conns: make(map[net.Conn]bool)}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { p.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for conn := range p.conns {
			conn.Close()
		}
		p.mu.Unlock()
		work.Wait()
	})
	return p
}

func (p *redisProxy) url() string { return "redis://" + p.listener.Addr().String() }

func (p *redisProxy) carry(node net.Conn) {
	defer node.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[node] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, node)
	}()

	var tells atomic.Bool
	var work sync.WaitGroup
	work.Go(func() {
		p.pass(server, node, func(sent []byte) bool {
			if bytes.Contains(bytes.ToLower(sent), []byte("\r\nxadd\r\n")) {
				tells.Store(true)
			}
			return p.losing.Load() == loseAll
		})
		server.Close()
	})
	p.pass(node, server, func([]byte) bool {
		losing := p.losing.Load()
		return losing == loseAll || losing == loseTold && tells.Load()
	})
	node.Close()
	work.Wait()
}

// pass carries bytes, but for those that are lost.
func (p *redisProxy) pass(to io.Writer, from io.Reader, lost func([]byte) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if lost(buf[:n]) {
			p.lost.Add(1)
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

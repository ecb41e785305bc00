package main

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cutter is a TCP proxy that carries each connection to one of its servers, and
// cuts it after a random number of bytes from there, while it is told to.
type cutter struct {
	url     string
	targets []string
	limit   func(cuts int64) int64 // how many bytes, after so many cuts
	on      atomic.Bool
	cuts    atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newCutter(t *testing.T, targetURLs ...string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{url: "http://" + listener.Addr().String(), limit: shortLived, conns: map[net.Conn]struct{}{}}
	for _, url := range targetURLs {
		c.targets = append(c.targets, strings.TrimPrefix(url, "http://"))
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { c.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		c.cutAll()
		work.Wait()
	})
	return c
}

// shortLived has most connections end within the first events, but now and then
// one has to live long enough for the largest.
func shortLived(cuts int64) int64 {
	if cuts < minCuts {
		return 1 + rand.Int64N(1500)
	}
	return 1 + rand.Int64N(500<<rand.IntN(7))
}

// rest waits until so many connections have been cut, if they come to that soon,
// and cuts no more.
func (c *cutter) rest(cuts int64) {
	for deadline := time.Now().Add(10 * time.Second); c.cuts.Load() < cuts && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // until more of them have come
	}
	c.on.Store(false)
	c.cutAll()
}

// headBytes is more than a response head has.
const headBytes = 500

func (c *cutter) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.targets[rand.IntN(len(c.targets))])
	if err != nil {
		return
	}
	defer server.Close()
	c.hold(client)
	defer c.release(client)

	go func() {
		_, _ = io.Copy(server, client)
		server.Close() // the client has left
	}()
	limit := int64(1) << 40
	if c.on.Load() {
		limit = c.limit(c.cuts.Load())
	}
	n, _ := io.CopyN(client, server, limit)
	if n == limit {
		c.cuts.Add(1)
	}
	// Half of the cuts look like an orderly close, half like a crash. Within
	// the head it is always the latter: a browser takes a head that ends early
	// for a whole one, without a type, and gives up for good.
	if n < headBytes || rand.IntN(2) == 0 {
		_ = client.(*net.TCPConn).SetLinger(0)
	}
}

func (c *cutter) hold(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = struct{}{}
}

func (c *cutter) release(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// cutAll cuts what is connected.
func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

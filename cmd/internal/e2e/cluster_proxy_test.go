package e2e

import (
	"bytes"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/storage/testserver"
)

// redisProxy is a network between nodes and their Redis that can lose the answers
// on the connections on which a node tells of events, and on no others.
type redisProxy struct {
	*testserver.Proxy

	mu         sync.Mutex
	tells      map[*testserver.Conn]bool
	losesTells bool
}

func newRedisProxy(t testing.TB, redis *testserver.Redis) *redisProxy {
	t.Helper()
	p := &redisProxy{Proxy: testserver.StartProxy(t, redis.Addr()), tells: make(map[*testserver.Conn]bool)}
	p.Tap(nil, func(c *testserver.Conn, d testserver.Direction, sent []byte) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d == testserver.ToServer {
			if bytes.Contains(bytes.ToLower(sent), []byte("\r\nxadd\r\n")) {
				p.tells[c] = true
			}
			return true
		}
		return !(p.losesTells && p.tells[c])
	})
	return p
}

func (p *redisProxy) loseTells(on bool) { p.mu.Lock(); p.losesTells = on; p.mu.Unlock() }

// blackHole loses everything, with all connections standing.
var blackHole = testserver.Both(testserver.Flow{Lose: true})

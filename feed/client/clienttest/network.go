// Package clienttest has what the tests of client and of its users share: a network
// without sockets, servers that answer by a script, and the blocks of their streams.
package clienttest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// Network is a network without sockets, so that clients and a whole HTTP server fit
// into one synctest bubble. As a listener, it accepts what Dial opens.
type Network struct {
	Refuse atomic.Int32 // that many more dials fail

	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// ErrRefused is the error of a dial that Network refuses.
var ErrRefused = errors.New("connection refused")

func NewNetwork() *Network {
	return &Network{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Serve serves handler on a network of its own until the end of the test.
func Serve(t *testing.T, handler http.Handler) *Network {
	t.Helper()
	n := NewNetwork()
	httpServer := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = httpServer.Serve(n) // always http.ErrServerClosed
	}()
	t.Cleanup(func() {
		httpServer.Close()
		<-done
	})
	return n
}

// Dial connects to the server, whatever the address. It is made for
// http.Transport.DialContext.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if n.Refuse.Add(-1) >= 0 {
		return nil, ErrRefused
	}
	here, there := net.Pipe()
	select {
	case n.conns <- there:
		return here, nil
	case <-n.closed: // a client may have its answer while it still dials
		return nil, ErrRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *Network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		return conn, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *Network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

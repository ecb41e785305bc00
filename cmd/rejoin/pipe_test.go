package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rejoin/rejoin/feed/client"
)

// pipes is a network without sockets, so that a client and a whole HTTP server
// fit into one synctest bubble. Its listener accepts what its dial opens.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int32 // attempts, successful or not
	refuse atomic.Int32 // that many more dials fail
}

var errRefused = errors.New("connection refused")

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	if p.refuse.Add(-1) >= 0 {
		return nil, errRefused
	}
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// newPipes serves handler. It must be called in a bubble, and ends with the test.
func newPipes(t *testing.T, handler http.Handler) *pipes {
	t.Helper()
	network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	httpServer := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = httpServer.Serve(network) // always http.ErrServerClosed
	}()
	t.Cleanup(func() {
		httpServer.Close()
		<-done
	})
	return network
}

// client returns a client that reaches the server, whatever the address.
func (p *pipes) client(t *testing.T, server string, o client.Options) *client.Client {
	t.Helper()
	transport := client.NewTransport()
	transport.DialContext = p.dial
	t.Cleanup(transport.CloseIdleConnections)
	o.Transport = transport
	c, err := newClient(server, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

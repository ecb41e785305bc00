package reach

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// pipes is a network without sockets, so that clients and a server fit into one
// synctest bubble. The server accepts what dial opens.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	refuse atomic.Int32 // that many more dials fail
}

var errRefused = errors.New("connection refused")

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if p.refuse.Add(-1) >= 0 {
		return nil, errRefused
	}
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed: // a client may have its answer while it still dials
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

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// client returns a client that reaches the server, whatever the address.
func (p *pipes) client(t *testing.T, server string) *client.Client {
	t.Helper()
	transport := client.NewTransport()
	transport.DialContext = p.dial
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(server, client.Options{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve serves handler until the end of the test.
func serve(t *testing.T, handler http.Handler) *pipes {
	network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(network) // always http.ErrServerClosed
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return network
}

func TestAny(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	unless := func(host string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host == host {
				silent(w, r)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		refused int32 // so many connections at first
		took    time.Duration
		err     string
	}{
		{"at once, whatever the answer is", unless(""), 0, 0, ""},
		{"one of two is enough", unless("one"), 0, 0, ""},
		{"one that is just starting", unless(""), 8, 800 * time.Millisecond, ""},
		{"none", unless(""), 1000, patience, "no server answers at http://u:xxxxx@one (connection refused), nor at http://two (connection refused)"},
		{"silence", silent, 0, patience, "no server answers at http://u:xxxxx@one (no answer within 3s), nor at http://two (no answer within 3s)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := serve(t, test.handler)
				network.refuse.Store(test.refused)
				both := []*client.Client{network.client(t, "http://u:secret@one"), network.client(t, "http://two")}
				began := time.Now()
				err := Any(t.Context(), both)
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				got := ""
				if err != nil {
					got = err.Error()
				}
				// Which of them is silent first is a matter of luck.
				if swapped := strings.NewReplacer("u:xxxxx@one", "two", "two", "u:xxxxx@one").Replace(got); got != test.err && swapped != test.err {
					t.Errorf("%q, want %q", got, test.err)
				}
			})
		})
	}
}

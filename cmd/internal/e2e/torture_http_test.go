package e2e

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed/client"
)

// What a client of the torture speaks. Those after HTTP/1.1 speak HTTP/2 where there is
// TLS.
const (
	clientHTTP1       = iota
	clientNarrow      // HTTP/1.1, with room for little in the system's buffers
	clientHTTP2       // over a connection of its own
	clientHTTP2Narrow // the same, with small windows and buffers
	clientShared      // over a connection that it shares with all others of this kind
)

const (
	// sharedWindow is less than the largest events have.
	sharedWindow = 8 << 10
	narrowWindow = 1 << 10
)

// tortureClient returns a client with connections of its own.
func tortureClient(kind int) *http.Client { return &http.Client{Transport: newTransport(kind)} }

func newTransport(kind int) *http.Transport {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	if kind == clientNarrow || kind == clientHTTP2Narrow {
		dialer.Control = narrow
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // it is known who is there
		ForceAttemptHTTP2: kind >= clientHTTP2,
		IdleConnTimeout:   10 * time.Second,
	}
	if kind >= clientHTTP2 {
		// Many requests depend on a connection, so it must not be dead for long.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 3 * time.Second * slower(), PingTimeout: 2 * time.Second * slower()}
	}
	switch kind {
	case clientHTTP2Narrow:
		t.HTTP2.MaxReceiveBufferPerStream = narrowWindow
	case clientShared:
		t.HTTP2.MaxReceiveBufferPerStream = sharedWindow
	}
	return t
}

// clientsOf returns clients of the servers, which share their connections.
func (s *schedule) clientsOf(kind int, urls []*url.URL) []*client.Client {
	return clientsOver(s.transport(kind), urls)
}

// subscriberOf returns the same for a subscriber, which has its cursor wherever a client
// may have it.
func (s *schedule) subscriberOf(kind int, urls []*url.URL, random *rand.Rand) []*client.Client {
	anywhere := &verify.CursorAnywhere{Transport: s.transport(kind), Random: random}
	return clientsOver(&answerCounter{anywhere, s}, urls)
}

func (s *schedule) transport(kind int) *http.Transport {
	if kind == clientShared {
		return s.shared.transport
	}
	return newTransport(kind)
}

// answerCounter counts the answers to subscribers and readers of pages.
type answerCounter struct {
	*verify.CursorAnywhere
	schedule *schedule
}

func (c *answerCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.CursorAnywhere.RoundTrip(r)
	if err == nil {
		c.schedule.answers.Add(1)
		if resp.ProtoMajor == 2 {
			c.schedule.answersHTTP2.Add(1)
		}
	}
	return resp, err
}

// sharedConnections is the transport of the clients that share connections.
type sharedConnections struct {
	transport *http.Transport
	resets    atomic.Int64

	mu   sync.Mutex
	open []net.Conn
}

func newSharedConnections() *sharedConnections {
	c := &sharedConnections{transport: newTransport(clientShared)}
	dial := c.transport.DialContext
	c.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.open = append(c.open, conn)
		}
		return conn, err
	}
	return c
}

// resetAll breaks off whatever is open, without TLS's or HTTP/2's good-bye.
func (c *sharedConnections) resetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		tcp := conn.(*net.TCPConn)
		if tcp.SetLinger(0) == nil && tcp.Close() == nil { // or it was closed before
			c.resets.Add(1)
		}
	}
	c.open = nil
}

// resetNowAndThen does so until ctx ends.
func (c *sharedConnections) resetNowAndThen(ctx context.Context, random *rand.Rand) {
	for sleep(ctx, time.Duration((0.3+1.7*random.Float64())*float64(time.Second*slower()))) == nil {
		c.resetAll()
	}
}

func clientsOver(transport http.RoundTripper, urls []*url.URL) (all []*client.Client) {
	for _, u := range urls {
		c, err := client.New(u.String(), client.Options{Transport: transport})
		if err != nil {
			panic(err) // they are the addresses of nodes
		}
		all = append(all, c)
	}
	return all
}

// hangUp closes the connections that clients share and do not use.
func hangUp(clients []*client.Client) { clients[0].HTTP().CloseIdleConnections() }

// narrow is the Control of a dialer. Left to itself, a system may hold tens of
// megabytes of what a client does not read.
func narrow(_, _ string, c syscall.RawConn) error {
	var err error
	return firstError(c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
	}), &err)
}

func firstError(err error, second *error) error {
	if err != nil {
		return err
	}
	return *second
}

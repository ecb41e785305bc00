package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// startReturning runs a node whose connections are served on after a stream.
func startReturning(t *testing.T, o server.Options) *node {
	t.Helper()
	n := start(t, o, nil)
	served := make(chan error, 1)
	returned := n.Returned(time.Minute)
	go func() { served <- n.http.Config.Serve(returned) }()
	t.Cleanup(func() {
		returned.Close()
		<-served
	})
	return n
}

// finish publishes the last event of a feed.
func (n *node) finish(name, data string) {
	n.t.Helper()
	if _, err := n.publisher.PublishBatch(n.t.Context(), feed.Publication{Feed: name, Drafts: []feed.Draft{{Feed: name, Data: data}}, Close: true}); err != nil {
		n.t.Error(err)
	}
}

// answers reads from a connection one answer after the other.
type answers struct {
	t *testing.T
	r *bufio.Reader
}

// next reads the next answer to its end, and demands the status and words of the body.
// It returns how the body ended.
func (a answers) next(status int, words string) error {
	a.t.Helper()
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		a.t.Fatalf("in place of an answer with %q: %v", words, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != status || !strings.Contains(string(body), words) {
		a.t.Errorf("%s %q, want %d with %q", resp.Status, body, status, words)
	}
	return err
}

// endsCleanly demands an answer that ends cleanly.
func (a answers) endsCleanly(status int, words string) {
	a.t.Helper()
	if err := a.next(status, words); err != nil {
		a.t.Errorf("the answer with %q ended with %v", words, err)
	}
}

const (
	closedEvent = "event: feed.closed\n"
	publishNews = "POST /v1/feeds/news/events HTTP/1.1\r\nHost: rejoin\r\nContent-Length: 4\r\n\r\nnews"
)

func getStream(name string) string {
	return "GET /v1/feeds/" + name + "/events?from=start HTTP/1.1\r\nHost: rejoin\r\n\r\n"
}

// TestNextRequest: a connection whose stream has ended cleanly serves the next
// request, whenever that comes. A client takes the connection from its pool, and may
// not repeat the request that it sends on it.
func TestNextRequest(t *testing.T) {
	n := startReturning(t, server.Options{})
	conn := dial(t, n.url)
	a := answers{t, bufio.NewReader(conn)}
	id := 0
	for i := range 4 {
		// After the stream.
		done, live := fmt.Sprint("done-", i), fmt.Sprint("live-", i)
		n.finish(done, "first")
		io.WriteString(conn, getStream(done))
		a.endsCleanly(200, closedEvent)
		id++
		io.WriteString(conn, publishNews)
		a.endsCleanly(201, fmt.Sprintf(`"id":%d,`, id))
		// While it runs.
		io.WriteString(conn, getStream(live))
		eventually(t, "the stream runs", func() bool { return n.hub.Stats().Subscribers == 1 })
		id++
		io.WriteString(conn, publishNews+getStream(done))
		n.finish(live, "second")
		a.endsCleanly(200, closedEvent)
		a.endsCleanly(201, fmt.Sprintf(`"id":%d,`, id))
		a.endsCleanly(200, closedEvent)
	}
}

// TestPipelined: requests that come with that for a stream are answered behind it, in
// their order, each once.
func TestPipelined(t *testing.T) {
	n := startReturning(t, server.Options{})
	n.finish("done", "first")
	conn := dial(t, n.url)
	a := answers{t, bufio.NewReader(conn)}
	padding := strings.Repeat("x", 1500) // so that some of it is read with the first, and some is not
	long := "GET /v1/feeds/news?" + padding + " HTTP/1.1\r\nHost: rejoin\r\n\r\n"
	io.WriteString(conn, getStream("live")+publishNews+getStream("done")+publishNews+long+long+long)
	eventually(t, "the stream runs", func() bool { return n.hub.Stats().Subscribers == 1 })
	n.finish("live", "last")
	a.endsCleanly(200, closedEvent)
	a.endsCleanly(201, `"id":1,`)
	a.endsCleanly(200, closedEvent)
	a.endsCleanly(201, `"id":2,`)
	for range 3 {
		a.endsCleanly(200, `"last":2`)
	}
}

// TestLastRequest: the answer to a request with Connection: close has that header, too,
// and the connection ends after the stream, as one of HTTP/1.0 does.
func TestLastRequest(t *testing.T) {
	n := startReturning(t, server.Options{})
	n.finish("done", "first")
	for _, proto := range []string{"HTTP/1.1", "HTTP/1.0"} {
		conn := dial(t, n.url)
		fmt.Fprintf(conn, "GET /v1/feeds/done/events?from=start %s\r\nHost: rejoin\r\nConnection: close\r\n\r\n", proto)
		answer, err := io.ReadAll(conn)
		if err != nil || strings.Contains(string(answer), "\r\nConnection: close\r\n") != (proto == "HTTP/1.1") || !strings.Contains(string(answer), closedEvent) {
			t.Errorf("%s: %q, %v", proto, answer, err)
		}
	}
}

// TestBreakTakesTheConnection: after a stream that breaks off, no request is
// answered. The head of the stream does not announce that the connection will end,
// because some clients then take every end for a clean one.
func TestBreakTakesTheConnection(t *testing.T) {
	n := startReturning(t, server.Options{})
	conn := dial(t, n.url)
	io.WriteString(conn, getStream("live"))
	r := bufio.NewReader(conn)
	head, err := http.ReadResponse(r, nil)
	if err != nil || head.Close || head.Header.Get("Connection") != "" {
		t.Fatalf("the head: %+v, %v", head, err)
	}
	eventually(t, "the stream runs", func() bool { return n.hub.Stats().Subscribers == 1 })
	io.WriteString(conn, publishNews)
	n.Drain(within(t, prompt), 0)
	body, err := io.ReadAll(head.Body)
	// net/http closes the connection with the request unread, so the kernel resets
	// it.
	if !errors.Is(err, io.ErrUnexpectedEOF) && !(*netHTTP && errors.Is(err, syscall.ECONNRESET)) {
		t.Errorf("the stream ended with %q and %v", body, err)
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil && !*netHTTP {
		t.Errorf("then %q, %v", rest, err)
	}
}

// TestTokenExpiresAndTheNextRequest: the end of a token is a clean end, too.
func TestTokenExpiresAndTheNextRequest(t *testing.T) {
	t.Parallel()
	n := brief(t, nil)
	go n.http.Config.Serve(n.Returned(time.Minute)) //nolint:errcheck // until the node closes
	for lifetime := range longer(t, 3*time.Second) {
		conn := dial(t, n.url)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: rejoin\r\nAuthorization: %s\r\n\r\n", events, bearerFor(t, lifetime)["Authorization"])
		a := answers{t, bufio.NewReader(conn)}
		if status, err := a.r.Peek(len("HTTP/1.1 401")); err == nil && strings.HasSuffix(string(status), "401") {
			continue // it has expired before the stream began
		}
		a.endsCleanly(200, "event: feed.expired\n")
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: rejoin\r\n\r\n")
		a.endsCleanly(200, "alive")
		break
	}
}

// TestPoolOfConnections: a client with a pool sends requests that must not be lost on
// the connections of streams, at the very moment at which the streams end.
func TestPoolOfConnections(t *testing.T) {
	n := startReturning(t, server.Options{})
	const clients, rounds = 8, 40
	var broken atomic.Int64
	transport := &http.Transport{TLSClientConfig: anyCertificate.Clone(), MaxConnsPerHost: clients, MaxIdleConnsPerHost: clients, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &watchedConn{Conn: conn, broken: &broken}, err
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var work sync.WaitGroup
	for c := range clients {
		work.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("feed-%d-%d", c, i)
				resp, err := client.Get(n.url + "/v1/feeds/" + name + "/events")
				if err != nil {
					t.Error(err)
					return
				}
				work.Go(func() { n.finish(name, "x") })
				body, err := io.ReadAll(resp.Body)
				if err != nil || !strings.Contains(string(body), closedEvent) {
					t.Errorf("%q, %v", body, err)
				}
				resp.Body.Close()
				// The transport cannot repeat a body of a reader type that it does
				// not know.
				post, err := http.NewRequestWithContext(t.Context(), "POST", n.url+"/v1/feeds/news/events", io.MultiReader(strings.NewReader("x")))
				if err != nil {
					t.Error(err)
					return
				}
				post.ContentLength = 1
				r, err := client.Do(post)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, r.Body) //nolint:errcheck // otherwise the connection is not used again, which the test notices
				r.Body.Close()
				if r.StatusCode != http.StatusCreated {
					t.Error(r.Status)
				}
			}
		})
	}
	work.Wait()
	// The number of connections shows nothing: net/http's client drops one itself if it
	// learns more than 50 ms after the answer that its request has gone out.
	if n := broken.Load(); n > 0 {
		t.Errorf("the server has closed %d connections that it should keep", n)
	}
}

// watchedConn counts in broken if the other side closes it first.
type watchedConn struct {
	net.Conn
	broken *atomic.Int64
	closed atomic.Bool
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !c.closed.Load() {
		c.broken.Add(1)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// TestReturnedCostsNothing: a connection that waits for its next request has no
// goroutine, and ends with its client.
func TestReturnedCostsNothing(t *testing.T) {
	n := startReturning(t, server.Options{})
	n.finish("done", "first")
	warm := dial(t, n.url)
	io.WriteString(warm, getStream("done"))
	answers{t, bufio.NewReader(warm)}.endsCleanly(200, closedEvent) // so that all is running that ever will
	eventually(t, "it has been handed over", func() bool { return n.hub.Stats().Subscribers == 0 })
	n.follow(events, nil).block() // what demandNothingLeft leaves out
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	var conns []net.Conn
	for range 50 {
		conn := dial(t, n.url)
		io.WriteString(conn, getStream("done"))
		answers{t, bufio.NewReader(conn)}.endsCleanly(200, closedEvent)
		conns = append(conns, conn)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	for _, conn := range conns {
		conn.Close()
	}
	demandNothingLeft(t, n, fds, goroutines)
}

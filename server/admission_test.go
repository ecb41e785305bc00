package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// wantShed fails the test unless the answer is, byte for byte, the one that makes a
// browser come back: a status other than 200 would stop it, and a clean end would stop
// some other clients.
func wantShed(t *testing.T, url, path string) {
	t.Helper()
	conn := dial(t, url)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: rejoin\r\nAccept: text/event-stream\r\n\r\n", path)
	raw, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || !strings.Contains(head, "\r\nTransfer-Encoding: chunked") || !strings.Contains(head, "\r\nContent-Type: text/event-stream; charset=utf-8\r\n") {
		t.Errorf("the head is %q", head)
	}
	line := regexp.MustCompile("^(?:c|d)\r\nretry: ([0-9]+)\n\r\n$").FindStringSubmatch(body)
	if line == nil {
		t.Fatalf("the body is %q, want one chunk with one line, and no last chunk", body)
	}
	if ms, err := strconv.Atoi(line[1]); err != nil || ms < 5000 || ms > 20_000 {
		t.Errorf("retry is %s, want 5 to 20 s", line[1])
	}
}

// wantFull fails the test unless subscribers of each kind get a time after which to
// come back, and other requests succeed.
func (n *node) wantFull(status int, words string) {
	n.t.Helper()
	for range 3 {
		wantShed(n.t, n.url, events)
	}
	wantShed(n.t, n.url, "/v1/events?feed=a,b")
	for _, test := range []struct{ path, accept string }{
		{events, ""}, {events, "*/*"}, {events, "application/x-ndjson"}, {events + "?wait=1s", "application/json"}, {"/v1/events?feed=a,b", "text/html"},
	} {
		r, body := n.do("GET", test.path, map[string]string{"Accept": test.accept}, "")
		wantProblem(n.t, r, body, status, words)
		if seconds, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || seconds < 1 {
			n.t.Errorf("%s as %s: Retry-After: %s", test.path, test.accept, r.Header.Get("Retry-After"))
		}
	}
	for _, test := range []struct{ method, path, accept string }{
		{"HEAD", events, "text/event-stream"}, {"GET", events, "application/json"}, {"GET", "/healthz", ""}, {"GET", "/readyz", ""}, {"POST", "/v1/feeds/other/events", ""},
	} {
		if r, body := n.do(test.method, test.path, map[string]string{"Accept": test.accept}, "x"); r.StatusCode >= 300 {
			n.t.Errorf("%s %s: %s %s", test.method, test.path, r.Status, body)
		}
	}
}

// take subscribes as soon as a slot is free, which needs the server to notice that
// another client has left.
func (n *node) take() *follower {
	n.t.Helper()
	for ctx := within(n.t, prompt); ; {
		resp := n.request("GET", events, nil, "")
		n.t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode == http.StatusOK {
			return &follower{n.t, resp.Body, bufio.NewReader(resp.Body)}
		}
		if ctx.Err() != nil {
			n.t.Fatalf("there is still no place: %s", resp.Status)
		}
		resp.Body.Close()
	}
}

// TestSubscribersLimit: new connections must not take the memory of present ones. Every
// subscriber that waits counts, until it has left.
func TestSubscribersLimit(t *testing.T) {
	n := start(t, server.Options{Subscribers: 3}, nil)
	n.publish("chat", "x", 1)
	many := n.follow("/v1/events?feed=chat,a,b,c", nil) // counts as one, however many feeds it follows
	many.block()
	lines := n.follow(events, map[string]string{"Accept": "application/x-ndjson"})
	ctx, leave := context.WithCancel(t.Context())
	polled := make(chan error, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, "GET", n.url+events+"?wait=1m&after=1", nil)
		if err == nil {
			r.Header.Set("Accept", "application/json")
			_, err = http.DefaultTransport.RoundTrip(r)
		}
		polled <- err
	}()
	const feeds = 6 // the number of feeds that the three follow
	for arrived := within(t, prompt); n.hub.Stats().Subscribers < feeds; runtime.Gosched() {
		if arrived.Err() != nil {
			t.Fatal("the request for a page does not wait")
		}
	}
	n.wantFull(http.StatusServiceUnavailable, "its limit of subscribers")

	many.close()
	n.take().close()
	n.take().block() // the slot is free again each time
	n.wantFull(http.StatusServiceUnavailable, "its limit of subscribers")
	lines.close()
	n.take().block()
	n.wantFull(http.StatusServiceUnavailable, "its limit of subscribers")
	leave()
	if err := <-polled; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	n.take().block()
	n.wantFull(http.StatusServiceUnavailable, "its limit of subscribers")
}

// TestSubscribersPerAddress: one address must not take the slots of the others.
func TestSubscribersPerAddress(t *testing.T) {
	n := start(t, server.Options{SubscribersPerAddress: 2}, nil)
	first, second := n.follow(events, nil), n.follow(events, nil)
	first.block()
	second.block()
	n.wantFull(http.StatusTooManyRequests, "this address has reached its limit of subscribers")

	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := elsewhere.DialContext(t.Context(), "tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server ignores an address that the client claims.
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n\r\n", events)
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("from another address: %v, %v", resp, err)
	}
	if r, _ := n.do("GET", events, map[string]string{"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}, ""); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("with an address that is made up: %s", r.Status)
	}
	second.close()
	n.take().close()
	n.take().block()
	n.wantFull(http.StatusTooManyRequests, "this address has reached its limit of subscribers")
}

// TestAddresses: an IPv6 client has more addresses than there is memory.
func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2", true},
		{"[2001:db8::1]:1", "[2001:db8:0:0:ffff::2]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
		{"@", "@", true},
	} {
		t.Run(test.a+" "+test.b, func(t *testing.T) {
			n := start(t, server.Options{SubscribersPerAddress: 1}, nil)
			from := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = r.Header.Get("From")
				n.ServeHTTP(w, r)
			}))
			t.Cleanup(from.Close)
			t.Cleanup(func() { n.Drain(context.Background(), 0) })
			n.url = from.URL
			n.follow(events, map[string]string{"From": test.a}).block()
			r, _ := n.head("GET", events, map[string]string{"From": test.b}, "")
			if (r.StatusCode == http.StatusTooManyRequests) != test.same {
				t.Errorf("%s", r.Status)
			}
		})
	}
}

// faulty is a store that fails with an unknown error.
type faulty struct{ feed.Store }

func (faulty) Bounds(context.Context, []string) ([]feed.Bounds, error) {
	return nil, errors.New("the index is malformed")
}

// TestFaultyStore: a short fault of the store must not stop the streams of open pages,
// as any 5xx would.
func TestFaultyStore(t *testing.T) {
	n := start(t, server.Options{}, func(s feed.Store) feed.Store { return faulty{s} })
	wantShed(t, n.url, events+"?lastEventId=1")
	wantShed(t, n.url, "/v1/events?feed=chat&from=start")
	r, body := n.do("GET", events+"?lastEventId=1", nil, "")
	wantProblem(t, r, body, http.StatusInternalServerError, "something went wrong")
	if strings.Contains(body, "malformed") {
		t.Error(body)
	}
}

// TestRejectedOverHTTP2: a client that comes back to a draining node opens a new
// connection for its next try, which may reach another node, after a short time.
func TestRejectedOverHTTP2(t *testing.T) {
	n := start(t, server.Options{Retry: 2 * time.Second}, nil)
	secure := httptest.NewUnstartedServer(n.Server)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	n.Drain(t.Context(), 0)
	seen := make(map[string]bool)
	for i := range 3 {
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GotConn: func(c httptrace.GotConnInfo) { seen[c.Conn.LocalAddr().String()] = true },
		}), "GET", secure.URL+events, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		resp, err := secure.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil || resp.ProtoMajor != 2 || !regexp.MustCompile(`^retry: [123]\d{3}\n$`).Match(body) {
			t.Errorf("got %q over %s, and then %v", body, resp.Proto, err)
		}
		if len(seen) != i+1 {
			t.Errorf("%d tries were made over %d connections", i+1, len(seen))
		}
	}
}

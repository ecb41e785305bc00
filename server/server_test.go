package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
)

var (
	// netHTTP makes net/http carry all streams.
	netHTTP = flag.Bool("net-http", false, "have net/http carry all streams")
	overTLS = flag.Bool("over-tls", false, "have all nodes speak TLS")
	// http2 makes clients that do not write their requests themselves speak HTTP/2.
	http2 = flag.Bool("http2", false, "have clients speak HTTP/2 over TLS")
)

// speakTLS makes the default client speak TLS, and HTTP/1.1.
func speakTLS() {
	transport := http.DefaultTransport.(*http.Transport)
	transport.TLSClientConfig = anyCertificate.Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(!*http2)
	transport.Protocols.SetHTTP2(*http2)
}

// anyCertificate makes a client trust every server. Under the race detector, the key
// exchange that is the default takes longer than most tests.
var anyCertificate = &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.CurveP256}}

// node is a whole server except for its configuration: a real store, a real bus, real
// connections.
type node struct {
	*server.Server
	t         *testing.T
	url       string
	store     feed.Store
	hub       *feed.Hub
	publisher *feed.Publisher
	http      *httptest.Server
}

// start runs a node for the length of the test. wrap, if not nil, stands
// between the node and its store.
func start(t *testing.T, o server.Options, wrap func(feed.Store) feed.Store) *node {
	t.Helper()
	var store feed.Store = newKeeper(t)
	if wrap != nil {
		store = wrap(store)
	}
	return startOn(t, store, o)
}

// startOn runs a node on a store that it closes.
func startOn(t *testing.T, store feed.Store, o server.Options) *node {
	t.Helper()
	bus := memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	n := &node{Server: server.New(hub, publisher, o), t: t, store: store, hub: hub, publisher: publisher}
	http1 := httptest.NewUnstartedServer(n.Server)
	n.http = http1
	http1.Config.ConnContext = overBoth
	if *overTLS {
		n.startTLS(http1)
	} else {
		http1.Start()
	}
	n.url = http1.URL
	t.Cleanup(func() {
		n.Drain(context.Background(), 0)
		http1.Close()
		publisher.Close()
		hub.Close()
		n.Close()
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// startTLS starts a server of the node with TLS, of which the engine can take connections
// over.
func (n *node) startTLS(s *httptest.Server) {
	take := func(conn net.Conn) bool { return !*netHTTP && n.ServeHTTP2(s.Config, conn) }
	s.Config.TLSConfig = &tls.Config{NextProtos: []string{"h2"}} // or it does not learn HTTP/2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Listener = server.NewTLSListener(s.Listener, certificate(), take, func(net.Conn, error) {})
	s.Start()
	s.URL = "https" + strings.TrimPrefix(s.URL, "http")
}

// certificate returns a configuration with a certificate that no client knows.
var certificate = sync.OnceValue(func() *tls.Config {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
})

// dial connects to the node. The TCP connection is conn itself, or below its TLS.
func (n *node) dial() (conn net.Conn, tcp *net.TCPConn) {
	n.t.Helper()
	dialed, err := net.Dial("tcp", n.http.Listener.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	if *overTLS {
		return tls.Client(dialed, anyCertificate), dialed.(*net.TCPConn)
	}
	return dialed, dialed.(*net.TCPConn)
}

// overBoth is the ConnContext of a server whose streams take the path that is
// being tested.
func overBoth(ctx context.Context, conn net.Conn) context.Context {
	if *netHTTP {
		conn = covered{conn}
	}
	return server.WithConn(ctx, conn)
}

// covered is a connection below another layer, such as TLS: the engine cannot take
// it.
type covered struct{ net.Conn }

func (c covered) NetConn() net.Conn { return c.Conn }

// do sends a request and returns the answer with its whole body.
func (n *node) do(method, path string, header map[string]string, body string) (*http.Response, string) {
	n.t.Helper()
	r := n.request(method, path, header, body)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return r, string(b)
}

func (n *node) request(method, path string, header map[string]string, body string) *http.Response {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp
}

// publish publishes text and demands the id.
func (n *node) publish(feedName, data string, wantID feed.ID) {
	n.t.Helper()
	r, body := n.do("POST", "/v1/feeds/"+feedName+"/events", nil, data)
	var answer struct{ ID feed.ID }
	if r.StatusCode != http.StatusCreated || json.Unmarshal([]byte(body), &answer) != nil || answer.ID != wantID {
		n.t.Fatalf("publish %q: %s %s, want 201 with id %d", data, r.Status, body, wantID)
	}
}

// follower reads an event stream byte by byte, as it came.
type follower struct {
	t    *testing.T
	body io.Closer
	r    *bufio.Reader
}

// follow opens an event stream; the test ends it.
func (n *node) follow(path string, header map[string]string) *follower {
	n.t.Helper()
	resp := n.request("GET", path, header, "")
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		n.t.Fatalf("GET %s: %s %s", path, resp.Status, body)
	}
	n.t.Cleanup(func() { resp.Body.Close() })
	return &follower{n.t, resp.Body, bufio.NewReader(resp.Body)}
}

func (f *follower) close() { f.body.Close() }

// block returns the next block, without its empty line and without the time of
// its retry line. Keep-alives are passed over.
func (f *follower) block() string {
	f.t.Helper()
	block, err := f.next()
	if err != nil {
		f.t.Fatalf("the stream ended (%v) in the block %q", err, block)
	}
	return block
}

// next returns the next block as block does, or what there is of it at the stream's end.
func (f *follower) next() (string, error) {
	var block strings.Builder
	for {
		line, err := f.r.ReadString('\n')
		if err != nil {
			return block.String() + line, err
		}
		switch {
		case line == ":\n":
		case line == "\n":
			return block.String(), nil
		case strings.HasPrefix(line, "retry: "):
			block.WriteString("retry\n")
		default:
			block.WriteString(line)
		}
	}
}

// want demands the next blocks.
func (f *follower) want(blocks ...string) {
	f.t.Helper()
	for _, want := range blocks {
		if got := f.block(); got != want {
			f.t.Fatalf("got the block\n%s\nwant\n%s", got, want)
		}
	}
}

func open(feedName string, cursor, first, last int) string {
	return fmt.Sprintf("retry\nevent: feed.open\ndata: {\"feed\":%q,\"cursor\":\"%d\",\"first\":%d,\"last\":%d}\nid: %d\n", feedName, cursor, first, last, cursor)
}

func event(id int, data string) string { return fmt.Sprintf("data: %s\nid: %d\n", data, id) }

// isBreak reports whether the error is that of a body that was broken off.
func isBreak(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || *http2 && strings.Contains(fmt.Sprint(err), "INTERNAL_ERROR; received from peer")
}

// longer yields times, each twice as long as the one before, for a test of what happens
// when a time has passed. The test goes on to the next one if its setup took longer than
// this one, because the machine is slow, and fails if even a minute is too short.
func longer(t testing.TB, first time.Duration) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		t.Helper()
		for d := first; d < 2*time.Minute; d *= 2 {
			if !yield(d) {
				return
			}
			t.Logf("%v were too short", d)
		}
		t.Fatal("however much time it has, it is too late")
	}
}

// within returns a context for a call that must not take long.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

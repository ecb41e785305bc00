package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network without sockets, so that a client and a whole HTTP server
// fit into one synctest bubble. Its listener accepts what its dial opens.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
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

// servePipes serves handler and returns the network and a client that reaches it. It
// must be called in a bubble. Both end with the test.
func servePipes(t *testing.T, handler http.Handler, o Options) (*pipes, *Client) {
	t.Helper()
	network := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	transport := NewTransport()
	transport.DialContext = network.dial
	o.Transport = transport
	c, err := New("http://rejoin.test", o)
	if err != nil {
		t.Fatal(err)
	}
	httpServer := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = httpServer.Serve(network) // always http.ErrServerClosed
	}()
	t.Cleanup(func() {
		c.HTTP().CloseIdleConnections()
		httpServer.Close()
		<-done
	})
	return network, c
}

// visit is one connection as the server saw it.
type visit struct {
	cursor, from string
	after        time.Duration // since the one before
}

// scripted answers each connection with the next of its answers, the last one
// again and again.
type scripted struct {
	answers []http.HandlerFunc

	mu     sync.Mutex
	last   time.Time
	visits []visit
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	v := visit{cursor: r.Header.Get("Last-Event-ID"), from: r.URL.Query().Get("from")}
	if !s.last.IsZero() {
		v.after = time.Since(s.last)
	}
	s.last = time.Now()
	answer := s.answers[min(len(s.visits), len(s.answers)-1)]
	s.visits = append(s.visits, v)
	s.mu.Unlock()
	answer(w, r)
}

// cursors returns the cursor that each connection came with.
func (s *scripted) cursors() (cursors []string) {
	for _, v := range s.visits {
		cursors = append(cursors, v.cursor+v.from)
	}
	return cursors
}

// sends answers with an event stream of these bytes that ends cleanly.
func sends(blocks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		for _, b := range blocks {
			_, _ = io.WriteString(w, b)
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// breaks answers with an event stream of these bytes that breaks off.
func breaks(blocks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		sends(blocks...)(w, r)
		panic(http.ErrAbortHandler)
	}
}

// fails answers with a problem.
func fails(status int, header map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"title":"%s","status":%d,"detail":"the detail of %d"}`, http.StatusText(status), status, status)
	}
}

// vanishes breaks the connection off without an answer.
func vanishes(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// hangs answers nothing.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func delivered(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// The blocks of a stream of one feed, and of several.

func opened(cursor int) string {
	return fmt.Sprintf("retry: 2143\nevent: feed.open\ndata: {\"feed\":\"chat\",\"cursor\":\"%d\",\"first\":1,\"last\":9}\nid: %d\n\n", cursor, cursor)
}

func sent(id int, data string) string {
	return "data: " + strings.ReplaceAll(data, "\n", "\ndata: ") + fmt.Sprintf("\nid: %d\n\n", id)
}

func control(kind, data, id string) string {
	b := "event: feed." + kind + "\ndata: " + data + "\n"
	if id != "" {
		b += "id: " + id + "\n"
	}
	return b + "\n"
}

func openedAt(id string) string { return control("open", `{"feeds":[]}`, id) }

// wrapped is an event in its envelope; data is JSON.
func wrapped(name string, id int, data, cursor string) string {
	return fmt.Sprintf("data: %s\nid: %s\n\n", wrap(name, id, data), cursor)
}

func wrap(name string, id int, data string) string {
	return fmt.Sprintf(`{"feed":%q,"id":%d,"type":"message","time":"2026-01-31T09:30:00.000Z","data":%s}`, name, id, data)
}

func gap(name string, after, resumes int, reason, id string) string {
	return control("gap", fmt.Sprintf(`{"feed":%q,"after":"%d","resumes":%d,"reason":%q}`, name, after, resumes, reason), id)
}

func closed(name string, last int, id string) string {
	return control("closed", fmt.Sprintf(`{"feed":%q,"last":%d}`, name, last), id)
}

// followed is the outcome of a call of Follow.
type followed struct {
	events []Event
	lines  []string // the same, but for KindOpen, as text
	losses []string // the failures before each wait
	err    error
}

// followScript follows against the answers in a bubble of its own.
func followScript(t *testing.T, s Subscription, answers ...http.HandlerFunc) (got followed, script *scripted) {
	t.Helper()
	script = &scripted{answers: answers}
	synctest.Test(t, func(t *testing.T) {
		_, c := servePipes(t, script, Options{Retrying: func(err error, _ time.Duration) { got.losses = append(got.losses, err.Error()) }})
		for e, err := range c.Follow(t.Context(), s) {
			if got.err != nil {
				t.Errorf("after the error comes %v, %v", e, err)
			}
			if got.err = err; err != nil {
				continue
			}
			got.events = append(got.events, e)
			if e.Kind != KindOpen {
				got.lines = append(got.lines, line(e))
			}
		}
	})
	return got, script
}

// line shows an event and the cursor behind it.
func line(e Event) string {
	switch e.Kind {
	case KindEvent:
		return fmt.Sprintf("%s %d %q at %s", e.Feed, e.ID, e.Type+":"+e.Data, e.Cursor)
	case KindEphemeral:
		return fmt.Sprintf("%s %q at %s", e.Feed, e.Type+":"+e.Data, e.Cursor)
	case KindGap:
		return fmt.Sprintf("gap of %s, %s: after %d, resumes %d at %s", e.Feed, e.Gap.Reason, e.Gap.After, e.Gap.Resumes, e.Cursor)
	}
	return fmt.Sprintf("%v at %s", e, e.Cursor)
}

var (
	chat = Subscription{Feeds: []string{"chat"}, From: "start"}
	both = Subscription{Feeds: []string{"chat", "news"}, From: "start"}
)

func (s Subscription) at(cursor string) Subscription {
	s.Cursor = cursor
	return s
}

func (s Subscription) of(types ...string) Subscription {
	s.Types = types
	return s
}

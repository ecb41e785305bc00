//go:build linux && !386 && !s390x

package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/rejoin/rejoin/server/engine"
)

// streams is a handler whose streams a test can write to.
type streams struct {
	t   *testing.T
	mu  sync.Mutex
	all map[string]*script // by path
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := StreamOf(r)
	script := newScript(st)
	w.Header().Set("Content-Type", "text/event-stream")
	if err := st.Take(w.Header(), []byte("open\n"), script); err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[r.URL.Path] = script
}

func (s *streams) of(path string) (one *script) {
	s.t.Helper()
	eventually(s.t, "the stream "+path, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		one = s.all[path]
		return one != nil
	})
	return one
}

func newStreams(t *testing.T) (*world, *streams) {
	s := &streams{t: t, all: make(map[string]*script)}
	return newWorld(t, s.ServeHTTP), s
}

// TestStalledStream: a stream whose client grants no window ends after the timeout; the
// others of the connection go on, and nobody keeps its bytes.
func TestStalledStream(t *testing.T) {
	w, s := newStreams(t)
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	const count = 99
	var ids []uint32
	for i := range count {
		ids = append(ids, c.request(fmt.Sprint("/", i), true))
	}
	stalled := s.of("/0")
	for i := range count {
		s.of(fmt.Sprint("/", i)).send(strings.Repeat("x", 95))
	}
	stalled.send(strings.Repeat("y", 1000))
	for _, id := range ids[1:] {
		c.must(c.WriteWindowUpdate(id, 1000))
	}
	last := s.of(fmt.Sprint("/", count-1))
	last.send(strings.Repeat("z", 300) + "the end")
	got := c.body(ids[count-1], 5+95+307)
	if !strings.HasSuffix(got, "the end") {
		t.Errorf("got %q", got)
	}
	if held := w.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
	w.ahead.Add(int64(3 * time.Second))
	c.wantReset(ids[0], http2.ErrCodeInternal)
	if err := <-stalled.closed; err != engine.ErrStalled {
		t.Errorf("it ended with %v", err)
	}
	last.send("still here")
	if got := c.body(ids[count-1], 10); got != "still here" {
		t.Errorf("got %q", got)
	}
}

// TestWindows: a stream fits any windows, in any order of updates, to the byte.
func TestWindows(t *testing.T) {
	w, s := newStreams(t)
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	id := c.request("/", true)
	one := s.of("/")
	var want strings.Builder
	want.WriteString("open\n")
	for i := range 300 {
		piece := fmt.Sprintf("%d%s\n", i, strings.Repeat(".", i*7%1000))
		want.WriteString(piece)
		one.send(piece)
	}
	one.end()
	total := want.Len()
	c.must(c.WriteWindowUpdate(0, 1<<20))
	go func() {
		for sent, i := 0, 0; sent < total; i++ {
			n := min(1+i*37%1500, total-sent)
			if i == 5 { // takes back more than was granted
				c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5}))
				sent += 5
			}
			if n = min(n, total-sent); n > 0 {
				c.must(c.WriteWindowUpdate(id, uint32(n)))
			}
			sent += n
		}
	}()
	reader := &client{Framer: http2.NewFramer(nil, c.conn), t: t, conn: c.conn}
	if got := reader.body(id, 0); got != want.String() {
		t.Errorf("got %d bytes, want %d", len(got), total)
	}
	if err := <-one.closed; err != errScriptOver {
		t.Errorf("ended with %v", err)
	}
}

// TestConnectionWindow: the streams of a connection share its window, and a stream that
// needs more than there is does not keep it from the others for ever.
func TestConnectionWindow(t *testing.T) {
	w, s := newStreams(t)
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	a, b := c.request("/a", true), c.request("/b", true)
	first, second := s.of("/a"), s.of("/b")
	first.send(strings.Repeat("a", initialWindow-10))
	if got := c.body(b, 5); got != "open\n" {
		t.Errorf("got %q", got)
	}
	c.body(a, initialWindow-10)
	second.send(strings.Repeat("b", 1000))
	c.must(c.WriteWindowUpdate(0, 400))
	c.must(c.WriteWindowUpdate(0, 600))
	if got := c.body(b, 1000); strings.Trim(got, "b") != "" {
		t.Errorf("got %q", got)
	}
}

// TestSlow: a stream learns that its bytes wait for a window of its own, or for that of the
// connection, and that they no longer do.
func TestSlow(t *testing.T) {
	w, s := newStreams(t)
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
	id := c.request("/narrow", true)
	narrow := s.of("/narrow")
	eventually(t, "the first bytes wait", narrow.waits.Load)
	c.must(c.WriteWindowUpdate(id, 1<<20))
	eventually(t, "they do not wait any more", func() bool { return !narrow.waits.Load() })

	narrow.send(strings.Repeat("x", initialWindow-len("open\n")))
	if got := c.body(id, initialWindow); len(got) != initialWindow {
		t.Fatalf("got %d bytes", len(got))
	}
	narrow.send("more")
	eventually(t, "bytes wait for the connection", func() bool {
		w.ahead.Add(int64(50 * time.Millisecond))
		return narrow.waits.Load()
	})
	c.must(c.WriteWindowUpdate(0, 100))
	if got := c.body(id, 4); got != "more" {
		t.Errorf("got %q", got)
	}
	eventually(t, "they do not wait either", func() bool { return !narrow.waits.Load() })
}

// TestBodies: an ordinary handler sees a request as over net/http: its body, trailers
// and 100 Continue; and the client sees its answer.
func TestBodies(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %s %d %d %s", r.Method, r.URL.Path, r.ContentLength, len(b), r.Trailer.Get("Checksum"))
	})
	c := w.connect()
	id := c.request("/upload", false, "expect", "100-continue", "trailer", "checksum")
	if f, ok := c.next().(*http2.HeadersFrame); !ok || f.StreamEnded() {
		t.Fatalf("want 100 Continue, got %v", f)
	}
	const size = 3 << 20
	sent, window, streamWindowLeft := 0, connWindow, streamWindow
	for sent < size {
		for window < frameBytes || streamWindowLeft < frameBytes {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == 0 {
				window += int(u.Increment)
			} else if ok {
				streamWindowLeft += int(u.Increment)
			}
		}
		c.must(c.WriteData(id, false, make([]byte, frameBytes)))
		sent, window, streamWindowLeft = sent+frameBytes, window-frameBytes, streamWindowLeft-frameBytes
	}
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode("checksum", "42"), EndStream: true, EndHeaders: true}))
	if got, want := c.body(id, 0), fmt.Sprintf("POST /upload -1 %d 42", size); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestReset: a reset ends the request's context, and its body.
func TestReset(t *testing.T) {
	ended := make(chan error, 1)
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		<-r.Context().Done()
		_, werr := io.WriteString(w, strings.Repeat("x", 100<<10))
		ended <- errors.Join(err, werr)
	})
	c := w.connect()
	id := c.request("/", false)
	c.must(c.WriteData(id, false, []byte("some")))
	c.must(c.WriteRSTStream(id, http2.ErrCodeCancel))
	if err := <-ended; err == nil {
		t.Error("the handler has seen no error")
	}
}

// TestWritesAfterReset: a handler that does not look at errors ends all the same.
func TestWritesAfterReset(t *testing.T) {
	ended := make(chan struct{})
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		for range 3 {
			_, _ = io.WriteString(w, "some")
			_ = http.NewResponseController(w).Flush()
		}
		close(ended)
	})
	c := w.connect()
	c.must(c.WriteRSTStream(c.request("/", true), http2.ErrCodeCancel))
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the handler still writes")
	}
}

// TestPanics: a handler that panics costs its own stream only.
func TestPanics(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			panic("early")
		case "/late":
			_, _ = io.WriteString(w, "some")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "hello")
	})
	c := w.connect()
	c.wantReset(c.request("/early", true), http2.ErrCodeInternal)
	c.wantReset(c.request("/late", true), http2.ErrCodeInternal)
	if got := c.body(c.request("/", true), 0); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestShutdown: a connection refuses further requests, answers those in progress, and
// then ends.
func TestShutdown(t *testing.T) {
	w, s := newStreams(t)
	c, silent := w.connect(), w.connect()
	id := c.request("/", true)
	one := s.of("/")
	stopped := make(chan error, 1)
	go func() { stopped <- w.server.Shutdown(context.Background()) }()
	silent.wantGone(http2.ErrCodeNo)
	c.wantGone(http2.ErrCodeNo)
	c.request("/late", true)
	one.send("last")
	one.end()
	if got := c.body(id, 0); !strings.HasSuffix(got, "last") {
		t.Errorf("got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if f := c.next(); f != nil {
		t.Errorf("got %v after the last stream", f)
	}
}

// TestLateRequest: what a client sends before it has read that the connection ends costs
// it nothing that is in progress.
func TestLateRequest(t *testing.T) {
	w, s := newStreams(t)
	c := w.connect()
	id := c.request("/", true)
	one := s.of("/")
	go func() { _ = w.server.Shutdown(t.Context()) }()
	c.wantGone(http2.ErrCodeNo)
	late := c.request("/late", false)
	c.must(c.WriteWindowUpdate(late, 100))
	c.must(c.WriteData(late, false, []byte("some")))
	c.must(c.WriteRSTStream(late, http2.ErrCodeCancel))
	c.must(c.WritePing(false, [8]byte{1}))
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			t.Fatal(f)
		}
		if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
			break
		}
	}
	one.send("last")
	one.end()
	if got := c.body(id, 0); !strings.HasSuffix(got, "last") {
		t.Errorf("got %q", got)
	}
}

// TestWriteDeadline: an answer that its client does not read ends at its deadline.
func TestWriteDeadline(t *testing.T) {
	ended := make(chan error, 1)
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := io.WriteString(w, strings.Repeat("x", 200<<10))
		ended <- err
	})
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.wantReset(c.request("/", true), http2.ErrCodeInternal)
	if err := <-ended; err == nil {
		t.Error("the handler has seen no error")
	}
}

// TestBodyWindow: a client that has used its window up gets a new one as soon as the
// handler has read, even if nothing else happens on the connection.
func TestBodyWindow(t *testing.T) {
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	c := w.connect()
	id := c.request("/", false)
	for range streamWindow / frameBytes {
		c.must(c.WriteData(id, false, make([]byte, frameBytes)))
	}
	for granted := 0; granted < streamWindow/2; {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%v, after a window of %d", err, granted)
		}
		if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == id {
			granted += int(u.Increment)
		}
	}
}

// TestLateTrailers: a client that has not seen yet that its request was answered may still
// send the rest of it. Its connection goes on.
func TestLateTrailers(t *testing.T) {
	w := newWorld(t, answerHello)
	c := w.connect()
	id := c.request("/", false)
	c.wantReset(id, http2.ErrCodeNo)
	c.must(c.WriteData(id, false, []byte("some")))
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode("checksum", "42"), EndStream: true, EndHeaders: true}))
	if got := c.body(c.request("/", true), 0); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestHosts: a request names its host once, or in the same way twice.
func TestHosts(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.Header["Host"]) })
	c := w.connect()
	ask := func(fields ...string) (id uint32) {
		id = c.nextID
		c.nextID += 2
		block := c.encode(append([]string{":method", "GET", ":scheme", "https", ":path", "/"}, fields...)...)
		c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}))
		return id
	}
	for _, fields := range [][]string{{":authority", "a:1"}, {"host", "a:1"}, {":authority", "a:1", "host", "a:1"}} {
		if got := c.body(ask(fields...), 0); got != "a:1[]" {
			t.Errorf("%q: got %q", fields, got)
		}
	}
	for _, fields := range [][]string{
		{":authority", "a", "host", "b"}, {"host", "a", "host", "a"}, {":authority", "a@b"}, {":authority", "a b"}, {":authority", "a/b"}, {"host", "a@b"},
	} {
		c.wantReset(ask(fields...), http2.ErrCodeProtocol)
	}
}

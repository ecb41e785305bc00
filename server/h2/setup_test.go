//go:build linux && !386 && !s390x

package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rejoin/rejoin/server/engine"
)

// world is a server on an engine, with a clock that can be moved.
type world struct {
	t      testing.TB
	server *Server
	engine *engine.Engine
	// One listener for all connections: the system takes the ports of those that have ended
	// again for a port that listens, but not for one of their own, and fuzzing needs many.
	listener net.Listener
	ahead    atomic.Int64 // what the clock is ahead
	held     atomic.Int64 // what full sockets keep
	runs     atomic.Int64 // handlers that run
}

// noDispatcher has no sockets: all of them are woken by themselves.
type noDispatcher struct{}

func (noDispatcher) Step() bool         { return false }
func (noDispatcher) C() <-chan struct{} { return nil }

func newWorld(t testing.TB, handler http.HandlerFunc) *world {
	t.Helper()
	began := time.Now()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &world{t: t, listener: l}
	now := func() time.Duration { return time.Since(began) + time.Duration(w.ahead.Load()) }
	e, err := engine.New(func() engine.Dispatcher { return noDispatcher{} }, engine.Options{WriteTimeout: time.Minute, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	w.engine = e
	t.Cleanup(func() {
		e.Close()
		w.server.Close()
		if n := w.runs.Load(); n > 0 {
			t.Errorf("%d handlers run", n)
		}
		if held := w.held.Load(); held != 0 {
			t.Errorf("%d bytes are still charged", held)
		}
	})
	w.server = NewServer(Options{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.runs.Add(1)
			defer w.runs.Add(-1)
			handler(rw, r)
		}),
		Logger: slog.New(slog.DiscardHandler), Clean: func(err error) bool { return err == errScriptOver }, Now: now,
		Hold:    func(n int) error { w.held.Add(int64(n)); return nil },
		Release: func(n int) { w.held.Add(-int64(n)) },
		Streams: 100, HeadBytes: 64 << 10, WriteTimeout: 2 * time.Second, AnswerTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	})
	return w
}

// client speaks frames.
type client struct {
	*http2.Framer
	t      testing.TB
	conn   *net.TCPConn
	block  bytes.Buffer
	hpack  *hpack.Encoder
	nextID uint32
}

// dial connects without TLS and does not send anything yet.
func (w *world) dial() *client {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	ours, err := w.listener.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.server.Serve(context.Background(), w.engine.NewSocket(), ours, false); err != nil {
		w.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	c := &client{Framer: http2.NewFramer(conn, conn), t: w.t, conn: conn.(*net.TCPConn), nextID: 1}
	c.hpack = hpack.NewEncoder(&c.block)
	return c
}

// connect also opens the connection, with the settings.
func (w *world) connect(settings ...http2.Setting) *client {
	w.t.Helper()
	c := w.dial()
	c.write(io.WriteString(c.conn, http2.ClientPreface))
	c.must(c.WriteSettings(settings...))
	return c
}

func (c *client) write(_ int, err error) { c.must(err) }

// must ends the test on an error, except that the server has ended the connection.
func (c *client) must(err error) {
	c.t.Helper()
	if _, broken := errors.AsType[*net.OpError](err); err != nil && !broken {
		c.t.Fatal(err)
	}
}

func (c *client) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// request sends a request and returns its stream.
func (c *client) request(path string, end bool, fields ...string) (id uint32) {
	c.t.Helper()
	method := "GET"
	if !end {
		method = "POST"
	}
	block := c.encode(append([]string{":method", method, ":scheme", "http", ":authority", "rejoin", ":path", path}, fields...)...)
	id = c.nextID
	c.nextID += 2
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: end, EndHeaders: true}))
	return id
}

// next returns the next frame, other than the server's settings, windows and
// acknowledgements; nil at the end of the connection.
func (c *client) next() http2.Frame {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return nil
		}
		switch f := f.(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
			continue
		case *http2.PingFrame:
			if f.IsAck() {
				continue
			}
		}
		return f
	}
}

// wantGone demands that the connection ends with GOAWAY and the code.
func (c *client) wantGone(code http2.ErrCode) {
	c.t.Helper()
	for {
		switch f := c.next().(type) {
		case nil:
			c.t.Errorf("the connection ended without GOAWAY, want %v", code)
			return
		case *http2.GoAwayFrame:
			if f.ErrCode != code {
				c.t.Errorf("GOAWAY with %v, want %v", f.ErrCode, code)
			}
			return
		}
	}
}

// wantReset demands that a stream is reset with the code.
func (c *client) wantReset(id uint32, code http2.ErrCode) {
	c.t.Helper()
	for {
		switch f := c.next().(type) {
		case nil:
			c.t.Fatalf("the connection ended, want RST_STREAM of %d", id)
		case *http2.GoAwayFrame:
			c.t.Fatalf("%v, want RST_STREAM of %d", f, id)
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				if f.ErrCode != code {
					c.t.Errorf("stream %d was reset with %v, want %v", id, f.ErrCode, code)
				}
				return
			}
		}
	}
}

// body returns the body of a stream up to its end, or up to n bytes if that is not 0.
func (c *client) body(id uint32, n int) string {
	c.t.Helper()
	var body []byte
	for {
		f := c.next()
		if f == nil {
			c.t.Fatalf("the connection ended after %d bytes of stream %d", len(body), id)
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			body = append(body, f.Data()...)
		case *http2.RSTStreamFrame:
			c.t.Fatalf("stream %d was reset with %v after %q", id, f.ErrCode, body)
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) || n > 0 && len(body) >= n {
			return string(body)
		}
	}
}

func eventually(t testing.TB, name string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", name)
		}
		time.Sleep(time.Millisecond)
	}
}

var errScriptOver = errors.New("the script is over")

// script is a stream that sends pieces of text.
type script struct {
	stream *Stream
	pieces chan string
	ends   atomic.Bool
	kept   string
	unread atomic.Int64 // bytes that Unwritten has put back
	waits  atomic.Bool  // Held was called since the last call of Written
	closed chan error
}

func newScript(st *Stream) *script {
	return &script{stream: st, pieces: make(chan string, 1000), closed: make(chan error, 1)}
}

func (s *script) send(piece string) {
	s.pieces <- piece
	s.Wake()
}

func (s *script) Wake() { s.stream.again() }

func (s *script) Next(time.Duration) ([]byte, error) {
	if s.kept != "" {
		return []byte(s.kept), nil
	}
	select {
	case piece := <-s.pieces:
		s.kept = piece
		return []byte(piece), nil
	default:
		if s.ends.Load() {
			return nil, errScriptOver
		}
		return nil, nil
	}
}

func (s *script) end() {
	s.ends.Store(true)
	s.Wake()
}

func (s *script) More() bool { return len(s.pieces) > 0 || s.kept != "" || s.ends.Load() }
func (s *script) Written() {
	s.kept = ""
	s.waits.Store(false)
}

func (s *script) Unwritten(n int, _ []byte) ([]byte, error) {
	s.kept = s.kept[n:]
	s.unread.Store(int64(len(s.kept)))
	return nil, nil
}

func (s *script) Held(int) error {
	s.waits.Store(true)
	return nil
}

func (s *script) Yield()                   {}
func (s *script) Over(time.Duration) error { return nil }
func (s *script) Due() time.Duration       { return century }
func (s *script) Closed(err error)         { s.closed <- err }

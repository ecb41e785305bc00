package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rejoin/rejoin/server/engine"
)

const (
	frameBytes    = 16 << 10 // of a DATA frame, at most
	frameHead     = 9
	turnBytes     = 16 << 10  // Next collects about that much
	streamWindow  = 256 << 10 // what a request's body may have unread
	connWindow    = 1 << 20   // what all bodies of a connection may have unread
	initialWindow = 65535     // of both sides, before any setting
	maxWindow     = 1<<31 - 1
	maxControl    = 64 << 10 // frames of the connection itself that a full socket keeps

	// A connection on which nothing has come for quietTime is asked for a sign of life,
	// and closed if there is none within pingTimeout.
	quietTime    = 20 * time.Second
	pingTimeout  = 20 * time.Second
	prefaceTime  = 10 * time.Second
	blockedCheck = time.Second

	century = 100 * 365 * 24 * time.Hour
)

// Conn is one connection. The worker of its socket is the only one to use it, except for
// what mu guards.
type Conn struct {
	server  *Server
	socket  *engine.Socket
	context context.Context
	remote  string
	tls     *tls.ConnectionState // nil without TLS

	decoder  *hpack.Decoder
	partial  []byte // the beginning of what is not complete yet
	prefaced bool   // the client has sent its preface …
	settled  bool   // … and its first settings
	streams  map[uint32]*Stream
	lastID   uint32    // the highest of a stream that the client has opened …
	served   uint32    // … and of one that was not ignored because the connection ends
	ready    []*Stream // may have something to write
	failure  error     // why the connection ends
	stopSent bool      // GOAWAY was sent
	left     bool      // the client has sent GOAWAY

	window        int32 // what may be sent
	initialWindow int32 // of a new stream
	received      int32 // what the client may send
	refund        int32 // bytes of that which were used and are free again
	held          int   // bytes that the full socket keeps
	credit        int   // see spend
	creditAt      time.Duration

	now      time.Duration
	due      time.Duration // no stream needs attention before
	heard    time.Duration // when the client last sent something
	idle     time.Duration // since when there has been no stream
	pingSent time.Duration // 0 if there is no answer to wait for

	mu       sync.Mutex
	control  []byte    // frames to be written before all others
	arrived  []*Stream // have something new for the worker
	running  int       // handlers
	consumed int32     // bytes of bodies that handlers have read
	stopping bool
	closed   bool
}

var _ engine.Receiver = (*Conn)(nil)

func newConn(ctx context.Context, s *Server, socket *engine.Socket, conn net.Conn) *Conn {
	now := s.options.Now()
	c := &Conn{
		server: s, socket: socket, context: ctx, remote: conn.RemoteAddr().String(),
		decoder: hpack.NewDecoder(4096, ignoreField), streams: make(map[uint32]*Stream),
		window: initialWindow, initialWindow: initialWindow, received: connWindow,
		credit: maxCredit, creditAt: now, now: now, heard: now, idle: now, due: now + prefaceTime,
	}
	c.decoder.SetMaxStringLength(s.options.HeadBytes)
	if secure, ok := conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		c.tls = &state
	}
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	_ = framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(s.options.Streams)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(s.options.HeadBytes)},
	)
	_ = framer.WriteWindowUpdate(0, connWindow-initialWindow)
	c.control = out.Bytes()
	return c
}

// Wake implements [engine.Stream].
func (c *Conn) Wake() { c.socket.Wake() }

// Next implements [engine.Stream]. It returns frames of the connection and of all
// streams that have something to write.
func (c *Conn) Next(now time.Duration) ([]byte, error) {
	c.now = now
	if now >= c.due {
		c.tick()
	}
	c.mu.Lock()
	arrived, stopping, consumed := c.arrived, c.stopping, c.consumed
	c.arrived, c.consumed = nil, 0
	c.mu.Unlock()
	c.giveWindow(consumed)
	for _, st := range arrived {
		c.accept(st)
	}
	c.mu.Lock() // what was pushed until here: if nothing is returned, Next is not called again
	out := append(c.socket.Buffer(), c.control...)
	c.control = nil
	c.mu.Unlock()
	if stopping && !c.stopSent && c.failure == nil {
		c.stopSent = true
		out = appendGoAway(out, c.served, http2.ErrCodeNo)
	}
	for n := len(c.ready); n > 0 && c.window > 0 && len(out) < turnBytes; n-- {
		st := c.ready[0]
		c.ready[0], c.ready = nil, c.ready[1:]
		st.queued = false
		out = c.write(st, out)
	}
	if len(c.ready) == 0 {
		c.ready = nil
	} else if c.window <= 0 {
		c.due = min(c.due, c.now+blockedCheck)
	}
	switch {
	case c.failure != nil:
		code := http2.ErrCodeNo
		if e, ok := errors.AsType[http2.ConnectionError](c.failure); ok {
			code = http2.ErrCode(e)
		}
		return appendGoAway(out, c.served, code), c.failure
	case (c.stopSent || c.left) && len(c.streams) == 0 && !c.More():
		return out, errStopped
	}
	return out, nil
}

var (
	errStopped = errors.New("the connection has served its last request")
	errIdle    = errors.New("the connection was idle for too long")
	errSilent  = errors.New("the client gives no sign of life")
)

// accept takes what a handler has left for the worker.
func (c *Conn) accept(st *Stream) {
	c.mu.Lock()
	if st.begun != nil {
		st.source, st.left, st.begun = st.begun.source, &st.begun.left, nil
	}
	consumed, broken := int32(0), st.broken
	if st.body != nil {
		consumed, st.body.consumed = st.body.consumed, 0
	}
	st.arrived = false
	c.mu.Unlock()
	c.giveStreamWindow(st, consumed)
	if broken && !st.closed {
		c.push(appendReset(nil, st.id, http2.ErrCodeInternal))
		c.close(st, errAborted)
		return
	}
	if st.source != nil && !st.closed {
		c.due = min(c.due, st.source.Due())
		st.queue()
	}
}

// write appends to out what the stream has and its windows allow.
func (c *Conn) write(st *Stream, out []byte) []byte {
	if st.closed || st.source == nil {
		return out
	}
	var piece []byte
	var ending error
	left := st.left
	if left != nil {
		out = append(out, left.head...)
		if left.headEnds {
			return c.end(st, io.EOF, true, out)
		}
		st.left, piece, ending = nil, left.piece, left.ending
	}
	kept := piece != nil
	if !kept {
		// Without a window, too: an end needs none.
		if piece, ending = st.read(c.now); len(piece) == 0 && ending == nil {
			st.blocked = 0
			if st.waits {
				st.waits = false
				st.source.Written()
			}
			return out
		}
	}
	n := min(len(piece), int(max(st.window, 0)), int(max(c.window, 0)))
	clean := ending != nil && (ending == io.EOF || c.server.options.Clean(ending))
	if n > 0 || len(piece) == 0 && clean {
		out = appendData(out, st.id, piece[:n], clean && n == len(piece))
	}
	if n > 0 {
		st.window -= int32(n)
		c.window -= int32(n)
		st.blocked = 0
		if n == len(piece) || n >= smallWrite {
			c.earn(2 + n/1024) // a client may answer each kilobyte with a window
		}
	}
	if n < len(piece) {
		if kept {
			left.head, left.piece, st.left = nil, piece[n:], left
			st.wait()
			return c.block(st, out)
		}
		return c.keep(st, n, piece, ending, out)
	}
	st.waits = false
	st.source.Written()
	if ending != nil {
		return c.end(st, ending, clean, out)
	}
	if st.source.More() {
		st.queue()
	}
	return out
}

// keep handles the part of a piece for which there was no window.
func (c *Conn) keep(st *Stream, n int, piece []byte, ending error, out []byte) []byte {
	keep, err := st.source.Unwritten(n, piece[n:])
	if err != nil {
		return c.end(st, err, false, out)
	}
	if keep != nil {
		st.left = &left{piece: keep, ending: ending}
	}
	return c.block(st, out)
}

// block notes that a stream waits for a window.
func (c *Conn) block(st *Stream, out []byte) []byte {
	if st.blocked == 0 {
		st.blocked = max(c.now, 1)
	}
	if st.window > 0 {
		st.queue() // the connection's window is used up
	}
	c.due = min(c.due, c.now+blockedCheck)
	return out
}

// end ends a stream whose last bytes are in out.
func (c *Conn) end(st *Stream, why error, clean bool, out []byte) []byte {
	switch {
	case !clean:
		out = appendReset(out, st.id, http2.ErrCodeInternal)
	case !st.clientEnded:
		out = appendReset(out, st.id, http2.ErrCodeNo) // the rest of the body is not wanted
	}
	c.close(st, why)
	return out
}

// close forgets a stream.
func (c *Conn) close(st *Stream, why error) {
	if st.closed {
		return
	}
	st.closed = true
	delete(c.streams, st.id)
	if len(c.streams) == 0 {
		c.idle = c.now
		c.due = min(c.due, c.now+c.server.options.IdleTimeout)
	}
	c.mu.Lock()
	st.gone = why
	source := st.source
	if st.begun != nil {
		source = st.begun.source
	}
	st.source, st.begun, st.left = nil, nil, nil
	cancel := st.cancel
	st.cancel = nil
	c.mu.Unlock()
	if st.body != nil {
		c.giveWindow(st.body.fail(errStreamGone))
	}
	if cancel != nil {
		cancel()
	}
	if source != nil {
		source.Closed(why)
	}
}

// push appends frames to those that are written before all others.
func (c *Conn) push(frames []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control = append(c.control, frames...)
}

// stop makes the connection refuse further requests, and end after the present ones.
func (c *Conn) stop() {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.socket.Wake()
}

// More implements [engine.Stream].
func (c *Conn) More() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ready) > 0 && c.window > 0 || len(c.control) > 0 || len(c.arrived) > 0
}

// Written implements [engine.Stream].
func (c *Conn) Written() {
	if c.held > 0 {
		_ = c.hold(0)
	}
}

// Unwritten implements [engine.Stream].
func (c *Conn) Unwritten(_ int, left []byte) (keep []byte, err error) {
	if err := c.Held(len(left)); err != nil {
		return nil, err
	}
	return bytes.Clone(left), nil
}

// Held implements [engine.Stream].
func (c *Conn) Held(n int) error { return c.hold(n) }

// hold notes how many bytes the socket keeps.
func (c *Conn) hold(n int) error {
	if n == 0 {
		c.server.options.Release(c.held)
		c.held = 0
		return nil
	}
	if err := c.server.options.Hold(n); err != nil {
		return err
	}
	c.held += n
	return nil
}

// Yield implements [engine.Stream].
func (c *Conn) Yield() {}

// Due implements [engine.Stream].
func (c *Conn) Due() time.Duration { return c.due }

// Closed implements [engine.Stream].
func (c *Conn) Closed(err error) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for _, st := range c.streams {
		c.close(st, err)
	}
	c.Written()
	c.server.remove(c)
}

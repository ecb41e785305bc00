package h2

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

// Stream is one request and its answer. The worker of its connection is the only one to
// use it, except for what the connection's mu guards, and for Take.
type Stream struct {
	conn *Conn
	id   uint32

	window  int32         // what may be sent
	source  engine.Stream // of the answer; nil until the handler has begun it
	left    *left         // to be written before the next piece; nil for nothing
	body    *body         // nil if the request has none
	blocked time.Duration // since when it waits for a window; 0 if it does not

	queued      bool // in conn.ready
	waits       bool // see wait
	closed      bool
	clientEnded bool // the request is complete

	// Guarded by conn.mu.
	arrived bool               // in conn.arrived
	broken  bool               // the handler has failed
	cancel  context.CancelFunc // ends the context of the request; nil after the handler
	begun   *begun             // nil unless the handler has just begun the answer
	gone    error              // why it was closed
}

// begun is an answer that a handler has begun.
type begun struct {
	source engine.Stream
	left   left
}

// left is what a stream has to write that its source does not return again.
type left struct {
	head     []byte // HEADERS frames
	headEnds bool   // they are the whole answer
	piece    []byte
	ending   error // came with the piece
}

var errStreamGone = errors.New("h2: the stream was closed")

type streamKey struct{}

// requestContext is the context of a request.
type requestContext struct {
	context.Context
	stream *Stream
}

func (c *requestContext) Value(key any) any {
	if key == (streamKey{}) {
		return c.stream
	}
	return c.Context.Value(key)
}

// StreamOf returns the stream of a request, or nil if no [Server] of this package serves
// it.
func StreamOf(r *http.Request) *Stream {
	st, _ := r.Context().Value(streamKey{}).(*Stream)
	return st
}

// Dispatcher returns the dispatcher that must call Notify of this stream.
func (st *Stream) Dispatcher() engine.Dispatcher { return st.conn.socket.Dispatcher() }

// Notify makes the connection write what the source has. Only the dispatcher may call it.
func (st *Stream) Notify() {
	if st.closed || st.source == nil {
		return
	}
	if st.blocked == 0 || st.window > 0 {
		st.queue()
	}
}

// Take makes the connection write the head of an answer with the status 200, first, and
// then what the source returns. The handler of the request calls it, before it has
// written anything. If it returns an error, it does not call Closed of the source.
func (st *Stream) Take(header http.Header, first []byte, source engine.Stream) error {
	return st.take(encodeHead(st.id, http.StatusOK, header, false), false, first, source)
}

func (st *Stream) take(head []byte, headEnds bool, first []byte, source engine.Stream) error {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone != nil {
		return st.gone
	}
	st.begun = &begun{source, left{head: head, headEnds: headEnds, piece: first}}
	st.arrive()
	return nil
}

// arrive makes the worker look at the stream. The caller holds conn.mu.
func (st *Stream) arrive() {
	if !st.arrived {
		st.arrived = true
		st.conn.arrived = append(st.conn.arrived, st)
		st.conn.socket.Wake()
	}
}

// queue makes the connection write what the stream has.
func (st *Stream) queue() {
	if !st.queued {
		st.queued = true
		st.conn.ready = append(st.conn.ready, st)
		st.conn.socket.Soon()
	}
}

// wait notes that bytes of the stream wait for the client, although its source cannot
// know: because of the connection's window or its socket.
func (st *Stream) wait() {
	if !st.waits {
		st.waits = true
		_ = st.source.Held(0) // costs nothing
	}
}

// read calls Next of the source. A panic must not end the other streams.
func (st *Stream) read(now time.Duration) (piece []byte, err error) {
	defer func() {
		if value := recover(); value != nil {
			piece, err = nil, &engine.PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return st.source.Next(now)
}

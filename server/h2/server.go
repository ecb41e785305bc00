// Package h2 serves HTTP/2 connections on the sockets of package engine. An idle
// connection costs neither a goroutine, nor a timer, nor a buffer, and what several
// streams of it have to send leaves in one write.
//
// A [Conn] is the [engine.Receiver] of one socket. The socket's worker calls it:
//
//	Conn.Receive  parses frames, starts requests and notes windows (receive.go)
//	Conn.Next     collects the frames to write: those of the connection itself, and
//	              then a piece of each stream that has one and a window for it (conn.go)
//
// Each request runs a handler on a goroutine of its own (request.go). The handler either
// writes an ordinary answer (response.go) or hands an [engine.Stream] over to
// [Stream.Take] and returns. Either way the connection sees a source of bytes, from
// which it takes as much as the windows allow. A stream without a window costs no bytes.
//
// Frames are parsed and heads decoded by golang.org/x/net/http2. Heads are encoded
// without the table that both sides would have to keep, so that any goroutine can encode
// one at any time.
//
// What a client can make the server do for nothing, such as answering a PING, uses up
// its credit (see Conn.spend). A client without credit is disconnected.
package h2

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

// Options configures a server. None of them has a default.
type Options struct {
	Handler http.Handler
	// Logger receives the panics of handlers.
	Logger *slog.Logger
	// Clean reports whether a stream that ends for this reason is complete. Any other
	// is reset.
	Clean func(error) bool
	// Hold charges for the bytes that a full socket keeps, or returns an error. Release
	// gives them back.
	Hold    func(bytes int) error
	Release func(bytes int)
	// Now is the clock of the engine.
	Now func() time.Duration
	// Streams limits the concurrent streams of a connection, and HeadBytes the size of
	// a request's head.
	Streams, HeadBytes int
	// WriteTimeout limits how long a stream may have no window while bytes wait, and
	// AnswerTimeout how long an ordinary answer may take.
	WriteTimeout, AnswerTimeout time.Duration
	// IdleTimeout limits how long a connection may have no stream.
	IdleTimeout time.Duration
}

// Server has the connections that it serves.
type Server struct {
	options  Options
	handlers *handlers

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	stopping bool
	gone     chan struct{} // closed when stopping and no connection is left
}

// NewServer returns a server without connections.
func NewServer(o Options) *Server {
	return &Server{options: o, handlers: newHandlers(), conns: make(map[*Conn]struct{}), gone: make(chan struct{})}
}

// Serve makes the socket serve HTTP/2 on conn, and returns. Values of ctx are those of
// the requests' contexts; its end has no effect. It always closes conn, at the latest
// after the last stream.
func (s *Server) Serve(ctx context.Context, socket *engine.Socket, conn net.Conn, prefaced bool) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return conn.Close()
	}
	c := newConn(context.WithoutCancel(ctx), s, socket, conn)
	if prefaced {
		c.passPreface()
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	if err := socket.Take(conn, nil, c); err != nil {
		s.remove(c)
		return err
	}
	return nil
}

// Shutdown refuses further requests and returns when those in progress have been
// answered, and their connections have ended, or when ctx has ended.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		s.checkGone()
	}
	for c := range s.conns {
		c.stop()
	}
	s.mu.Unlock()
	select {
	case <-s.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close returns after the last handler. The engine has been closed before.
func (s *Server) Close() { s.handlers.close() }

func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.checkGone()
}

// checkGone closes gone when the last connection has ended. The caller holds mu.
func (s *Server) checkGone() {
	if s.stopping && len(s.conns) == 0 {
		select {
		case <-s.gone:
		default:
			close(s.gone)
		}
	}
}

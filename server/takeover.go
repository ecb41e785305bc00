package server

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/rejoin/rejoin/server/engine"
)

type connKey struct{}

// WithConn is for the ConnContext of an http.Server. It lets the [Server] take
// connections over: streams over HTTP/1.1 without TLS are then written at a
// fraction of what they cost otherwise. It needs Linux.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	if tcp, ok := conn.(*net.TCPConn); ok {
		return context.WithValue(ctx, connKey{}, tcp)
	}
	return ctx
}

// socketFor returns a socket to carry the answer to r, or nil if net/http has to.
func (s *Server) socketFor(r *http.Request) *engine.Socket {
	if !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 || r.Context().Value(connKey{}) == nil {
		return nil
	}
	s.engineOnce.Do(s.startEngine)
	if s.engine == nil {
		return nil
	}
	return s.engine.NewSocket()
}

func (s *Server) startEngine() {
	e, err := engine.New(s.hub, engine.Options{WriteTimeout: s.options.WriteTimeout, Now: s.now})
	switch {
	case err == nil:
		s.engine = e
	case !errors.Is(err, errors.ErrUnsupported):
		s.logger.Warn("streams cost more than they could", "error", err)
	}
}

// take has the socket carry the stream, of which the client has the beginning.
func (s *Server) take(w http.ResponseWriter, socket *engine.Socket, st *stream) {
	st.chunk()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = socket.Take(conn, st.group, st)
	}
	if err != nil {
		st.Closed(err)
		panic(http.ErrAbortHandler)
	}
}

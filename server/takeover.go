package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

type connKey struct{}

// WithConn is for the ConnContext of an http.Server. It lets the [Server] take
// connections over: streams over HTTP/1.1 without TLS are then written at a
// fraction of what they cost otherwise. With TLS, it lets the Server see whether
// a slow client reads. It needs Linux.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// socketFor returns a socket to carry the answer to r, or nil if net/http has to,
// which knows what to do about the body of a request that needs none.
func (s *Server) socketFor(r *http.Request) *engine.Socket {
	_, tcp := r.Context().Value(connKey{}).(*net.TCPConn)
	if !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 || r.ContentLength != 0 || !tcp {
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

// take has the socket carry the stream, behind the head of the response: nobody
// has written anything yet.
func (s *Server) take(w http.ResponseWriter, socket *engine.Socket, st *stream) {
	st.chunk()
	head := append(appendHead(nil, w.Header()), st.open()...)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = socket.Take(conn, head, st.group, st)
	}
	if err != nil {
		st.Closed(err)
		panic(http.ErrAbortHandler)
	}
}

// appendHead appends the head of a response in chunks, as net/http would write it.
func appendHead(dst []byte, header http.Header) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	for name, values := range header {
		for _, value := range values {
			dst = append(append(dst, name...), ": "...)
			dst = append(append(dst, lineBreaks.Replace(value)...), "\r\n"...)
		}
	}
	dst = append(dst, "Date: "...)
	dst = time.Now().UTC().AppendFormat(dst, http.TimeFormat)
	// Nobody would read another request from this connection.
	return append(dst, "\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"...)
}

// lineBreaks keeps the value of a field in its line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

package server

import (
	"cmp"
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
	newDispatcher := func() engine.Dispatcher { return s.hub.NewLane() }
	e, err := engine.New(newDispatcher, engine.Options{WriteTimeout: s.options.WriteTimeout, Now: s.now, Reusable: clean, Returned: s.returned})
	switch {
	case err == nil:
		s.engine = e
	case !errors.Is(err, errors.ErrUnsupported):
		s.logger.Warn("streams cost more than they could", "error", err)
	}
}

// take has the socket carry the stream, behind the head of the response: nobody
// has written anything yet.
func (s *Server) take(w http.ResponseWriter, r *http.Request, socket *engine.Socket, st *stream) {
	st.chunk()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err == nil {
		// The next request may be here already.
		unread, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
		last := r.Close || !socket.Reuse(unread)
		err = socket.Take(conn, append(appendHead(nil, w.Header(), last), st.open(s.options.Retry)...), st)
	}
	if err != nil {
		st.Closed(err)
		panic(http.ErrAbortHandler)
	}
}

// Returned returns the listener of the connections on which streams have ended
// cleanly and that then bring another request, to be served by the http.Server that
// took them: its Serve may be called for several listeners. A connection that brings
// none within idle is closed; 0 means 2 minutes. Shutdown and Close of that server
// close the listener, too.
//
// It is for streams that [WithConn] lets this server take over, and to be called
// before there are any. Where it was not, nor anybody accepts from it, such a
// connection is closed when its stream has ended cleanly: the whole stream arrives,
// but a request that the client sends at that moment gets no answer, and one that is
// not idempotent, such as a POST, is not repeated by most clients.
func (s *Server) Returned(idle time.Duration) net.Listener {
	s.returned.Open(cmp.Or(idle, 2*time.Minute))
	return s.returned
}

// appendHead appends the head of a response in chunks, as net/http would write it.
// Only the last response of a connection says so: with that in the head, some clients
// (Node's fetch) take a stream that breaks off for one that has ended.
func appendHead(dst []byte, header http.Header, last bool) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	for name, values := range header {
		for _, value := range values {
			dst = append(append(dst, name...), ": "...)
			dst = append(append(dst, lineBreaks.Replace(value)...), "\r\n"...)
		}
	}
	dst = append(dst, "Date: "...)
	dst = time.Now().UTC().AppendFormat(dst, http.TimeFormat)
	if last {
		dst = append(dst, "\r\nConnection: close"...)
	}
	return append(dst, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
}

// lineBreaks keeps the value of a field in its line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

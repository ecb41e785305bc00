package server

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/engine"
	"github.com/rejoin/rejoin/server/h2"
)

type connKey struct{}

// WithConn is for the ConnContext of an http.Server. It lets the [Server] take
// connections over, which makes streams over HTTP/1.1 much cheaper, and see whether a
// slow client reads. It needs Linux, and with TLS a [NewTLSListener].
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// socketCarrier takes the connection of a request over, or its stream of an HTTP/2
// connection that the engine carries already, and lets the engine write the stream.
type socketCarrier struct {
	server *Server
	socket socket
}

// socket is an [engine.Socket] or an [h2.Stream].
type socket interface {
	feed.Notifier
	Dispatcher() engine.Dispatcher
}

// newSocketCarrier reports false if net/http has to carry the answer to r. That
// includes requests with a body, which net/http has to read.
func (s *Server) newSocketCarrier(r *http.Request) (c socketCarrier, ok bool) {
	if st := h2.StreamOf(r); st != nil {
		return socketCarrier{s, st}, r.ContentLength == 0
	}
	conn, known := r.Context().Value(connKey{}).(net.Conn)
	if !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 || r.ContentLength != 0 || !known || !engine.Takes(conn) {
		return c, false
	}
	s.engineOnce.Do(s.startEngine)
	if s.engine == nil {
		return c, false
	}
	return socketCarrier{s, s.engine.NewSocket()}, true
}

func (s *Server) startEngine() {
	newDispatcher := func() engine.Dispatcher { return s.hub.NewDispatcher() }
	e, err := engine.New(newDispatcher, engine.Options{
		WriteTimeout: s.options().WriteTimeout, Now: s.now, Reusable: endsCleanly, Returned: s.returned,
	})
	switch {
	case err == nil:
		s.engine = e
	case !errors.Is(err, errors.ErrUnsupported):
		s.logger.Warn("net/http carries all streams, at a higher cost", "error", err)
	}
}

// subscribe returns a subscriber that calls the socket.
func (c socketCarrier) subscribe(ctx context.Context, request subscribeRequest) (*feed.Subscriber, error) {
	dispatcher := c.socket.Dispatcher().(*feed.Dispatcher) // from startEngine
	return dispatcher.SubscribeAll(ctx, request.subscriptions, c.socket)
}

// carry writes the head and hands the connection to the engine, which then calls
// Closed of the stream. Nothing may have been written to w.
func (c socketCarrier) carry(w http.ResponseWriter, r *http.Request, st *stream) {
	st.opens(w, r)
	var err error
	switch socket := c.socket.(type) {
	case *h2.Stream:
		err = socket.Take(w.Header(), st.first(), st)
	case *engine.Socket:
		err = c.takeConn(socket, w, r, st)
	}
	if err != nil {
		st.Closed(err)
		panic(http.ErrAbortHandler)
	}
}

func (c socketCarrier) takeConn(socket *engine.Socket, w http.ResponseWriter, r *http.Request, st *stream) error {
	st.useChunks()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	// The buffer may hold the next request.
	unread, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	last := r.Close || !socket.Reuse(unread)
	return socket.Take(conn, append(appendHead(nil, w.Header(), last), st.first()...), st)
}

// Returned returns a listener for the connections on which a stream has ended cleanly
// and the client has sent another request. The http.Server that accepted them must
// serve it too: its Serve may be called for several listeners. A connection without a
// request within idle is closed; 0 means 2 minutes. Shutdown and Close of that server
// close the listener, too.
//
// It is for the streams that [WithConn] lets this server take over; call it before
// there are any. If it is not called, or its listener is not served, the server closes
// such a connection when its stream has ended cleanly: the whole stream arrives, but a
// request that the client sends at that moment gets no answer, and most clients do not
// repeat one that is not idempotent, such as a POST.
func (s *Server) Returned(idle time.Duration) net.Listener {
	s.returned.Open(cmp.Or(idle, 2*time.Minute))
	return s.returned
}

// appendHead appends the head of a chunked response, as net/http would write it. Only
// the last response of a connection has Connection: close, because some clients (Node's
// fetch) take a stream that breaks off after that for one that has ended.
func appendHead(dst []byte, header http.Header, last bool) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\n"...)
	// Browsers accept a head that was cut. Without its Content-Type, an EventSource would
	// stop for ever, so that comes first, and what may be long last.
	dst = appendField(dst, header, "Content-Type")
	for name := range header {
		if name != "Content-Type" && name != "Location" {
			dst = appendField(dst, header, name)
		}
	}
	dst = append(dst, "Date: "...)
	dst = time.Now().UTC().AppendFormat(dst, http.TimeFormat)
	if last {
		dst = append(dst, "\r\nConnection: close"...)
	}
	dst = append(dst, "\r\nTransfer-Encoding: chunked\r\n"...)
	return append(appendField(dst, header, "Location"), "\r\n"...)
}

func appendField(dst []byte, header http.Header, name string) []byte {
	for _, value := range header[name] {
		dst = append(append(dst, name...), ": "...)
		dst = append(append(dst, lineBreaks.Replace(value)...), "\r\n"...)
	}
	return dst
}

// lineBreaks keeps the value of a field on its line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

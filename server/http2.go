package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/engine"
	"github.com/rejoin/rejoin/server/h2"
)

// http2Streams limits the streams of an HTTP/2 connection. A browser has one connection
// for all its tabs, each with a stream or a few: at the usual 100, one more request would
// wait for ever.
const http2Streams = 250

// ServeHTTP2 serves an HTTP/2 connection as hs would, at a much lower cost: the engine
// carries it. It returns at once. It reports false, and leaves the connection alone, if
// net/http has to serve it. The connection has to come from a [NewTLSListener] and must
// have negotiated h2; or, without TLS, the client has sent its preface: see [AcceptHTTP2].
func (s *Server) ServeHTTP2(hs *http.Server, conn net.Conn) bool {
	s.engineOnce.Do(s.startEngine)
	if s.engine == nil || !engine.Takes(conn) {
		return false
	}
	s.http2Once.Do(func() { s.http2 = h2.NewServer(s.http2Options(hs)) })
	ctx := context.WithValue(context.Background(), http.ServerContextKey, hs)
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, conn.LocalAddr())
	if hs.ConnContext != nil {
		ctx = hs.ConnContext(ctx, conn)
	}
	_, secure := conn.(*tls.Conn)
	if err := s.http2.Serve(ctx, s.engine.NewSocket(), conn, !secure); err != nil {
		s.logger.Debug("connection failed", "from", conn.RemoteAddr(), "error", err)
	}
	return true
}

func (s *Server) http2Options(hs *http.Server) h2.Options {
	return h2.Options{
		Handler: hs.Handler, Logger: s.logger, Clean: endsCleanly, Now: s.now,
		Hold: func(n int) error {
			if !s.memory.Take(feed.HoldStreams, n) {
				return errNoMemory
			}
			return nil
		},
		Release: func(n int) { s.memory.Give(feed.HoldStreams, n) },
		Streams: http2Streams, HeadBytes: max(hs.MaxHeaderBytes, 64<<10),
		WriteTimeout: s.options().WriteTimeout, AnswerTimeout: hs.WriteTimeout,
		IdleTimeout: max(hs.IdleTimeout, time.Minute),
	}
}

// ShutdownHTTP2 ends the connections of [Server.ServeHTTP2] as Shutdown of an http.Server
// ends others: each after its last request, or when ctx ends.
func (s *Server) ShutdownHTTP2(ctx context.Context) error {
	s.http2Once.Do(func() { s.http2 = h2.NewServer(h2.Options{}) })
	return s.http2.Shutdown(ctx)
}

// AcceptHTTP2 makes hs, which serves without TLS, pass a connection to take if its client
// speaks HTTP/2 from the start (prior knowledge; RFC 9113, section 3.3), as some proxies
// do. It closes the connection if take reports false.
func AcceptHTTP2(hs *http.Server, take func(net.Conn) bool) {
	hs.Protocols = new(http.Protocols)
	hs.Protocols.SetHTTP1(true)
	hs.Protocols.SetUnencryptedHTTP2(true)
	hs.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": nil, // or net/http would put its own in place of the other
		"unencrypted_http2": func(_ *http.Server, wrapped *tls.Conn, _ http.Handler) {
			if plain, ok := wrapped.NetConn().(interface{ UnencryptedNetConn() net.Conn }); ok {
				take(plain.UnencryptedNetConn())
			}
		},
	}
}

// handshakeTimeout limits the time that a client takes for its handshake.
const handshakeTimeout = 10 * time.Second

// tlsListener does the handshakes of accepted connections, each on a goroutine of its
// own.
type tlsListener struct {
	net.Listener
	config *tls.Config
	take   func(net.Conn) bool
	report func(conn net.Conn, err error)

	accepted   chan net.Conn
	errors     chan error
	done       chan struct{}
	goroutines sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	shaking map[net.Conn]struct{} // connections in their handshake
}

// NewTLSListener returns a listener that speaks TLS over the connections of l. For the
// Serve of an http.Server, it is what ServeTLS does, except that the [Server] can take
// the connections over. Of connections that negotiate h2, Accept returns those for which
// take is nil or reports false. Report gets the handshakes that fail.
func NewTLSListener(l net.Listener, config *tls.Config, take func(net.Conn) bool, report func(net.Conn, error)) net.Listener {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	t := &tlsListener{
		Listener: engine.Listener(l), config: config, take: take, report: report,
		accepted: make(chan net.Conn), errors: make(chan error), done: make(chan struct{}), shaking: make(map[net.Conn]struct{}),
	}
	t.goroutines.Go(t.loop)
	return t
}

func (l *tlsListener) loop() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			l.goroutines.Go(func() { l.handshake(conn) })
			continue
		}
		select {
		case l.errors <- err: // to the caller of Accept, who waits before the next one
		case <-l.done:
			return
		}
	}
}

func (l *tlsListener) handshake(conn net.Conn) {
	secure := tls.Server(conn, l.config)
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if !l.begin(conn) {
		return
	}
	err := secure.Handshake()
	l.end(conn)
	if err != nil {
		if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && header.Conn != nil && looksLikeHTTP(header.RecordHeader) {
			_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
			err = errors.New("client sent an HTTP request to an HTTPS server")
		}
		l.report(conn, fmt.Errorf("handshake: %w", err))
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if l.take != nil && secure.ConnectionState().NegotiatedProtocol == "h2" && l.take(secure) {
		return
	}
	select {
	case l.accepted <- secure:
	case <-l.done:
		_ = conn.Close()
	}
}

func looksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// Accept implements [net.Listener].
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case err := <-l.errors:
		return nil, err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// begin notes a handshake. It closes the connection and reports false after Close.
func (l *tlsListener) begin(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return false
	}
	l.shaking[conn] = struct{}{}
	return true
}

func (l *tlsListener) end(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.shaking, conn)
}

// Close implements [net.Listener]. It breaks handshakes off, and returns after their
// goroutines have ended.
func (l *tlsListener) Close() error {
	l.mu.Lock()
	err := net.ErrClosed
	if !l.closed {
		l.closed = true
		close(l.done)
		err = l.Listener.Close()
	}
	for conn := range l.shaking {
		_ = conn.Close()
	}
	l.mu.Unlock()
	l.goroutines.Wait()
	return err
}

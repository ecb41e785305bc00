//go:build !386 && !s390x

package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"

	"syscall"
	"time"
)

// recordBytes limits what is sealed at a time. A sealed record cannot be taken back, so
// this is also the most that a full socket keeps of a piece.
const recordBytes = 16 << 10

// maxUnsent limits the sealed bytes that a full socket keeps: a record, and the answers
// to what the client's TLS asks.
const maxUnsent = 2 * recordBytes

var errTooManyAnswers = errors.New("the client's TLS asks for answers that it does not read")

// Listener returns a listener whose connections can be taken over below TLS. It is for
// [tls.NewListener] or the ServeTLS of an http.Server.
func Listener(l net.Listener) net.Listener { return wireListener{l} }

type wireListener struct{ net.Listener }

func (l wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wire{Conn: conn}, nil
}

// Takes reports whether [Socket.Take] takes conn.
func Takes(conn net.Conn) bool {
	if secure, ok := conn.(*tls.Conn); ok {
		_, ok = secure.NetConn().(*wire)
		return ok
	}
	_, ok := conn.(*net.TCPConn)
	return ok
}

// wire is the connection below a [tls.Conn]. Once detached from the runtime's
// connection, it reads from the descriptor without blocking and collects what is to be
// written.
type wire struct {
	net.Conn        // nil once detached
	fd       int32  // once detached
	drained  bool   // the poller has to report before there is something to read
	out      []byte // sealed bytes, which the owner of the tls.Conn sends
}

// NetConn returns the TCP connection, or nil once detached.
func (w *wire) NetConn() net.Conn { return w.Conn }

// Read implements [net.Conn]. After errNoInput, crypto/tls keeps what it has of a record
// and can be called again, because that error is temporary.
func (w *wire) Read(b []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Read(b)
	}
	if w.drained {
		return 0, errNoInput
	}
	n, err := receive(w.fd, b, 0)
	w.drained = err == nil && n < len(b)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, errNoInput
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// errNoInput is a net.Error with Temporary and Timeout.
var errNoInput = os.ErrDeadlineExceeded

// Write implements [net.Conn].
func (w *wire) Write(b []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Write(b)
	}
	w.out = append(w.out, b...)
	return len(b), nil
}

// secured is the TLS of a socket. The worker that owns the socket is the only one to
// use it.
type secured struct {
	conn   *tls.Conn
	wire   *wire
	early  []byte // to be sealed before anything else
	unsent []byte // sealed, and not accepted by the kernel yet
	deaf   bool   // nothing more is read
}

// detach returns the TLS of a connection that [Takes] accepts, above a duplicate of the
// connection's descriptor. It closes the connection.
func detach(conn net.Conn) (*secured, int, error) {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		defer conn.Close()
		fd, err := duplicate(conn)
		return nil, fd, err
	}
	below, ok := secure.NetConn().(*wire)
	if !ok {
		return nil, 0, errors.Join(errors.New("the TLS connection is not of a Listener"), conn.Close())
	}
	tcp := below.Conn
	defer tcp.Close()
	fd, err := duplicate(tcp)
	if err != nil {
		return nil, 0, err
	}
	below.Conn, below.fd = nil, int32(fd)
	return &secured{conn: secure, wire: below}, fd, nil
}

// attach makes the TLS work above conn again.
func (t *secured) attach(conn net.Conn) net.Conn {
	t.wire.Conn = conn
	return t.conn
}

// seal appends the records of b to dst.
func (t *secured) seal(dst, b []byte) ([]byte, error) {
	t.wire.out = dst
	var err error
	if len(t.early) > 0 {
		_, err = t.conn.Write(t.early)
		t.early = nil
	}
	if err == nil && len(b) > 0 {
		_, err = t.conn.Write(b)
	}
	dst, t.wire.out = t.wire.out, nil
	return dst, err
}

// goodbye tells the client that nothing follows, as far as the kernel has room.
func (t *secured) goodbye() {
	if len(t.unsent) > 0 || t.wire.Conn != nil {
		return
	}
	_ = t.conn.CloseWrite()
	_, _ = send(int(t.wire.fd), t.wire.out, 0)
	t.wire.out = nil
}

// SetDeadline, SetReadDeadline and SetWriteDeadline implement [net.Conn]. A detached
// connection does not block.
func (w *wire) SetDeadline(t time.Time) error {
	if w.Conn == nil {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

func (w *wire) SetReadDeadline(t time.Time) error {
	if w.Conn == nil {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.Conn == nil {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// transmit writes b without blocking and returns how many bytes of it need no further
// call. With TLS, unsent may hold some of them.
func (s *Socket) transmit(b []byte) (n int, err error) {
	if s.tls == nil {
		return send(int(s.fd), b, 0)
	}
	for {
		if err := s.sendUnsent(); err != nil || len(s.tls.unsent) > 0 {
			return n, err
		}
		if n == len(b) && len(s.tls.early) == 0 {
			return n, nil
		}
		part := b[n:min(len(b), n+recordBytes)]
		before := len(s.worker.sealed)
		sealed, err := s.tls.seal(s.worker.sealed, part)
		s.worker.sealed = sealed[:before]
		if err != nil {
			return n, err
		}
		n += len(part)
		sent, err := send(int(s.fd), sealed[before:], 0)
		if err != nil && err != syscall.EAGAIN {
			return n, err
		}
		if sealed = sealed[before+sent:]; len(sealed) > 0 {
			s.tls.unsent = bytes.Clone(sealed)
			return n, nil
		}
	}
}

// sendUnsent writes sealed bytes for which there was no room before.
func (s *Socket) sendUnsent() error {
	if len(s.tls.unsent) == 0 {
		return nil
	}
	n, err := send(int(s.fd), s.tls.unsent, 0)
	if err != nil && err != syscall.EAGAIN {
		return err
	}
	if s.tls.unsent = s.tls.unsent[n:]; len(s.tls.unsent) == 0 {
		s.tls.unsent = nil
	}
	return nil
}

// unsent returns how many bytes the socket has sealed and not sent.
func (s *Socket) unsent() int {
	if s.tls == nil {
		return 0
	}
	return len(s.tls.unsent)
}

// reads reports whether the socket reads what the client sends.
func (s *Socket) reads() bool { return s.tls != nil || s.receiver() != nil }

// listen reads what the client has sent. It reports false if it has closed the socket.
func (s *Socket) listen() (open bool) {
	s.flags.And(^hasInput)
	if s.tls != nil {
		s.tls.wire.drained = false
	}
	if r := s.receiver(); r != nil {
		return s.receive(r)
	}
	return s.listenDuring()
}

// receive passes to the stream what the client has sent.
func (s *Socket) receive(r Receiver) (open bool) {
	for total := 0; total < turnBytes; {
		b, err := s.read()
		if s.closed {
			return false
		}
		if len(b) > 0 {
			total += len(b)
			if err := r.Receive(b); err != nil {
				s.close(err)
				return false
			}
		}
		switch {
		case err == errNoInput:
			return true
		case err != nil:
			s.close(ErrClientGone)
			return false
		}
	}
	s.flags.Or(hasInput)
	s.Soon()
	return true
}

// read reads what the client has sent, and answers what its TLS asks, which may close
// the socket.
func (s *Socket) read() ([]byte, error) {
	scratch := s.worker.scratch()
	if s.tls == nil {
		w := wire{fd: s.fd}
		n, err := w.Read(scratch)
		if w.drained && err == nil {
			err = errNoInput
		}
		return scratch[:n], err
	}
	s.tls.wire.out = nil
	n, err := s.tls.conn.Read(scratch)
	answers := s.tls.wire.out
	s.tls.wire.out = nil
	if len(answers) > 0 {
		s.answer(answers)
	}
	return scratch[:n], err
}

// listenDuring reads what a client sends during its only stream: what its TLS asks, and
// that it has nothing more to say.
func (s *Socket) listenDuring() (open bool) {
	if s.tls.deaf || s.flags.Load()&pipelined != 0 {
		return true // from here on, it is the next request
	}
	b, err := s.read()
	if s.closed {
		return false
	}
	if len(b) > 0 {
		s.tls.deaf = true
		if s.flags.Load()&reusable == 0 || !s.worker.engine.idle.keepUnread(s, b) {
			s.flags.And(^reusable)
		} else {
			s.flags.Or(pipelined)
		}
	}
	if err != nil && err != errNoInput {
		s.close(ErrClientGone)
		return false
	}
	return true
}

// answer sends what crypto/tls answers by itself. It may close the socket.
func (s *Socket) answer(sealed []byte) {
	s.tls.unsent = append(s.tls.unsent, sealed...)
	err := s.sendUnsent()
	switch {
	case err == nil && len(s.tls.unsent) > maxUnsent:
		err = errTooManyAnswers
		fallthrough
	case err != nil:
		s.close(err)
	case len(s.tls.unsent) > 0 && s.backlog == nil:
		s.keepBacklog(0, nil)
	}
}

//go:build !386 && !s390x

package engine

import (
	"bytes"
	"net"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Socket carries one stream.
type Socket struct {
	worker *worker
	stream Stream
	fd     int32
	key    key           // names the socket to the poller
	flags  atomic.Uint32 // set by other goroutines for the worker

	// For the worker alone.
	tick    uint32 // of the wheel, when the socket is due
	closed  bool
	soon    bool     // the worker is about to call Notify
	staged  bool     // the worker's batch holds a write to this socket
	backlog *backlog // nil unless the socket is new or full
	tls     *secured // nil without TLS
}

const (
	started    uint32 = 1 << iota // Take has succeeded
	wantsRoom                     // the socket is full
	hasRoom                       // the kernel has reported room since this was last cleared
	clientGone                    // the client has closed its side
	stopped                       // the engine is closing
	reusable                      // the connection may serve another request
	pipelined                     // the first bytes of that request are kept
	hasInput                      // the client has sent something
	woken                         // Wake was called
)

// backlog holds the bytes that a full or new socket has yet to write. They are mostly
// a part of the log's own bytes.
type backlog struct {
	bytes       []byte
	head        bool          // no write was tried yet, and the first piece can go with the bytes
	ending      error         // why the stream ends after the bytes; nil if it goes on
	unread      int           // bytes that the kernel held for the client …
	unreadSince time.Duration // … since this time
}

// Dispatcher returns the dispatcher that must call Notify of this socket.
func (s *Socket) Dispatcher() Dispatcher { return s.worker.dispatcher }

// Notify writes what the stream has. Only the socket's dispatcher may call it.
func (s *Socket) Notify() {
	if s.staged {
		s.worker.submit()
	}
	flags := s.flags.Load()
	if s.closed || flags&started == 0 {
		return
	}
	switch {
	case flags&clientGone != 0:
		s.close(ErrClientGone)
		return
	case flags&stopped != 0:
		s.close(ErrStopped)
		return
	}
	if flags&hasInput != 0 && !s.listen() {
		return
	}
	if s.backlog != nil && !s.backlog.head && !s.flushBacklog(flags) {
		return
	}
	s.pump()
	if !s.closed {
		s.worker.wheel.schedule(s, s.due())
	}
}

// turnBytes limits how much a socket writes before others have their turn.
const turnBytes = 128 << 10

// pump writes what the stream has, until it has nothing, the socket is full or its
// turn ends.
func (s *Socket) pump() {
	var head []byte
	if s.backlog != nil {
		head, s.backlog = s.backlog.bytes, nil
	}
	for total := 0; ; {
		piece, err := s.next()
		if len(head) > 0 {
			if len(piece) == 0 {
				piece = head
			} else if !s.writeHead(head, piece, err) {
				return
			}
			head = nil
		}
		if len(piece) > 0 {
			if err == nil && s.worker.ring != nil && !s.stream.More() && s.stage(piece) {
				return
			}
			if !s.write(piece) {
				if s.backlog != nil {
					s.backlog.ending = err
				}
				return
			}
		}
		if err != nil {
			s.close(err)
			return
		}
		if len(piece) == 0 {
			return
		}
		if total += len(piece); total >= turnBytes {
			s.stream.Yield()
			s.stream.Wake()
			return
		}
	}
}

// writeHead writes the head so that the kernel sends it together with the piece, which
// the caller writes next. If there is no room it keeps both and reports false; ending
// is the error that came with the piece.
func (s *Socket) writeHead(head, piece []byte, ending error) (all bool) {
	if s.tls != nil {
		s.tls.early = head
		return true
	}
	n, err := send(int(s.fd), head, syscall.MSG_MORE)
	switch {
	case err != nil && err != syscall.EAGAIN:
		s.close(err)
	case n < len(head):
		s.keepBacklog(0, piece)
		if !s.closed {
			s.backlog.bytes = slices.Concat(head[n:], s.backlog.bytes)
			s.backlog.ending = ending
		}
	}
	return n == len(head)
}

// next calls Next of the stream. A panic in one stream must not end the others.
func (s *Socket) next() (piece []byte, err error) {
	defer func() {
		if value := recover(); value != nil {
			piece, err = nil, &PanicError{value, debug.Stack()}
		}
	}()
	return s.stream.Next(s.worker.now)
}

// write writes all of b and reports true, or else keeps a backlog or closes the
// socket.
func (s *Socket) write(b []byte) (all bool) {
	n, err := s.transmit(b)
	return s.handleWrite(b, n, err)
}

// stage adds a write of b to the worker's batch. It reports false if b is too large for
// that.
func (s *Socket) stage(b []byte) bool {
	if s.tls == nil {
		if s.receiver() != nil {
			b = s.worker.copied(b)
		}
		s.worker.stage(s, b)
		return true
	}
	if len(b) > recordBytes {
		return false
	}
	b, err := s.worker.seal(s.tls, b)
	if err != nil {
		s.close(err)
	} else {
		s.worker.stage(s, b)
	}
	return true
}

// handleStaged handles the result of writing b, which was staged.
func (s *Socket) handleStaged(b []byte, n int, err error) {
	if s.tls != nil && n < len(b) && (err == nil || err == syscall.EAGAIN) {
		s.tls.unsent, n = bytes.Clone(b[n:]), len(b)
	}
	s.handleWrite(b, n, err)
}

// handleWrite handles the result of writing b.
func (s *Socket) handleWrite(b []byte, n int, err error) (all bool) {
	switch {
	case err != nil && err != syscall.EAGAIN:
		s.close(err)
		return false
	case n < len(b) || s.unsent() > 0:
		s.keepBacklog(n, b[n:])
		return false
	}
	s.stream.Written()
	return true
}

// keepBacklog keeps the part of a piece for which the kernel had no room, unless the
// stream can supply it again. The poller reports when there is room.
func (s *Socket) keepBacklog(written int, left []byte) {
	var keep []byte
	var err error
	if len(left) > 0 {
		keep, err = s.stream.Unwritten(written, left)
	}
	if n := s.unsent(); err == nil && n > 0 {
		err = s.stream.Held(n)
	}
	if err != nil {
		s.close(err)
		return
	}
	s.backlog = &backlog{bytes: keep, unread: unread(int(s.fd)), unreadSince: s.worker.now}
	s.worker.wheel.schedule(s, s.due())
	if s.flags.Or(wantsRoom)&hasRoom != 0 {
		s.stream.Wake() // the poller reported room before it could know of the backlog
	}
}

// flushBacklog writes the backlog and reports whether that was all of it. It closes
// the socket of a client that has read nothing for too long.
func (s *Socket) flushBacklog(flags uint32) (all bool) {
	if err := s.stream.Over(s.worker.now); err != nil {
		s.close(err)
		return false
	}
	if flags&hasRoom == 0 {
		s.checkStalled()
		return false
	}
	s.flags.And(^hasRoom)
	if len(s.backlog.bytes) > 0 || s.unsent() > 0 {
		n, err := s.transmit(s.backlog.bytes)
		if err != nil && err != syscall.EAGAIN {
			s.close(err)
			return false
		}
		if s.backlog.bytes = s.backlog.bytes[n:]; len(s.backlog.bytes) > 0 || s.unsent() > 0 {
			s.checkStalled()
			return false
		}
		s.stream.Written()
	}
	ending := s.backlog.ending
	s.backlog = nil
	s.flags.And(^wantsRoom)
	if ending != nil {
		s.close(ending)
		return false
	}
	return true
}

// checkStalled closes a full socket whose client has read nothing within the timeout.
// A client that reads slowly may need longer than that to make the room that the
// poller reports.
func (s *Socket) checkStalled() {
	now := s.worker.now
	if n := unread(int(s.fd)); n != s.backlog.unread {
		s.backlog.unread, s.backlog.unreadSince = n, now
	}
	if now-s.backlog.unreadSince >= s.worker.engine.options.WriteTimeout {
		s.close(ErrStalled)
		return
	}
	s.worker.wheel.schedule(s, s.due())
}

// due returns the time of the next call of Notify if nothing happens before.
func (s *Socket) due() time.Duration {
	if s.backlog == nil {
		return s.stream.Due()
	}
	timeout := s.worker.engine.options.WriteTimeout
	return min(s.backlog.unreadSince+timeout, s.worker.now+max(timeout/4, wheelTick))
}

// receiver returns the stream if it reads what the client sends, or nil.
func (s *Socket) receiver() Receiver {
	r, _ := s.stream.(Receiver)
	return r
}

func (s *Socket) close(err error) {
	if err == syscall.EPIPE || err == syscall.ECONNRESET {
		err = ErrClientGone // a write failed before the poller reported it
	}
	s.closed = true
	e, fd, unread := s.worker.engine, s.fd, s.takeUnread()
	secure := s.tls
	reuse := s.backlog == nil && s.flags.Load()&reusable != 0 && e.options.Reusable != nil && e.options.Reusable(err)
	if reuse {
		e.poller.release(s.key, fd)
	} else {
		e.poller.remove(s.key)
		if secure != nil {
			secure.goodbye()
		}
		_ = discard(fd) // see lingerTime
		_ = syscall.Close(int(fd))
	}
	stream := s.stream
	s.backlog, s.stream, s.tls = nil, nil, nil
	s.worker.sockets.Add(-1)
	stream.Closed(err)
	if reuse { // last, so that the next request finds this stream gone
		e.idle.add(fd, secure, unread)
	}
}

// send writes as much as the socket has room for. It does not block, so it does not
// inform the scheduler as other system calls do.
func send(fd int, b []byte, flags uintptr) (n int, err error) {
	for {
		r, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL|flags, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// Unread returns how many bytes the kernel holds for the peer of conn that the peer
// has not acknowledged. It reports false if that is unknown.
func Unread(conn *net.TCPConn) (n int, known bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { n = unread(int(fd)) })
	return n, err == nil
}

func unread(fd int) int {
	var n int32
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}

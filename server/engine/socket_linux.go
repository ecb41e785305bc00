//go:build !386 && !s390x

package engine

import (
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/rejoin/rejoin/feed"
)

// Socket carries one stream.
type Socket struct {
	worker *worker
	group  *feed.Subscriber
	stream Stream
	fd     int32
	key    key           // with the poller
	flags  atomic.Uint32 // what others have to say to the lane

	// Of the lane alone.
	slot    uint32 // of the wheel at which it is looked after
	closed  bool
	staged  bool     // there is a write of it in the lane's batch
	backlog *backlog // what the kernel had no room for
}

const (
	started    uint32 = 1 << iota // there is a stream to carry
	wantsRoom                     // the socket is full, and wants to know of room
	hasRoom                       // there is room since that was last unset
	clientGone                    // the client has left
	stopped                       // the engine is being closed
	reusable                      // the connection may serve another request
	pipelined                     // which has begun to come already
)

// backlog is what is left to write to a socket that is full, or new. It is mostly a
// part of the log's own bytes.
type backlog struct {
	bytes       []byte
	head        bool          // nobody has tried yet, and what follows can go with it
	ending      error         // why the stream ends once rest is written
	unread      int           // bytes that the kernel held …
	unreadSince time.Duration // … when that last became less
}

// Lane returns the lane on which the group of the stream has to be.
func (s *Socket) Lane() *feed.Dispatcher { return s.worker.dispatcher }

// Notify implements [feed.Reader]: it writes what there is to write.
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
	if s.backlog != nil && !s.backlog.head && !s.flushBacklog(flags) {
		return
	}
	s.pump()
	if !s.closed {
		s.worker.wheel.schedule(s, s.due())
	}
}

// turnBytes is how much a socket is written before others have their turn.
const turnBytes = 128 << 10

// pump writes what the stream has, until it has nothing, the socket is full or its
// turn is over.
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
			if err == nil && s.worker.ring != nil && !s.stream.More() {
				s.worker.stage(s, piece) // it is likely all for now
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
			s.group.Wake()
			return
		}
	}
}

// writeHead writes the head so that it leaves together with the piece, which has
// to be written next. If there is no room it keeps both, and reports that; last is
// why the stream ends behind the piece.
func (s *Socket) writeHead(head, piece []byte, last error) (all bool) {
	n, err := send(int(s.fd), head, syscall.MSG_MORE)
	switch {
	case err != nil && err != syscall.EAGAIN:
		s.close(err)
	case n < len(head):
		s.keepBacklog(0, piece)
		if !s.closed {
			s.backlog.bytes = slices.Concat(head[n:], s.backlog.bytes)
			s.backlog.ending = last
		}
	}
	return n == len(head)
}

// next asks the stream. What goes wrong in one must not take the others with it.
func (s *Socket) next() (piece []byte, err error) {
	defer func() {
		if value := recover(); value != nil {
			piece, err = nil, &PanicError{value, debug.Stack()}
		}
	}()
	return s.stream.Next(s.worker.now)
}

// write writes all of b, or else keeps the rest for later or closes the socket.
func (s *Socket) write(b []byte) (all bool) {
	n, err := send(int(s.fd), b, 0)
	return s.handleWrite(b, n, err)
}

// handleWrite is told what became of a write of b.
func (s *Socket) handleWrite(b []byte, n int, err error) (all bool) {
	switch {
	case err != nil && err != syscall.EAGAIN:
		s.close(err)
		return false
	case n < len(b):
		s.keepBacklog(n, b[n:])
		return false
	}
	s.stream.Written()
	return true
}

// keepBacklog keeps what the kernel had no room for of a piece, if the stream cannot have it
// again. The poller says when there is room.
func (s *Socket) keepBacklog(written int, left []byte) {
	rest, err := s.stream.Unwritten(written, left)
	if err != nil {
		s.close(err)
		return
	}
	s.backlog = &backlog{bytes: rest, unread: unread(int(s.fd)), unreadSince: s.worker.now}
	s.worker.wheel.schedule(s, s.due())
	if s.flags.Or(wantsRoom)&hasRoom != 0 {
		s.group.Wake() // nobody was told of that room: it may be the room for this
	}
}

// flushBacklog writes what was kept, and reports whether that was all. A client that has
// read nothing for too long is given up.
func (s *Socket) flushBacklog(flags uint32) (all bool) {
	if err := s.stream.Over(s.worker.now); err != nil {
		s.close(err)
		return false
	}
	if flags&hasRoom == 0 {
		return s.checkStalled()
	}
	s.flags.And(^hasRoom)
	if len(s.backlog.bytes) > 0 {
		n, err := send(int(s.fd), s.backlog.bytes, 0)
		if err != nil && err != syscall.EAGAIN {
			s.close(err)
			return false
		}
		if s.backlog.bytes = s.backlog.bytes[n:]; len(s.backlog.bytes) > 0 {
			return s.checkStalled()
		}
		s.stream.Written()
	}
	last := s.backlog.ending
	s.backlog = nil
	s.flags.And(^wantsRoom)
	if last != nil {
		s.close(last)
		return false
	}
	return true
}

// checkStalled gives a full socket up when its client has read nothing within the
// timeout. A client that reads little may take longer than that to make so much
// room that the poller speaks of it.
func (s *Socket) checkStalled() (all bool) {
	now := s.worker.now
	if n := unread(int(s.fd)); n != s.backlog.unread {
		s.backlog.unread, s.backlog.unreadSince = n, now
	}
	if now-s.backlog.unreadSince >= s.worker.engine.options.WriteTimeout {
		s.close(ErrStalled)
		return false
	}
	s.worker.wheel.schedule(s, s.due())
	return false
}

// due returns when the socket has to be looked after.
func (s *Socket) due() time.Duration {
	if s.backlog == nil {
		return s.stream.Due()
	}
	timeout := s.worker.engine.options.WriteTimeout
	return min(s.backlog.unreadSince+timeout, s.worker.now+max(timeout/4, wheelTick))
}

func (s *Socket) close(why error) {
	if why == syscall.EPIPE || why == syscall.ECONNRESET {
		why = ErrClientGone // a write has seen it before the poller
	}
	s.closed = true
	e, fd, next := s.worker.engine, s.fd, s.takeUnread()
	reuse := s.backlog == nil && s.flags.Load()&reusable != 0 && e.options.Reusable != nil && e.options.Reusable(why)
	if reuse {
		e.poller.release(s.key, fd)
	} else {
		e.poller.remove(s.key)
		_ = discard(fd) // see lingerFor
		_ = syscall.Close(int(fd))
	}
	stream := s.stream
	s.backlog, s.stream, s.group = nil, nil, nil
	s.worker.sockets.Add(-1)
	stream.Closed(why)
	if reuse { // last, so that the next request does not meet this stream
		e.idle.add(fd, next)
	}
}

// send writes what the socket has room for. The call does not block, so the
// runtime need not know of it.
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

// unread returns how many bytes the kernel holds that the client's side has not
// acknowledged.
func unread(fd int) int {
	var n int32
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return int(n)
}

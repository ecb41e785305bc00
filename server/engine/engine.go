// Package engine writes streams to TCP sockets at little more than the price of
// the system calls. An idle stream costs neither a goroutine, nor a timer, nor a
// buffer.
//
// A [Socket] is a connection taken over from the server that accepted it. It
// belongs to one worker, a goroutine that writes to many sockets, one after the
// other, without blocking. Only that worker takes bytes from the stream, writes them
// to the descriptor and closes it, so nothing is written to a descriptor that the
// kernel has given to another connection since.
//
// A socket that is full keeps a backlog and waits for the poller, a goroutine that
// serves all sockets: it reports room in full sockets, input, and clients that leave.
// While a worker has nothing to do, the poller takes its place for a single socket,
// because to wake the worker costs more. Each worker keeps the times at which its
// sockets need attention in a wheel. A connection whose stream ended cleanly goes to
// [Returned].
//
// Over TLS, crypto/tls does the handshake on the TCP connection. Then the socket takes
// that connection away from below it: what crypto/tls writes goes into a buffer of the
// worker's, and leaves with its batch. See [Listener].
//
// A stream that is a [Receiver] also reads, such as an HTTP/2 connection.
//
// The engine knows nothing of feeds: a [Dispatcher] calls the sockets, and a
// [Stream] supplies the bytes.
//
// It needs Linux: elsewhere, [New] returns [errors.ErrUnsupported].
package engine

import (
	"errors"
	"fmt"
	"time"
)

// Dispatcher calls [Socket.Notify] of sockets whose streams may have something to
// write. Each worker has one, and one goroutine at a time calls Step.
type Dispatcher interface {
	// Step calls Notify of some of those sockets. It reports whether more are left.
	Step() (more bool)
	// C receives a value when Step has something to do again.
	C() <-chan struct{}
}

// Stream supplies the bytes for a socket. One goroutine at a time calls its methods,
// except for Wake. None of them blocks.
type Stream interface {
	// Wake makes the dispatcher of the socket's worker call Notify. Any goroutine
	// may call it.
	Wake()
	// Next returns the bytes to write now, or none. They do not change before the
	// next call. With an error, they are the last bytes of the stream. A panic ends
	// this stream, with a [*PanicError], and no other.
	Next(now time.Duration) (piece []byte, err error)
	// More reports whether Next may have more right now. When it does not, the
	// stream wakes its socket as soon as it may.
	More() bool
	// Written reports that the kernel has accepted everything that Next returned.
	Written()
	// Unwritten reports that the kernel accepted only the first written bytes of
	// what Next returned last, and has no room for the others, left. It returns the
	// bytes that the socket must keep until there is room; if it returns none, Next
	// returns the unwritten bytes again. An error ends the stream.
	Unwritten(written int, left []byte) (keep []byte, err error)
	// Held reports that the socket keeps n bytes of what Next returned until there is
	// room, although they count as written: bytes that TLS has sealed cannot be taken
	// back. An error ends the stream. Written follows.
	Held(n int) error
	// Yield reports that other sockets come first and Next is not called for a
	// while. The stream releases what it can fetch again.
	Yield()
	// Over returns why the stream must end even though the client does not read, or
	// nil.
	Over(now time.Duration) error
	// Due returns the latest time for the next call of Next.
	Due() time.Duration
	// Closed is called once, after the last write. The error is from Next, Unwritten,
	// Over or the socket, or one of this package.
	Closed(err error)
}

// Receiver is a [Stream] that also reads what the client sends, such as an HTTP/2
// connection. What its Next returns need only last until the stream is called again or
// Next returns, because the socket copies it: see [Socket.Buffer].
type Receiver interface {
	Stream
	// Receive takes the next bytes from the client, which it must not keep. An error
	// ends the stream. Next is called after it.
	Receive(b []byte) error
}

// The reasons for which the engine ends a stream.
var (
	ErrClientGone = errors.New("the client has left")
	ErrStalled    = errors.New("the client does not read")
	ErrStopped    = errors.New("the engine was closed")
)

// PanicError is a panic in a stream's Next.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Options configures an engine.
type Options struct {
	// WriteTimeout limits how long a client may read nothing while bytes wait for
	// it.
	WriteTimeout time.Duration
	// Now is the clock of the streams.
	Now func() time.Duration
	// Reusable reports whether a connection may serve another request after a stream
	// that ended with this error and was written completely; nil means that no
	// connection may.
	Reusable func(err error) bool
	// Returned accepts reusable connections; nil disables their reuse.
	Returned *Returned
	// Plain disables batched writes (io_uring).
	Plain bool
}

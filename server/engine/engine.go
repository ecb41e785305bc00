// Package engine writes streams to sockets at the kernel's price: one call that
// does not block for what a socket gets, and between two of them neither a
// goroutine, nor a timer, nor a buffer for it.
//
// A [Socket] is a connection that was taken over from whoever accepted it. It
// belongs to a lane, a goroutine that writes to many of them one after the other:
// what the streams have to say is fetched and written there, and there alone is a
// descriptor closed, so that nothing can be written to one that has since become
// somebody else's. A socket that is full keeps the rest of what it was given and
// waits for the poller, a goroutine that all sockets share and that sees clients
// leave. What is due at a time is kept in a wheel, one a lane. A connection whose
// stream has ended cleanly goes to [Returned].
//
// It needs Linux: elsewhere, [New] returns [errors.ErrUnsupported].
package engine

import (
	"errors"
	"fmt"
	"time"
)

// Stream is what a socket is to carry. Its methods are called by one goroutine
// at a time, and do not block.
type Stream interface {
	// Next returns what is to be written at this moment, and nothing if there
	// is nothing. The bytes are not changed before the next call. With an
	// error, they are the last ones. If it panics, this stream ends, with a
	// [*PanicError], and no other.
	Next(now time.Duration) (piece []byte, err error)
	// More says whether Next may have more at this moment. While it has not,
	// the group's reader is called when it may.
	More() bool
	// Written says that everything that Next has returned is with the kernel.
	Written()
	// Unwritten says that of what Next returned last, only so many bytes were written,
	// and nothing can be for a while. It returns what the socket has to keep until
	// then, or nothing: then Next returns what is left once more. With an error, the
	// stream ends.
	Unwritten(written int, left []byte) (keep []byte, err error)
	// Yield says that Next is not called again for a while, as others have their
	// turn: what the stream holds and can have again, it lets go of.
	Yield()
	// Over returns why the stream has to end even though the client does not
	// read, or nil.
	Over(now time.Duration) error
	// Due returns when Next is to be called at the latest.
	Due() time.Duration
	// Closed is called once, when nothing will be written any more, with the
	// error of Next or of Over, or one of this package, or of the socket.
	Closed(err error)
}

// Why the engine ends a stream.
var (
	ErrClientGone = errors.New("the client has left")
	ErrStalled    = errors.New("the client does not read")
	ErrStopped    = errors.New("the engine was closed")
)

// PanicError is a panic of a stream's Next.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Options tunes an engine.
type Options struct {
	// WriteTimeout is how long a client may read nothing at all while something
	// is waiting for it.
	WriteTimeout time.Duration
	// Now is the clock of the streams.
	Now func() time.Duration
	// Reusable says whether a connection may serve another request after a stream
	// that ended for that reason, all of which was written; nil: none may.
	Reusable func(why error) bool
	// Returned accepts those connections; nil: nobody does.
	Returned *Returned
	// Plain keeps the engine from submitting writes to the kernel in batches,
	// where it could.
	Plain bool
}

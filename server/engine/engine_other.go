//go:build !linux || 386 || s390x

package engine

import (
	"errors"
	"net"
)

// Engine does not exist on this platform.
type Engine struct{}

// New returns an error that wraps [errors.ErrUnsupported].
func New(func() Dispatcher, Options) (*Engine, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Engine) Close() {}

// NewSocket returns nil.
func (*Engine) NewSocket() *Socket { return nil }

// Socket does not exist on this platform.
type Socket struct{}

// Dispatcher returns nil.
func (*Socket) Dispatcher() Dispatcher { return nil }

// Notify does nothing.
func (*Socket) Notify() {}

// Wake does nothing.
func (*Socket) Wake() {}

// Soon does nothing.
func (*Socket) Soon() {}

// Buffer returns nil.
func (*Socket) Buffer() []byte { return nil }

// Reuse reports false.
func (*Socket) Reuse([]byte) bool { return false }

// Take returns an error that wraps [errors.ErrUnsupported].
func (*Socket) Take(net.Conn, []byte, Stream) error { return errors.ErrUnsupported }

// Listener returns l.
func Listener(l net.Listener) net.Listener { return l }

// Takes reports false.
func Takes(net.Conn) bool { return false }

// Unread reports that the number is unknown.
func Unread(*net.TCPConn) (n int, known bool) { return 0, false }

//go:build !linux || 386 || s390x

package engine

import (
	"errors"
	"net"

	"github.com/rejoin/rejoin/feed"
)

// Engine carries streams on sockets, elsewhere.
type Engine struct{}

// New returns an error that wraps [errors.ErrUnsupported].
func New(*feed.Hub, Options) (*Engine, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Engine) Close() {}

// NewSocket is not called: there is no engine.
func (*Engine) NewSocket() *Socket { return nil }

// Socket carries one stream, elsewhere.
type Socket struct{}

// Lane is not called.
func (*Socket) Lane() *feed.Dispatcher { return nil }

// Ready implements [feed.Reader].
func (*Socket) Notify() {}

// Reuse is not called.
func (*Socket) Reuse([]byte) bool { return false }

// Take is not called.
func (*Socket) Take(net.Conn, []byte, *feed.Subscriber, Stream) error { return errors.ErrUnsupported }

//go:build !linux || 386 || s390x

package engine

import "net"

// Unread reports that it does not know.
func Unread(*net.TCPConn) (n int, known bool) { return 0, false }

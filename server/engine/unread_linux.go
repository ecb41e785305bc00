//go:build !386 && !s390x

package engine

import "net"

// Unread returns how many bytes the kernel holds for the peer of conn that the
// peer's side has not acknowledged; false if it does not say.
func Unread(conn *net.TCPConn) (n int, known bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { n = unread(int(fd)) })
	return n, err == nil
}

package postgres

import "syscall"

// limitSilence has the kernel give up a connection whose data nobody
// acknowledges.
func limitSilence(_, _ string, c syscall.RawConn) error {
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall lacks
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}

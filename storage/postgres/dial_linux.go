package postgres

import "syscall"

// limitSilence makes the kernel drop a connection whose data is not acknowledged.
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

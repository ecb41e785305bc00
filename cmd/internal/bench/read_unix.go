//go:build unix

package bench

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// buffers are shared: thousands of streams that wait hold none.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// readStream passes on what a connection brings, until it ends or take does not
// like it. It needs one system call for what came at once, where Read would
// need two.
func readStream(conn net.Conn, take func([]byte) error) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return readWhole(conn, take)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var ended error
	err = raw.Read(func(fd uintptr) bool {
		buf := buffers.Get().(*[64 << 10]byte)
		defer buffers.Put(buf)
		for {
			n, err := syscall.Read(int(fd), buf[:])
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return false
			case err != nil:
				ended = err
				return true
			case n == 0:
				ended = io.EOF
				return true
			}
			if ended = take(buf[:n]); ended != nil {
				return true
			}
			if n < len(buf) {
				return false // whatever comes now wakes it again
			}
		}
	})
	if err != nil {
		return err
	}
	return ended
}

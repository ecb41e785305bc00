package bench

import (
	"context"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// timer sleeps to within some microseconds. The timers of Go are late by up
// to a millisecond, which would count as the server's latency.
type timer struct{ file *os.File }

func newTimer() (*timer, error) {
	const monotonic = 1 // CLOCK_MONOTONIC
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("timerfd_create", errno)
	}
	return &timer{os.NewFile(fd, "timer")}, nil
}

// sleep waits for d, or until ctx has ended: then it returns ctx's error.
func (t *timer) sleep(ctx context.Context, d time.Duration) error {
	const step = 100 * time.Millisecond // until it looks at ctx again
	for end := time.Now().Add(d); ctx.Err() == nil; {
		left := min(time.Until(end), step)
		if left <= 0 {
			return nil
		}
		if err := t.wait(left); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (t *timer) wait(d time.Duration) error {
	setting := struct{ interval, value syscall.Timespec }{value: syscall.NsecToTimespec(int64(d))}
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&setting)), 0, 0, 0)
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("timerfd_settime", errno)
	}
	var expirations [8]byte
	_, err = t.file.Read(expirations[:])
	return err
}

func (t *timer) close() { t.file.Close() }

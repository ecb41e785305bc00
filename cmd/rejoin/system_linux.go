package main

// Go's runtime looks after its threads on a timer of 20 µs for as long as there is
// work, and each time costs a switch of threads: a fifth of the CPU time of a server
// that is half busy. With this slack the kernel lets that timer, like any other,
// be up to a millisecond late, and the thread comes as seldom.
//
// Threads have the slack of the one that made them (prctl(2)), and the runtime's is
// made before Go code runs. So it is set before that.
//
// SQLite allocates on whichever thread calls it. glibc would give many of these threads
// an arena of their own, none of which returns its memory.

// #include <malloc.h>
// #include <sys/prctl.h>
//
// __attribute__((constructor)) static void slacken_timers(void) {
// 	prctl(PR_SET_TIMERSLACK, 1000000UL, 0UL, 0UL, 0UL);
// }
//
// #ifdef M_ARENA_MAX
// __attribute__((constructor)) static void limit_arenas(void) {
// 	mallopt(M_ARENA_MAX, 2);
// }
// #endif
import "C"

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of <linux/tcp.h>, which package syscall
// does not have.
const tcpUserTimeout = 18

// acceptedKeepAlive leaves alone what accepted sockets inherit, which saves four
// system calls for each.
const acceptedKeepAlive = -1

// keepAlivePeriod is the time between two probes of a quiet connection.
const keepAlivePeriod = 15 * time.Second

// repetition is how much later than a packet is sent the kernel begins to count:
// when it repeats the packet for the first time.
const repetition = time.Second

// giveUpAfter sets the time, and keep-alive probes, for a listening socket; those
// that it accepts inherit it.
func giveUpAfter(timeout time.Duration) func(network, address string, c syscall.RawConn) error {
	timeout -= min(repetition, timeout/4)
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			set := func(level, option, value int) {
				failed = errors.Join(failed, os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), level, option, value)))
			}
			set(syscall.IPPROTO_TCP, tcpUserTimeout, int(timeout.Milliseconds()))
			set(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
			set(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAlivePeriod.Seconds()))
			set(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAlivePeriod.Seconds()))
		})
		return errors.Join(err, failed)
	}
}

// descriptorLimit returns how many files and connections this process may have open. Go
// has raised the soft limit to the hard one.
func descriptorLimit() (limit uint64, known bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return r.Cur, true
}

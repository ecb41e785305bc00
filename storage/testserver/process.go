package testserver

import (
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is how long a server may take to start. It usually takes milliseconds.
const patience = 20 * time.Second

// launch starts a server, and closes exited when it has ended, however it ended.
//
// Where the kernel is asked to end a server with this process, it ends the server
// with the thread that started it. So that thread lives as long as the server, and
// runs nothing else meanwhile.
func launch(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(ended)
		}
	}()
	return ended, <-started
}

// FreePort returns a TCP port of 127.0.0.1 that is free now. The kernel does not
// choose it for listeners that ask for any port, so another test is unlikely to take
// it before it is used, or while its server is down.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// lastLines keeps the end of the text that is written to it.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if excess := len(l.text) - 4096; excess > 0 {
		l.text = slices.Delete(l.text, 0, excess)
	}
	return len(p), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

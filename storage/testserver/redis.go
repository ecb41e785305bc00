package testserver

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Redis is a redis-server of a test's own.
type Redis struct {
	t        testing.TB
	args     []string
	port     int
	dir      string
	password string
	tls      bool

	mu   sync.Mutex
	cmd  *exec.Cmd
	done <-chan struct{} // closed when the process has ended
	out  *lastLines
}

// StartRedis starts a redis-server on a free port of this machine, for as long
// as the test runs. The args go on its command line. Without --appendonly or
// --save among them it keeps nothing on disk, and with --tls-cert-file it speaks
// TLS only.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("this test needs redis-server: apt-get install redis-server")
	}
	r := &Redis{t: t, args: args, dir: t.TempDir(), tls: slices.Contains(args, "--tls-cert-file")}
	if i := slices.Index(args, "--requirepass"); i >= 0 && i+1 < len(args) {
		r.password = args[i+1]
	}
	t.Cleanup(r.Kill)
	// Another process may take the port before the server does.
	for range 5 {
		r.port = FreePort(t)
		if r.start() == nil {
			return r
		}
	}
	t.Fatalf("start redis-server: %s", r.out)
	return nil
}

// RedisURL returns the URL of a Redis that works: the one in the environment variable
// REJOIN_TEST_REDIS, which others use as well, or else a new one.
func RedisURL(t testing.TB) string {
	if u := os.Getenv("REJOIN_TEST_REDIS"); u != "" {
		return u
	}
	return StartRedis(t).URL()
}

// Addr returns the server's host and port.
func (r *Redis) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// URL returns the server's URL, with its password.
func (r *Redis) URL() string {
	u := url.URL{Scheme: "redis", Host: r.Addr(), Path: "/0"}
	if r.tls {
		u.Scheme = "rediss"
	}
	if r.password != "" {
		u.User = url.UserPassword("default", r.password)
	}
	return u.String()
}

// Start starts a server that was killed, on the same port and with the data that it
// kept on disk.
func (r *Redis) Start() {
	r.t.Helper()
	if err := r.start(); err != nil {
		r.t.Fatalf("start redis-server again: %v: %s", err, r.out)
	}
}

// Kill kills the server, as kill -9 does. The data that it held in memory is gone.
func (r *Redis) Kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // it may have ended already
	<-r.done
	r.cmd = nil
}

// Pause freezes the server: its connections stay open, and nothing is answered.
func (r *Redis) Pause() { r.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (r *Redis) Resume() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(s syscall.Signal) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		r.t.Fatalf("%v to a redis-server that does not run", s)
	}
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("%v to redis-server: %v", s, err)
	}
}

func (r *Redis) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := "--port"
	args := []string{"--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no"}
	if r.tls {
		port = "--tls-port"
		args = append(args, "--port", "0")
	}
	args = append(args, port, strconv.Itoa(r.port))
	if len(r.args) > 0 && !strings.HasPrefix(r.args[0], "-") {
		args = append(r.args[:1:1], append(args, r.args[1:]...)...) // a file comes first
	} else {
		args = append(args, r.args...)
	}
	r.out = &lastLines{}
	cmd := exec.Command("redis-server", args...)
	cmd.Stdout, cmd.Stderr = r.out, r.out
	dieWithParent(cmd)
	done, err := launch(cmd)
	if err != nil {
		return err
	}
	r.cmd, r.done = cmd, done
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if r.ready() && r.answers() {
			return nil
		}
		select {
		case <-done:
			r.cmd = nil
			return fmt.Errorf("redis-server ended: %v", cmd.ProcessState)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("redis-server does not answer")
}

// ready reports whether the server has logged that it listens. Another process may
// have taken its port, and answer there.
func (r *Redis) ready() bool {
	out := r.out.String()
	return strings.Contains(out, "Ready to accept connections") || strings.Contains(out, "Sentinel ID is")
}

// answers reports whether the server takes commands, or, if it speaks TLS only,
// whether it accepts connections.
func (r *Redis) answers() bool {
	c, err := net.DialTimeout("tcp", r.Addr(), time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if r.tls {
		return true
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && !strings.HasPrefix(line, "-LOADING")
}

// StartSentinel starts a sentinel that watches the master under that name, takes
// it for dead within half a second, and needs no other sentinel to agree.
func StartSentinel(t testing.TB, name string, master *Redis) *Redis {
	t.Helper()
	host, port, _ := strings.Cut(master.Addr(), ":")
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	conf := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 500\nsentinel failover-timeout %[1]s 3000\n", name, host, port)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return StartRedis(t, file, "--sentinel")
}

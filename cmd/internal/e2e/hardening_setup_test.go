package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// target is a whole server, as it is configured for users.
type target struct {
	*process
	address string
	tls     *tls.Config // of clients; nil if it is plain
	client  *http.Client
	stop    func() // as SIGTERM does, and waits until it has ended
}

// attack starts a target, with TLS or without. Everything but the settings, such
// as REJOIN_LIMITS_SUBSCRIBERS=1, is as users have it.
func attack(t *testing.T, secure bool, settings ...string) *target {
	t.Helper()
	target := &target{client: http.DefaultClient}
	env := append([]string{"REJOIN_DRAIN_WINDOW=10ms", "REJOIN_ADMIN_LISTEN=127.0.0.1:0"}, settings...)
	if secure {
		files := newCertificateFiles(t)
		env = append(env, files.env()...)
		target.client = files.client(t)
		target.tls = target.client.Transport.(*http.Transport).TLSClientConfig
	}
	target.process = serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), env...)
	target.stop = sync.OnceFunc(func() {
		if err := target.terminate(); err != nil {
			t.Error(err)
		}
		if log := target.log.String(); strings.Contains(log, "panic") {
			t.Errorf("the log: %s", log)
		}
	})
	t.Cleanup(target.stop)
	_, target.address, _ = strings.Cut(target.url, "://")
	return target
}

// goroutines returns how many goroutines the server has.
func (s *target) goroutines() (n int) {
	s.t.Helper()
	resp, err := http.Get(s.adminURL() + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := fmt.Fscanf(resp.Body, "goroutine profile: total %d", &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// dial opens a connection that speaks what protocol says, such as http/1.1, if
// there is TLS.
func (s *target) dial(protocol string) net.Conn {
	s.t.Helper()
	var conn net.Conn
	var err error
	if s.tls == nil {
		conn, err = net.Dial("tcp", s.address)
	} else {
		config := s.tls.Clone()
		config.NextProtos = []string{protocol}
		conn, err = tls.Dial("tcp", s.address, config)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// raw sends bytes over a connection of their own, and returns the answer's
// status and whatever else the server says before it closes the connection, or
// all that it says within the time.
func (s *target) raw(text string) (resp *http.Response, r *bufio.Reader) {
	s.t.Helper()
	conn := s.dial("http/1.1")
	go func() { _, _ = conn.Write([]byte(text)) }() // who refuses does not read to the end
	r = bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		s.t.Fatalf("%.200q: %v", text, err)
	}
	return resp, r
}

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// target is a whole server in this process, as it is configured for users.
type target struct {
	t       *testing.T
	address string
	tls     *tls.Config // of clients; nil if it is plain
	client  *http.Client
	log     *lockedBuffer
	stop    func() // as SIGTERM does, and waits until it has ended
}

// attack starts a target, with TLS or without. Everything but what settings
// says, such as REJOIN_LIMITS_SUBSCRIBERS=1, is as users have it.
func attack(t *testing.T, secure bool, settings ...string) *target {
	t.Helper()
	target := &target{t: t, client: http.DefaultClient, log: new(lockedBuffer)}
	if secure {
		files := certificateFiles(t)
		target.client = trusting(t, writeCertificate(t, files), true)
		target.tls = target.client.Transport.(*http.Transport).TLSClientConfig
		t.Setenv("REJOIN_TLS_CERT", files.Cert)
		t.Setenv("REJOIN_TLS_KEY", files.Key)
	} else {
		t.Setenv("REJOIN_TLS_CERT", "")
		t.Setenv("REJOIN_TLS_KEY", "")
	}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
	ctx, signal := context.WithCancel(context.Background())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"))
	drained := make(chan struct{})
	go func() { // whoever logs waits for a reader
		defer close(drained)
		for srv.log.Scan() {
			_, _ = target.log.Write(append(srv.log.Bytes(), '\n'))
		}
	}()
	target.stop = sync.OnceFunc(func() {
		signal()
		if code := <-srv.exit; code != exitOK {
			t.Errorf("exit %d", code)
		}
		<-drained
		if log := target.log.String(); strings.Contains(log, "panic") {
			t.Errorf("the log: %s", log)
		}
	})
	t.Cleanup(target.stop)
	_, target.address, _ = strings.Cut(srv.url, "://")
	return target
}

func (s *target) url() string {
	if s.tls != nil {
		return "https://" + s.address
	}
	return "http://" + s.address
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
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
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

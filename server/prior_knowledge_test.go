package server_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// TestPriorKnowledge: without TLS, a client may begin with HTTP/2, as some proxies do. If
// the engine does not take its connection, it is closed.
func TestPriorKnowledge(t *testing.T) {
	n := start(t, server.Options{}, nil)
	var takes atomic.Bool
	takes.Store(true)
	s := httptest.NewUnstartedServer(n.Server)
	s.Config.ConnContext = server.WithConn
	server.AcceptHTTP2(s.Config, func(conn net.Conn) bool { return takes.Load() && n.ServeHTTP2(s.Config, conn) })
	s.Start()
	t.Cleanup(s.Close)
	ask := func(http2 bool) (*http.Response, error) {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(!http2)
		transport.Protocols.SetUnencryptedHTTP2(http2)
		t.Cleanup(transport.CloseIdleConnections)
		return (&http.Client{Transport: transport}).Get(s.URL + "/healthz")
	}
	for http2, want := range map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"} {
		r, err := ask(http2)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || r.Proto != want {
			t.Errorf("%s %s %q, %v", r.Proto, r.Status, body, err)
		}
	}
	takes.Store(false)
	if r, err := ask(true); err == nil {
		r.Body.Close()
		t.Errorf("it answers %s although the connection was not taken", r.Status)
	}
}

package server_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// TestWaiting: a node without its store is alive, shows its pages, refuses events, and
// gives a browser no status that would stop it.
func TestWaiting(t *testing.T) {
	http1 := httptest.NewServer(server.Waiting(server.Options{Console: pages}))
	defer http1.Close()
	n := &node{t: t, url: http1.URL}
	if r, body := n.do("GET", "/healthz", nil, ""); r.StatusCode != http.StatusOK || !strings.Contains(body, "alive") {
		t.Errorf("%s %s", r.Status, body)
	}
	if r, body := n.do("GET", "/readyz", nil, ""); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"ready":false`) || !strings.Contains(body, `"store":"down"`) {
		t.Errorf("%s %s", r.Status, body)
	}
	for _, path := range []string{"/", "/feeds/chat", "/demo"} {
		if r, body := n.do("GET", path, map[string]string{"Accept": "text/html"}, ""); r.StatusCode != http.StatusOK || body != "page "+path {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
	for _, request := range []string{"GET /v1/feeds", "HEAD /v1/feeds/chat", "DELETE /v1/feeds/chat", "POST /demo/answers", "PUT /"} {
		method, path, _ := strings.Cut(request, " ")
		if r, _ := n.do(method, path, nil, ""); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s %v", request, r.Status, r.Header)
		}
	}
	r, body := n.do("POST", events, nil, "x")
	wantProblem(t, r, body, http.StatusServiceUnavailable, "nothing was stored")
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	f := n.follow(events, map[string]string{"Accept": "text/event-stream"})
	rest, err := io.ReadAll(f.r)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !regexp.MustCompile(`^retry: \d{4,5}\n$`).Match(rest) {
		t.Errorf("got %q and %v", rest, err)
	}
}

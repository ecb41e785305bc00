package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// rebound sends what a browser sends for a page at http://evil.example whose author
// has had that name mean this machine since: to the browser, the server is of the
// page's own origin.
func rebound(t *testing.T, method, host, address, path string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Origin", "http://"+host)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestRebinding: where nobody is asked for a token, only its name tells a page of
// another site from the server's own.
func TestRebinding(t *testing.T) {
	const refused = http.StatusMisdirectedRequest
	for _, test := range []struct {
		name          string
		settings      []string
		listen, host  string
		public, admin int // what GET /v1/feeds and /debug/pprof/cmdline get
	}{
		{"by address", nil, "127.0.0.1:0", "", 200, 200},
		{"by name", nil, "127.0.0.1:0", "localhost:8080", 200, 200},
		{"another site", nil, "127.0.0.1:0", "evil.example:8080", refused, refused},
		{"another site, listening by name", nil, "localhost:0", "evil.example:8080", refused, refused},
		{"another loopback address", nil, "127.0.0.2:0", "evil.example:8080", refused, refused},
		{"none, written", []string{"REJOIN_AUTH_MODE=none"}, "127.0.0.1:0", "evil.example", refused, refused},
		{"server.hosts", []string{"REJOIN_SERVER_HOSTS=other.example,rejoin.example"}, "127.0.0.1:0", "rejoin.example:8080", 200, 200},
		{"not in server.hosts", []string{"REJOIN_SERVER_HOSTS=other.example,rejoin.example"}, "127.0.0.1:0", "evil.example:8080", refused, refused},
		{"cors.origins", []string{"REJOIN_CORS_ORIGINS=https://app.example"}, "127.0.0.1:0", "app.example", 200, refused},
		{"not in cors.origins", []string{"REJOIN_CORS_ORIGINS=https://app.example"}, "127.0.0.1:0", "evil.example", refused, refused},
		{"any origin", []string{"REJOIN_CORS_ORIGINS=*"}, "127.0.0.1:0", "evil.example", 200, refused},
		{"tokens", []string{"REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY=" + strings.Repeat("k", 32)}, "127.0.0.1:0", "evil.example", 401, refused},
		{"on all addresses", []string{"REJOIN_AUTH_MODE=none"}, "0.0.0.0:0", "node1:8080", 200, 200},
		{"on all addresses, without one", []string{"REJOIN_AUTH_MODE=none"}, ":0", "node1:8080", 200, 200},
		{"on all addresses, not in server.hosts", []string{"REJOIN_AUTH_MODE=none", "REJOIN_SERVER_HOSTS=rejoin.example"}, "0.0.0.0:0", "node1:8080", refused, 200},
		{"on all addresses, in server.hosts", []string{"REJOIN_AUTH_MODE=none", "REJOIN_SERVER_HOSTS=rejoin.example"}, "0.0.0.0:0", "rejoin.example", 200, 200},
		{"on all addresses, tokens", []string{"REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY=" + strings.Repeat("k", 32), "REJOIN_SERVER_HOSTS=rejoin.example"}, "0.0.0.0:0", "node1", 401, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // it waits for a process to start
			public, admin := serveBoth(t, test.listen, test.settings...)
			host := func(address string) string {
				if test.host == "" {
					return address
				}
				return test.host
			}
			want := func(address, method, path string, status int) {
				t.Helper()
				got, body := rebound(t, method, host(address), address, path)
				if got != status || got == refused && (!strings.Contains(body, "server.hosts") || !strings.Contains(body, strings.Split(test.host, ":")[0])) {
					t.Errorf("%s %s: %d %s, want %d", method, path, got, body, status)
				}
			}
			want(public, "GET", "/v1/feeds", test.public)
			want(public, "GET", "/healthz", 200)
			want(public, "GET", "/readyz", 200)
			if test.public == refused {
				want(public, "POST", "/v1/feeds/chat/events", refused)
				want(public, "DELETE", "/v1/feeds/chat", refused)
				want(public, "GET", "/v1/feeds/chat/events", refused)
				want(public, "GET", "/", refused)
			}
			want(admin, "GET", "/debug/pprof/cmdline", test.admin)
			want(admin, "GET", "/metrics", test.admin)
			wantHostless(t, public)
		})
	}
}

// wantHostless demands that HTTP/1.0 without a Host, as some probes have it, goes on
// working.
func wantHostless(t *testing.T, address string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /openapi.yaml HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("without a Host: %v, %v", resp, err)
	}
}

// serveBoth starts a node that listens twice so, for clients and for operators, and
// returns where to reach it.
func serveBoth(t *testing.T, listen string, settings ...string) (public, admin string) {
	t.Helper()
	db := "sqlite:" + filepath.Join(t.TempDir(), "rejoin.db")
	p := serveAt(t, built(t, false), listen, db, "memory", append(settings, "REJOIN_ADMIN_LISTEN="+listen)...)
	_, public, _ = strings.Cut(p.url, "://")
	_, admin, _ = strings.Cut(p.logged("listening for operators").Metrics, "://")
	return public, strings.TrimSuffix(admin, "/metrics")
}

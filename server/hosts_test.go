package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/rejoin/rejoin/server"
)

func TestOnlyHosts(t *testing.T) {
	hosts := append(server.OriginHosts([]string{"https://app.example", "http://b.example:3000", "https://[2001:db8::1]:8443"}), "Rejoin.Example", "192.0.2.7")
	handler := server.OnlyHosts(hosts, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") }))
	ask := func(path, host string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
		r.Host = host
		handler.ServeHTTP(w, r)
		return w
	}
	for _, host := range []string{
		"", // of HTTP/1.0, which no browser speaks
		"localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "localhost.:8080", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1", "[::1]", "[::1]:8080", "[::ffff:127.0.0.1]:80",
		"app.example", "app.example:443", "b.example:3000", "b.example", "[2001:db8::1]", "rejoin.example:80", "rejoin.example.", "192.0.2.7", "192.0.2.7:8080",
	} {
		if w := ask("/v1/feeds", host); w.Body.String() != "in" {
			t.Errorf("%q is refused: %d %s", host, w.Code, w.Body)
		}
	}
	for _, host := range []string{
		"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "x.rejoin.example", "evilrejoin.example", "192.0.2.8",
		"0.0.0.0:8080", "[::]:8080", "10.0.0.1", "localhost:x", "localhost@evil.example", "localhost,evil.example", "127.0.0.1:80:80", "2130706433", "[::1", "::1]:80x", ":8080x", "app.example:443 evil",
	} {
		w := ask("/v1/feeds", host)
		wantProblem(t, w.Result(), w.Body.String(), http.StatusMisdirectedRequest, "server.hosts")
		for _, path := range []string{"/healthz", "/readyz"} {
			if w := ask(path, host); w.Body.String() != "in" {
				t.Errorf("%s of %q is refused: %d %s", path, host, w.Code, w.Body)
			}
		}
	}
	w := ask("/v1/feeds", "evil.example:8080")
	wantProblem(t, w.Result(), w.Body.String(), http.StatusMisdirectedRequest, `the host "evil.example"`)
}

func TestCheckHosts(t *testing.T) {
	for _, good := range []string{"a", "rejoin.example", "REJOIN.example.", "192.0.2.7", "::1", "[::1]", "xn--bcher-kva.example", "node_1"} {
		if err := server.CheckHosts([]string{good}); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "*", "*.example", "a.example:80", "[::1]:80", "http://a.example", "a.example/", "a b", "bücher.example", ".", "a..b", "u@a.example"} {
		if err := server.CheckHosts([]string{"a", bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if hosts := server.OriginHosts([]string{"*"}); !slices.Equal(hosts, nil) {
		t.Errorf("* has the hosts %q", hosts)
	}
}

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheckMachine is about what a test cannot change on its machine: its clock, and the
// settings of its kernel. cmd/internal/e2e has the other looks.
func TestCheckMachine(t *testing.T) {
	now := time.Now()
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "sys/net/core"), 0o755); err != nil {
		t.Fatal(err)
	}
	backlog := func(text string) func(*checker) {
		return func(k *checker) {
			if err := os.WriteFile(filepath.Join(proc, "sys/net/core/somaxconn"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			k.backlog()
		}
	}
	clock := func(apart time.Duration) func(*checker) {
		return func(k *checker) { k.clocks("db:5432", now.Add(apart), now) }
	}
	for _, test := range []struct {
		look func(*checker)
		want string
	}{
		{backlog("128\n"), "PROBLEM  somaxconn      clients that all reconnect at once would wait for seconds, or fail: the kernel queues 128 "},
		{backlog("4096\n"), "ok       somaxconn      4096\n"},
		{clock(2 * time.Second), "ok       clock          db:5432: less than 2s away"},
		{clock(-2001 * time.Millisecond), "PROBLEM  clock          db:5432: times of events, "},
		{clock(time.Hour), "its clock is 1h0m0s away"},
	} {
		var out strings.Builder
		k := &checker{out: &out, proc: proc}
		test.look(k)
		if got := out.String(); !strings.Contains(got, test.want) || (k.end() != nil) != strings.HasPrefix(got, "PROBLEM") {
			t.Errorf("got %q, %v, want %q", got, k.end(), test.want)
		}
	}
}

// TestCheckApplication: check asks the application once, and tells what does not work.
func TestCheckApplication(t *testing.T) {
	status, asked := 0, ""
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked += r.Header.Get("Rejoin-Action") + " " + r.Header.Get("Rejoin-Feeds") + ";"
		w.WriteHeader(status)
	}))
	host := strings.TrimPrefix(app.URL, "http://")
	check := func(url string) string {
		var out strings.Builder
		c := DefaultConfig()
		c.Auth.Mode, c.Auth.Forward.URL = "forward", url
		k := &checker{out: &out}
		k.auth(t.Context(), c)
		return out.String()
	}
	for _, test := range []struct {
		status int
		want   string
	}{
		{401, "ok       auth           " + host + ": the application answers; a client without cookie and token is refused: not logged in"},
		{302, "ok       auth           " + host + ": the application answers; a client without cookie and token is refused: not logged in"},
		{204, "ok       auth           " + host + ": the application answers; a client without cookie and token is allowed"},
		{404, "PROBLEM  auth           " + host + ": every request would get 503, and event streams would wait: auth.forward.url: the answer is 404"},
	} {
		status, asked = test.status, ""
		if got := check(app.URL + "/rejoin?secret=hush"); !strings.HasPrefix(got, test.want) || strings.Contains(got, "hush") || asked != "subscribe rejoin-check;" {
			t.Errorf("%d: %s after %s", test.status, got, asked)
		}
	}
	app.Close()
	if got := check(app.URL); !strings.Contains(got, "PROBLEM") || !strings.Contains(got, "connection refused") {
		t.Errorf("nobody is there: %s", got)
	}
}

package e2e

import (
	"bufio"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestServeGuarded is the whole of it: a token made by rejoin token, over
// HTTP/2, to a stream and a publish at the same time, in one connection.
func TestServeGuarded(t *testing.T) {
	files := newCertificateFiles(t)
	settings := append(files.env(), "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret, "REJOIN_AUTH_JWT_AUDIENCE=chat-app", "REJOIN_LOG_LEVEL=debug")
	_, made := startCommand(t, time.Minute, settings, "token", "--subscribe", "chat:*", "--publish", "chat:42,chat:43", "--for", "1m")
	token := strings.TrimSuffix(made().stdout, "\n")

	store := "sqlite:" + filepath.Join(t.TempDir(), "rejoin.db")
	srv := serveAt(t, built(t, false), "0.0.0.0:0", store, "memory", settings...)
	if !strings.HasPrefix(srv.url, "https://") {
		t.Errorf("it logs %s", srv.url)
	}
	url := strings.Replace(srv.url, "localhost", "127.0.0.1", 1)
	client := files.client(t)
	ask := func(method, path, token string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.Proto != "HTTP/2.0" {
			t.Errorf("%s %s is answered with %s", method, path, resp.Proto)
		}
		return resp
	}
	for _, test := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/healthz", "", 200},
		{"GET", "/v1/feeds/chat:42/events", "", 401},
		{"GET", "/v1/feeds/chat:42/events", token[:len(token)-1], 401},
		{"GET", "/v1/feeds/news/events", token, 403},
		{"POST", "/v1/feeds/chat:44/events", token, 403},
		{"POST", "/v1/feeds/chat:43/events", token, 201},
	} {
		if resp := ask(test.method, test.path, test.token); resp.StatusCode != test.status {
			t.Errorf("%s %s: %s, want %d", test.method, test.path, resp.Status, test.status)
		}
	}
	stream := bufio.NewScanner(ask("GET", "/v1/feeds/chat:42/events?access_token="+token, "").Body)
	awaitLine := func(want string) {
		t.Helper()
		for stream.Scan() {
			if stream.Text() == want {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, stream.Err())
	}
	awaitLine("event: feed.open")
	ask("POST", "/v1/feeds/chat:42/events", token)
	awaitLine("data: x")
	awaitLine("id: 1")

	if err := srv.terminate(); err != nil {
		t.Error(err)
	}
	log := srv.log.String()
	if !strings.Contains(log, "/v1/feeds/chat:42/events") || strings.Contains(log, "access_token") || strings.Contains(log, token) || strings.Contains(log, tokenSecret) {
		t.Errorf("the log: %s", log)
	}
}

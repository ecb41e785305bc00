package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

const secret = "0123456789abcdef0123456789abcdef"

// guarded starts a node with these auth options.
func guarded(t *testing.T, o auth.Options, more server.Options) *node {
	t.Helper()
	v, err := auth.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	more.Auth = v
	return start(t, more, nil)
}

// tokenFor returns a token that is signed with the secret.
func tokenFor(t *testing.T, rights auth.Rights) string {
	t.Helper()
	token, err := auth.Sign(auth.Options{Key: secret}, rights, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

// head sends a request and returns the head of the answer, and the body if that
// is not a stream.
func (n *node) head(method, path string, header map[string]string, body string) (*http.Response, string) {
	n.t.Helper()
	r := n.request(method, path, header, body)
	defer r.Body.Close()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		return r, ""
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return r, string(b)
}

// TestWhoMay: which tokens may use which routes.
func TestWhoMay(t *testing.T) {
	console := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "console") })
	n := guarded(t, auth.Options{Key: secret}, server.Options{Console: console})
	reader := bearer(tokenFor(t, auth.Rights{Subscribe: []string{"chat:*"}}))
	writer := bearer(tokenFor(t, auth.Rights{Publish: []string{"chat:42"}}))
	admin := bearer(tokenFor(t, auth.Rights{Admin: true}))
	for _, test := range []struct {
		name         string
		method, path string
		header       map[string]string
		status       int
	}{
		{"alive", "GET", "/healthz", nil, 200},
		{"ready", "GET", "/readyz", nil, 200},
		{"console", "GET", "/", nil, 200},
		{"nobody subscribes", "GET", "/v1/feeds/chat:42/events", nil, 401},
		{"nobody looks", "HEAD", "/v1/feeds/chat:42/events", nil, 401},
		{"nobody publishes", "POST", "/v1/feeds/chat:42/events", nil, 401},
		{"nobody asks for a bad name", "GET", "/v1/feeds/.a/events", nil, 401},
		{"a reader subscribes", "GET", "/v1/feeds/chat:42/events", reader, 200},
		{"a reader looks", "HEAD", "/v1/feeds/chat:42/events", reader, 200},
		{"a reader of an escaped name", "GET", "/v1/feeds/chat%3A42/events", reader, 200},
		{"a reader elsewhere", "GET", "/v1/feeds/news/events", reader, 403},
		{"a reader publishes", "POST", "/v1/feeds/chat:42/events", reader, 403},
		{"a reader asks for a bad name", "GET", "/v1/feeds/.a/events", reader, 400},
		{"a writer publishes", "POST", "/v1/feeds/chat:42/events", writer, 201},
		{"a writer elsewhere", "POST", "/v1/feeds/chat:421/events", writer, 403},
		{"a writer subscribes", "GET", "/v1/feeds/chat:42/events", writer, 403},
		{"an admin is no reader", "GET", "/v1/feeds/chat:42/events", admin, 403},
		{"a token in the query", "GET", "/v1/feeds/chat:42/events?access_token=" + tokenFor(t, auth.Rights{Subscribe: []string{"*"}}), nil, 200},
		{"nobody subscribes to a bare stream", "GET", "/v1/feeds/chat:42/stream", nil, 401},
		{"a reader subscribes to a bare stream", "GET", "/v1/feeds/chat:42/stream", reader, 200},
		{"a reader of a bare stream elsewhere", "GET", "/v1/feeds/news/stream?closed=204", reader, 403},
		{"a writer subscribes to a bare stream", "HEAD", "/v1/feeds/chat:42/stream", writer, 403},
		{"another method", "PUT", "/v1/feeds/chat:42/events", nil, 405},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, body := n.head(test.method, test.path, test.header, "x")
			if r.StatusCode != test.status {
				t.Fatalf("%s %s, want %d", r.Status, body, test.status)
			}
			challenge := ""
			if test.status == 401 {
				challenge = "Bearer"
			}
			if got := r.Header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("WWW-Authenticate: %q, want %q", got, challenge)
			}
		})
	}
	r, body := n.do("POST", events, nil, "x")
	wantProblem(t, r, body, http.StatusUnauthorized, "a token is needed")
	r, body = n.do("POST", "/v1/feeds/news/events", reader, "x")
	wantProblem(t, r, body, http.StatusForbidden, "the token may not publish to news")
}

// TestKeysAway: while no token can be verified, a browser must come back later, and a
// publisher must know that nothing was stored.
func TestKeysAway(t *testing.T) {
	away := httptest.NewServer(http.NotFoundHandler())
	defer away.Close()
	n := guarded(t, auth.Options{JWKSURL: away.URL, Logger: slog.New(slog.DiscardHandler)}, server.Options{})
	token := bearer(tokenWith(t, "RS256", signingKey(), nil))
	r, body := n.do("POST", events, token, "x")
	wantProblem(t, r, body, http.StatusServiceUnavailable, "nothing was stored")
	token["Accept"] = "text/event-stream"
	// Not even a publisher who takes event streams must see a 200.
	if r, body = n.do("POST", events, token, "x"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s %s", r.Status, body)
	}
	f := n.follow(events, token)
	if rest, err := io.ReadAll(f.r); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(string(rest), "retry: ") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// TestCORS: pages of the configured origins may use the server, and may read the
// headers that clients need.
func TestCORS(t *testing.T) {
	named := start(t, server.Options{Origins: []string{"https://a.example", "http://b.example:8080", "https://*.d.example"}}, nil)
	all := start(t, server.Options{Origins: []string{"*"}}, nil)
	none := start(t, server.Options{}, nil)
	for _, test := range []struct {
		name        string
		n           *node
		origin      string
		allowed     string
		credentials string
		vary        bool
	}{
		{"named", named, "https://a.example", "https://a.example", "true", true},
		{"named with a port", named, "http://b.example:8080", "http://b.example:8080", "true", true},
		{"no browser", named, "", "", "", true},
		{"another", named, "https://c.example", "", "", true},
		{"another scheme", named, "http://a.example", "", "", true},
		{"a domain below", named, "https://x.a.example", "", "", true},
		{"one that ends like it", named, "https://evil-a.example", "", "", true},
		{"a pattern is no origin", named, "https://x.d.example", "", "", true},
		{"none at all", named, "null", "", "", true},
		{"any", all, "https://c.example", "*", "", true},
		{"any, no browser", all, "", "", "", true},
		{"not configured", none, "https://a.example", "", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := map[string]string{"Accept": "text/event-stream"}
			if test.origin != "" {
				header["Origin"] = test.origin
			}
			check := func(r *http.Response, status int, exposed bool) {
				t.Helper()
				h := r.Header
				if r.StatusCode != status || h.Get("Access-Control-Allow-Origin") != test.allowed || h.Get("Access-Control-Allow-Credentials") != test.credentials ||
					slices.Contains(h.Values("Vary"), "Origin") != test.vary {
					t.Errorf("%s %v", r.Status, h)
				}
				if got := h.Get("Access-Control-Expose-Headers"); (got == "Etag, Idempotency-Replayed, Link, Location, Retry-After, X-Request-Id, X-Workflow-Stream-Tail-Index") != exposed {
					t.Errorf("it exposes %s", got)
				}
			}
			stream, _ := test.n.head("GET", events, header, "")
			check(stream, http.StatusOK, test.allowed != "")
			refused, _ := test.n.head("GET", events+"?from=never", header, "")
			check(refused, http.StatusBadRequest, test.allowed != "")
			if test.origin == "" || test.n == none {
				return
			}
			header["Access-Control-Request-Method"] = "DELETE"
			header["Access-Control-Request-Headers"] = "accept, authorization, cache-control, content-type, event-type, idempotency-key, if-match, if-none-match, last-event-id, traceparent, x-request-id"
			preflight, _ := test.n.head("OPTIONS", events, header, "")
			check(preflight, http.StatusOK, false)
			if got := preflight.Header; (got.Get("Access-Control-Allow-Methods") == "DELETE" && strings.Contains(strings.ToLower(got.Get("Access-Control-Allow-Headers")), "last-event-id")) != (test.allowed != "") {
				t.Errorf("the preflight: %v", got)
			}
			for name, value := range map[string]string{"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "X-Other"} {
				asks := map[string]string{"Origin": test.origin, "Access-Control-Request-Method": "POST"}
				asks[name] = value
				if r, _ := test.n.head("OPTIONS", events, asks, ""); r.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s is allowed", value)
				}
			}
		})
	}
}

// TestStreamFromAnotherOrigin: the CORS handler wraps the connection of the stream,
// and must hold nothing back.
func TestStreamFromAnotherOrigin(t *testing.T) {
	n := start(t, server.Options{Origins: []string{"https://a.example"}}, nil)
	f := n.follow(events, map[string]string{"Origin": "https://a.example"})
	f.want(open("chat", 0, 1, 0))
	n.publish("chat", "one", 1)
	f.want(event(1, "one"))
}

// TestWaitingCORS: a browser that may not see the answer never comes back.
func TestWaitingCORS(t *testing.T) {
	http1 := httptest.NewServer(server.Waiting(server.Options{Origins: []string{"https://a.example"}}))
	defer http1.Close()
	n := &node{t: t, url: http1.URL}
	r, _ := n.head("GET", events, map[string]string{"Accept": "text/event-stream", "Origin": "https://a.example"}, "")
	if r.StatusCode != http.StatusOK || r.Header.Get("Access-Control-Allow-Origin") != "https://a.example" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
}

func TestCheckOrigins(t *testing.T) {
	for _, good := range [][]string{nil, {"*"}, {"https://a.example"}, {"http://localhost:3000", "https://[::1]:8443", "capacitor://localhost"}} {
		if err := server.CheckOrigins(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a.example", "https://a.example/", "https://A.example", "https://*.example", "https://a.example:443", "http://a.example:80",
		"https://u:p@a.example", "https://a.example?x", "null", "https://", "HTTPS://a.example", "https://a.example,https://b.example",
	} {
		if err := server.CheckOrigins([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, bad := range [][]string{{"*", "https://a.example"}, {"https://a.example", "*"}} {
		if err := server.CheckOrigins(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

package auth_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/server/auth"
)

// authority is an application that is asked.
type authority struct {
	url string

	mu       sync.Mutex
	asked    []*http.Request
	bodies   []string
	answer   http.HandlerFunc // nil allows
	received chan struct{}    // gets a token for each question
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.asked = append(a.asked, r.Clone(context.Background()))
	a.bodies = append(a.bodies, string(body))
	answer := a.answer
	a.mu.Unlock()
	select {
	case a.received <- struct{}{}:
	default:
	}
	if answer != nil {
		answer(w, r)
	}
}

func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func (a *authority) last() *http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[len(a.asked)-1]
}

func (a *authority) set(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func newAuthority(t *testing.T, answer http.HandlerFunc) *authority {
	t.Helper()
	a := &authority{answer: answer, received: make(chan struct{}, 10_000)}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.url = s.URL + "/may"
	return a
}

func openForward(t *testing.T, o auth.ForwardOptions) *auth.Forward {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := auth.OpenForward(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

var facts = auth.Facts{Scheme: "https", Host: "rejoin.example", Address: "192.0.2.7", URI: "/v1/feeds/chat/events?types=a"}

// visit makes a request with these header lines, in their order.
func visit(method, target string, lines ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader("the body of the request"))
	for i := 0; i < len(lines); i += 2 {
		r.Header.Add(lines[i], lines[i+1])
	}
	return r
}

// ask identifies the sender of r and asks about an action.
func ask(t *testing.T, f *auth.Forward, r *http.Request, action auth.Action, feeds ...string) (auth.Grant, error) {
	t.Helper()
	identity, err := f.Identify(r, facts)
	if err != nil {
		return auth.Grant{}, err
	}
	return identity.Grant(t.Context(), action, feeds...)
}

// TestForwardAsks: a question has what the contract lists, and nothing else of the
// client's request.
func TestForwardAsks(t *testing.T) {
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url + "?by=rejoin"})
	own := http.Header{
		"Accept": {"application/json"}, "User-Agent": {"Rejoin"},
		"X-Forwarded-Method": {"POST"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"rejoin.example"},
		"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Uri": {"/v1/feeds/chat/events?types=a"},
		"Rejoin-Action": {"publish"}, "Rejoin-Feeds": {"chat,news"},
	}
	for _, test := range []struct {
		name  string
		lines []string
		query string
		want  http.Header // beside own
	}{
		{"nothing", nil, "", nil},
		{"a cookie", []string{"Cookie", "a=1; b=2"}, "", http.Header{"Cookie": {"a=1; b=2"}}},
		{"two headers of cookies", []string{"Cookie", "a=1", "Cookie", "b=2"}, "", http.Header{"Cookie": {"a=1; b=2"}}},
		{"any Authorization", []string{"Authorization", "Basic dTpw"}, "", http.Header{"Authorization": {"Basic dTpw"}}},
		{"a token in the query", nil, "?access_token=x.y", http.Header{"Authorization": {"Bearer x.y"}}},
		{"both", []string{"Authorization", "Bearer a"}, "?access_token=b", http.Header{"Authorization": {"Bearer a"}}},
		// An application that believes these would let anyone pass for anyone.
		{"headers of an application's proxy", []string{
			"X-Forwarded-Method", "GET", "X-Forwarded-Proto", "http", "X-Forwarded-Host", "evil.example", "X-Forwarded-For", "127.0.0.1",
			"X-Forwarded-Uri", "/public", "Rejoin-Action", "subscribe", "Rejoin-Feeds", "public",
			"X-Forwarded-User", "root", "X-Real-Ip", "127.0.0.1", "Remote-User", "root", "X-Original-Url", "/public", "Forwarded", "for=127.0.0.1",
		}, "", nil},
		{"other headers", []string{"Content-Type", "text/plain", "Origin", "https://a.example", "Last-Event-ID", "7", "X-Csrf-Token", "x", "Accept-Language", "de", "Transfer-Encoding", "chunked"}, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ask(t, f, visit("POST", "/v1/events"+test.query, test.lines...), auth.Publish, "chat", "news"); err != nil {
				t.Fatal(err)
			}
			want := own.Clone()
			for name, values := range test.want {
				want[name] = values
			}
			got := a.last()
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Error(diff)
			}
			if got.Method != "GET" || got.URL.String() != "/may?by=rejoin" || got.ContentLength != 0 {
				t.Errorf("%s %s with %d bytes", got.Method, got.URL, got.ContentLength)
			}
		})
	}
	for _, body := range a.bodies {
		// What is published may be secret, and of any size.
		if body != "" {
			t.Errorf("a question has the body %q", body)
		}
	}
	if _, err := ask(t, f, visit("GET", "/v1/feeds"), auth.Admin); err != nil || a.last().Header["Rejoin-Feeds"] != nil {
		t.Errorf("a question about no feed: %v %v", err, a.last().Header)
	}
}

// TestForwardCredentials: credentials that cannot be sent as they are, or that are
// ambiguous, are refused without a question.
func TestForwardCredentials(t *testing.T) {
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url})
	long := strings.Repeat("x", 33<<10)
	for _, test := range []struct {
		name string
		r    *http.Request
	}{
		{"several Authorization", visit("GET", "/", "Authorization", "Bearer a", "Authorization", "Bearer b")},
		{"several tokens", visit("GET", "/?access_token=a&access_token=b")},
		// A line break would begin a header that the client has made up.
		{"a line break in the token", visit("GET", "/?access_token=a%0D%0ARejoin-Feeds:%20other")},
		{"a line break in a cookie", visit("GET", "/", "Cookie", "a=1\r\nRejoin-Action: admin")},
		{"NUL", visit("GET", "/?access_token=a%00")},
		{"long cookies", visit("GET", "/", "Cookie", long)},
		{"a long token", visit("GET", "/?access_token="+long)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ask(t, f, test.r, auth.Subscribe, "chat"); !errors.Is(err, auth.ErrBadToken) || strings.Contains(err.Error(), "Rejoin-") {
				t.Errorf("the error is %v", err)
			}
		})
	}
	// The same through the name of a feed, which a batch has in its body.
	for _, name := range []string{"chat,secret", "chat\r\nRejoin-Action: admin", "", "chat\n", "..", "chat secret", "*", "chat:*"} {
		if _, err := ask(t, f, visit("POST", "/v1/events"), auth.Publish, "ok", name); err == nil {
			t.Errorf("the feed %q is asked about", name)
		}
	}
	if n := a.count(); n != 0 {
		t.Errorf("there are %d questions", n)
	}
}

// TestForwardAnswers: what each answer of the application means.
func TestForwardAnswers(t *testing.T) {
	redirected := newAuthority(t, nil)
	status := func(code int, lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(lines); i += 2 {
				w.Header().Add(lines[i], lines[i+1])
			}
			w.Header().Set("Set-Cookie", "session=stolen")
			w.WriteHeader(code)
		}
	}
	body := func(contentType, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, text)
		}
	}
	json := func(text string) http.HandlerFunc { return body("application/json; charset=utf-8", text) }
	for _, test := range []struct {
		name       string
		answer     http.HandlerFunc
		want       error
		challenges []string
	}{
		{"200", status(200), nil, nil},
		{"202", status(202), nil, nil},
		{"204", status(204), nil, nil},
		{"text", body("text/html", "yes"), nil, nil},
		{"a megabyte of text", body("text/html", strings.Repeat("x", 1<<20)), nil, nil},
		{"JSON that says nothing", json(`{"ok":true}`), nil, nil},
		{"JSON that is no object", json(`["ok"]`), nil, nil},
		{"no JSON, though it is announced", json(""), nil, nil},
		{"patterns that cover it", json(`{"sub":"7","exp":32503680000,"rejoin":{"subscribe":["ch*"]}}`), nil, nil},
		{"patterns without an end", json(`{"rejoin":{"subscribe":["chat","news"]}}`), nil, nil},

		{"401", status(401, "WWW-Authenticate", `Basic realm="a"`, "WWW-Authenticate", "Negotiate"), auth.ErrBadToken, []string{`Basic realm="a"`, "Negotiate"}},
		{"401 without a challenge", status(401), auth.ErrBadToken, nil},
		{"a challenge that is too long", status(401, "WWW-Authenticate", strings.Repeat("x", 5000)), auth.ErrBadToken, nil},
		{"403", status(403), auth.ErrRefused, nil},
		{"a login page", status(302, "Location", redirected.url), auth.ErrBadToken, nil},
		{"another redirect", status(307, "Location", redirected.url), auth.ErrBadToken, nil},
		{"patterns that cover nothing", json(`{"rejoin":{}}`), auth.ErrRefused, nil},
		{"null for patterns", json(`{"rejoin":null}`), auth.ErrRefused, nil},
		{"patterns for something else", json(`{"rejoin":{"subscribe":["news"],"publish":["*"],"admin":true}}`), auth.ErrRefused, nil},
		{"its time is up", json(`{"exp":1,"rejoin":{"subscribe":["*"]}}`), auth.ErrBadToken, nil},

		{"500", status(500), auth.ErrUnavailable, nil},
		{"404", status(404), auth.ErrUnavailable, nil},
		{"429", status(429), auth.ErrUnavailable, nil},
		{"304", status(304), auth.ErrUnavailable, nil},
		{"broken JSON", json(`{"rejoin":{"subscribe":["*"]}`), auth.ErrUnavailable, nil},
		{"two values", json(`{"rejoin":{"subscribe":["*"]}} {}`), auth.ErrUnavailable, nil},
		{"no JSON", json("yes"), auth.ErrUnavailable, nil},
		{"a malformed pattern", json(`{"rejoin":{"subscribe":["a*b"]}}`), auth.ErrUnavailable, nil},
		{"a word for patterns", json(`{"rejoin":{"subscribe":"*"}}`), auth.ErrUnavailable, nil},
		{"a list for rights", json(`{"rejoin":["*"]}`), auth.ErrUnavailable, nil},
		{"a word for a time", json(`{"exp":"never","rejoin":{"subscribe":["*"]}}`), auth.ErrUnavailable, nil},
		{"a time in milliseconds", json(`{"exp":1767225600000,"rejoin":{"subscribe":["*"]}}`), auth.ErrUnavailable, nil},
		{"a megabyte of JSON", json(`{"rejoin":{"subscribe":["*"]},"x":"` + strings.Repeat("x", 1<<20) + `"}`), auth.ErrUnavailable, nil},
		{"a megabyte of a head", status(200, "X", strings.Repeat("x", 1<<20)), auth.ErrUnavailable, nil},
		{"a connection that breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, auth.ErrUnavailable, nil},
		{"JSON that breaks off", func(w http.ResponseWriter, r *http.Request) {
			json(`{}`)(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, auth.ErrUnavailable, nil},
		{"nothing at all", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, auth.ErrUnavailable, nil},
		{"JSON without an end", func(w http.ResponseWriter, r *http.Request) {
			json(`{"rejoin"`)(w, r)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, auth.ErrUnavailable, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t, test.answer)
			timeout := time.Minute
			if test.want == auth.ErrUnavailable {
				timeout = 2 * time.Second // some do not answer at all
			}
			f := openForward(t, auth.ForwardOptions{URL: a.url, Timeout: timeout})
			grant, err := ask(t, f, visit("GET", "/"), auth.Subscribe, "chat")
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("the error is %v, want %v", err, test.want)
			}
			if grant.MaySubscribe("chat") != (test.want == nil) || grant.Admin() {
				t.Errorf("the grant is %+v", grant)
			}
			refusal, _ := errors.AsType[*auth.Refusal](err)
			if (refusal != nil) != (test.want == auth.ErrBadToken || test.want == auth.ErrRefused) || refusal != nil && !slices.Equal(refusal.Challenges, test.challenges) {
				t.Errorf("the refusal is %+v", refusal)
			}
		})
	}
	t.Cleanup(func() {
		if n := redirected.count(); n != 0 {
			t.Errorf("%d redirects were followed", n)
		}
	})
}

// TestForwardScope: an answer allows just what was asked, or what its patterns cover.
func TestForwardScope(t *testing.T) {
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url})
	rights := func(g auth.Grant) (all string) {
		for name, may := range map[string]bool{
			"subscribe chat": g.MaySubscribe("chat"), "subscribe chats": g.MaySubscribe("chats"), "publish chat": g.MayPublish("chat"),
			"close chat": g.MayClose("chat"), "admin": g.Admin(),
		} {
			if may {
				all += name + "; "
			}
		}
		return all
	}
	for action, want := range map[auth.Action]string{
		auth.Subscribe: "subscribe chat; ", auth.Close: "close chat; ", auth.Admin: "admin; ",
	} {
		if g, err := ask(t, f, visit("GET", "/"), action, "chat"); err != nil || rights(g) != want {
			t.Errorf("%s: %s %v", action, rights(g), err)
		}
	}
	if g, err := ask(t, f, visit("GET", "/"), auth.Publish, "chat"); err != nil || !g.MayPublish("chat") || !g.MayClose("chat") || g.MaySubscribe("chat") || g.Admin() {
		t.Errorf("publish: %s %v", rights(g), err)
	}
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"sub":"7","rejoin":{"subscribe":["chat*"],"publish":["chat"]}}`)
	})
	if g, err := ask(t, f, visit("GET", "/", "Cookie", "a=1"), auth.Subscribe, "chat"); err != nil || !g.MaySubscribe("chats") || !g.MayPublish("chat") || g.Admin() || g.Subject() != "7" {
		t.Errorf("patterns: %s %v", rights(g), err)
	}
	if _, err := ask(t, f, visit("GET", "/", "Cookie", "a=1"), auth.Publish, "chat", "news"); !errors.Is(err, auth.ErrRefused) {
		t.Errorf("patterns that cover one of two feeds: %v", err)
	}
}

// TestForwardManyFeeds: long lists become several questions, all of which must be
// allowed.
func TestForwardManyFeeds(t *testing.T) {
	a := newAuthority(t, func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Get("Rejoin-Feeds")) > 4000 {
			w.WriteHeader(500)
		} else if strings.Contains(r.Header.Get("Rejoin-Feeds"), "secret") {
			w.WriteHeader(403)
		}
	})
	f := openForward(t, auth.ForwardOptions{URL: a.url})
	var feeds []string
	for i := range 100 {
		feeds = append(feeds, fmt.Sprintf("feed-%03d-%s", i, strings.Repeat("x", 200)))
	}
	g, err := ask(t, f, visit("GET", "/"), auth.Subscribe, feeds...)
	if err != nil || a.count() != 6 {
		t.Fatalf("%d questions, %v", a.count(), err)
	}
	for _, name := range feeds {
		if !g.MaySubscribe(name) {
			t.Errorf("no right for %.10s", name)
		}
	}
	if _, err := ask(t, f, visit("GET", "/"), auth.Subscribe, append(feeds, "secret")...); !errors.Is(err, auth.ErrRefused) {
		t.Errorf("with one that is refused: %v", err)
	}
}

// TestForwardPlaces: the application listens on a Unix socket, or with a certificate of
// its own authority.
func TestForwardPlaces(t *testing.T) {
	a := newAuthority(t, nil)
	socket := filepath.Join(t.TempDir(), "app.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unix := &http.Server{Handler: a}
	go func() { _ = unix.Serve(listener) }()
	t.Cleanup(func() { unix.Close() })
	secure := httptest.NewTLSServer(a)
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]auth.ForwardOptions{
		"a socket": {URL: "unix:" + socket + ":/may"},
		"TLS":      {URL: secure.URL + "/may", CAFile: ca},
	} {
		if _, err := ask(t, openForward(t, o), visit("GET", "/"), auth.Subscribe, "chat"); err != nil || a.last().URL.Path != "/may" {
			t.Errorf("%s: %v", name, err)
		}
		if answer, err := auth.CheckForward(t.Context(), o); err != nil || answer != "allowed" {
			t.Errorf("check %s: %s %v", name, answer, err)
		}
	}
	// A certificate of an unknown authority may be an attacker's.
	if _, err := ask(t, openForward(t, auth.ForwardOptions{URL: secure.URL}), visit("GET", "/"), auth.Subscribe, "chat"); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("an unknown certificate: %v", err)
	}
	for want, o := range map[string]auth.ForwardOptions{
		"ca_file: ":              {URL: secure.URL, CAFile: filepath.Join(t.TempDir(), "none")},
		"ca_file: " + socket:     {URL: secure.URL, CAFile: socket},
		"url: the address to ":   {},
		"url: it is not an addr": {URL: "app:3000"},
	} {
		if _, err := auth.OpenForward(o); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSuffix(want, socket)) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestForwardLog: the log has one line when the application stops answering, one when it
// answers again, and no credentials.
func TestForwardLog(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := newAuthority(t, nil)
	f := openForward(t, auth.ForwardOptions{URL: a.url, Logger: logger})
	try := func() error {
		_, err := ask(t, f, visit("GET", "/?access_token=hush-token", "Cookie", "session=hush-cookie"), auth.Subscribe, "chat")
		return err
	}
	for _, status := range []int{200, 500, 500, 500, 200, 200} {
		a.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		if err := try(); err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("the error has credentials: %v", err)
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "does not answer") || !strings.Contains(lines[0], "the answer is 500") || !strings.Contains(lines[1], "answers again") || strings.Contains(log.String(), "hush") {
		t.Errorf("the log is\n%s", log.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

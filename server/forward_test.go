package server_test

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// application decides who may do what.
type application struct {
	url string

	mu     sync.Mutex
	asked  []string // "action feeds cookie"
	answer http.HandlerFunc
}

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, strings.TrimSpace(r.Header.Get("Rejoin-Action")+" "+r.Header.Get("Rejoin-Feeds")+" "+r.Header.Get("Cookie")))
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}

// set changes the answer from now on; nil allows.
func (a *application) set(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *application) status(code int) {
	a.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

// take returns the questions since the last call.
func (a *application) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

// asking starts a node that asks an application.
func asking(t *testing.T, o auth.ForwardOptions, more server.Options) (*node, *application) {
	t.Helper()
	a := &application{}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.url, o.URL = s.URL, s.URL
	o.Timeout = cmp.Or(o.Timeout, 5*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := auth.OpenForward(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	more.Auth = f
	return start(t, more, nil), a
}

// put publishes without asking anybody.
func (n *node) put(feedName, data string) {
	n.t.Helper()
	if _, err := n.publisher.Publish(n.t.Context(), feed.Draft{Feed: feedName, Data: data}); err != nil {
		n.t.Fatal(err)
	}
}

// TestForwardRoutes: every route asks for its action and its feeds, and passes on what the
// application refuses.
func TestForwardRoutes(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{}, server.Options{})
	n.put("chat", "x")
	page, lines := map[string]string{"Accept": "application/json"}, map[string]string{"Content-Type": "application/x-ndjson"}
	for _, test := range []struct {
		method, path string
		header       map[string]string
		body         string
		asks         string
		status       int
	}{
		{"GET", events, nil, "", "subscribe chat", 200},
		{"HEAD", events, nil, "", "subscribe chat", 200},
		{"GET", events, page, "", "subscribe chat", 200},
		{"GET", events + "?wait=10ms&after=1", page, "", "subscribe chat", 200},
		{"GET", "/v1/feeds/chat/stream", nil, "", "subscribe chat", 200},
		{"GET", "/v1/feeds/chat/events/1", nil, "", "subscribe chat", 200},
		{"GET", "/v1/feeds/chat", nil, "", "subscribe chat", 200},
		{"GET", "/v1/events?feed=chat,news&feed=chat", nil, "", "subscribe chat,news", 200},
		{"GET", "/v1/feeds", nil, "", "admin", 200},
		{"POST", events, nil, "x", "publish chat", 201},
		{"POST", events + "?ephemeral=true", nil, "x", "publish chat", 202},
		{"POST", events, map[string]string{"Content-Type": "text/event-stream"}, "data: x\n\n", "publish chat", 201},
		{"POST", events, lines, `{"data":1}`, "publish chat", 201},
		{"POST", "/v1/events", lines, `{"feed":"b","data":1}` + "\n" + `{"feed":"a","data":1}` + "\n" + `{"feed":"b","data":1}`, "publish b,a", 201},
		{"POST", "/v1/feeds/done/events?close=true", nil, "x", "publish done", 201},
		{"POST", "/v1/feeds/done/close", nil, "", "close done", 204},
		{"DELETE", events + "?before=1", nil, "", "admin chat", 204},
		{"DELETE", "/v1/feeds/b", nil, "", "admin b", 204},
		{"GET", "/healthz", nil, "", "", 200},
		{"GET", "/openapi.yaml", nil, "", "", 200},
		{"GET", "/v1/feeds/.a/events", nil, "", "", 400},
		{"POST", "/v1/feeds/.a/events", nil, "x", "", 400},
		{"DELETE", "/v1/feeds/.a", nil, "", "", 400},
		{"GET", "/v1/events?feed=.a", nil, "", "", 400},
		{"POST", "/v1/events", lines, `{"feed":"a,secret","data":1}`, "", 400},
		{"POST", "/v1/events", lines, `{"feed":"a\r\nRejoin-Action: admin","data":1}`, "", 400},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			a.set(nil)
			a.take()
			r, body := n.head(test.method, test.path, test.header, test.body)
			asked := slices.Compact(a.take()) // a page that waits asks twice
			if want := slices.DeleteFunc([]string{test.asks}, func(s string) bool { return s == "" }); r.StatusCode != test.status || !slices.Equal(asked, want) {
				t.Errorf("%s %s after the questions %q", r.Status, body, asked)
			}
			if test.asks == "" {
				return
			}
			for code, want := range map[int]int{401: 401, 403: 403, 302: 401, 500: 503} {
				a.set(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("WWW-Authenticate", "Own")
					w.Header().Set("Set-Cookie", "session=x")
					w.Header().Set("X-Own", "x")
					w.WriteHeader(code)
					_, _ = io.WriteString(w, "a page of the application")
				})
				r, body := n.head(test.method, test.path, test.header, test.body)
				challenge := map[int]string{401: "Own", 403: "Own", 302: "Bearer"}[code]
				if r.StatusCode != want || r.Header.Get("WWW-Authenticate") != challenge || r.Header["Set-Cookie"] != nil || r.Header["X-Own"] != nil ||
					strings.Contains(body, "a page of") || (r.Header.Get("Retry-After") != "") != (want == 503) {
					t.Errorf("after %d: %s %v %s", code, r.Status, r.Header, body)
				}
				if want == 503 && test.method == "POST" && !strings.Contains(body, `"stored":"no"`) {
					t.Errorf("after %d: %s", code, body)
				}
			}
		})
	}
}

// TestForwardSharesAQuestion: clients that begin elsewhere have the same question, and so
// share an answer.
func TestForwardSharesAQuestion(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{Cache: time.Hour}, server.Options{})
	for _, query := range []string{"", "?lastEventId=0", "?from=start", "?access_token=", "?from=-3&last_event_id=0", "?startIndex=0", "?lastEventID="} {
		n.follow(events+query, map[string]string{"Cookie": "a=1", "Last-Event-ID": "0"}).block()
	}
	if asked := a.take(); len(asked) != 1 {
		t.Errorf("it asks %q", asked)
	}
	for _, query := range []string{"?types=a", "?access_token=x"} {
		n.follow(events+query, map[string]string{"Cookie": "a=1"}).block()
	}
	if asked := a.take(); len(asked) != 2 {
		t.Errorf("about other streams and visitors, it asks %q", asked)
	}
}

// TestForwardHolds: while the application does not answer, an event stream is accepted,
// kept alive and asked about again. What it missed until it is allowed, it gets then.
func TestForwardHolds(t *testing.T) {
	t.Parallel()
	n, a := asking(t, auth.ForwardOptions{}, server.Options{Heartbeat: 300 * time.Millisecond})
	a.status(500)
	sse := map[string]string{"Accept": "text/event-stream", "Cookie": "a=1"}
	allowed, refused := n.follow(events, sse), n.follow("/v1/events?feed=chat,news", sse)
	bare := n.follow("/v1/feeds/chat/stream", sse)
	for _, f := range []*follower{allowed, refused, bare} {
		if line, err := f.r.ReadString('\n'); line != ":\n" {
			t.Fatalf("it begins with %q, %v", line, err)
		}
	}
	n.put("chat", "while it was held")
	if r, _ := n.head("GET", events, map[string]string{"Accept": "application/x-ndjson"}, ""); r.StatusCode != 503 {
		t.Errorf("lines: %s", r.Status)
	}
	// A stream whose head counts the events must not tell anybody how many there are.
	if r, _ := n.head("GET", "/v1/feeds/chat/stream?startIndex=-1", sse, ""); r.StatusCode != 200 || r.Header.Get("X-Workflow-Stream-Tail-Index") != "" {
		t.Errorf("a tail: %s %v", r.Status, r.Header)
	}
	a.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Rejoin-Feeds") != "chat" {
			w.WriteHeader(403)
		}
	})
	allowed.want(open("chat", 0, 1, 1), event(1, "while it was held"))
	bare.want("retry\nid: 0\n", event(1, "while it was held"))
	revoked := control("feed.expired", `{"reason":"revoked"}`, "")
	refused.want(revoked)
	if rest, err := io.ReadAll(refused.r); err != nil || len(rest) > 0 {
		t.Errorf("it goes on with %q, %v", rest, err)
	}
	if r, _ := n.do("GET", "/v1/events?feed=chat,news", sse, ""); r.StatusCode != 403 {
		t.Errorf("its return: %s", r.Status)
	}
}

// TestForwardHeldStreamDrains: a held stream ends with its node.
func TestForwardHeldStreamDrains(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{}, server.Options{})
	a.status(500)
	f := n.follow(events, map[string]string{"Accept": "text/event-stream"})
	n.Drain(t.Context(), 0)
	if rest, err := io.ReadAll(f.r); err == nil || len(rest) > 0 {
		t.Errorf("it ends with %q, %v", rest, err)
	}
}

// TestForwardOrigin: with a cookie, a page of another origin changes nothing, and the
// application is not even asked. Otherwise every site could act for its visitors.
func TestForwardOrigin(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{}, server.Options{Origins: []string{"https://app.example"}})
	lines := `{"feed":"chat","data":1}`
	for _, test := range []struct {
		name    string
		header  []string
		allowed bool
	}{
		{"this origin", []string{"Cookie", "a=1", "Sec-Fetch-Site", "same-origin"}, true},
		{"an origin that is listed", []string{"Cookie", "a=1", "Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, true},
		{"no browser", []string{"Cookie", "a=1"}, true},
		{"another origin with a token alone", []string{"Authorization", "Bearer x", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, true},
		{"another origin", []string{"Cookie", "a=1", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, false},
		{"a sibling", []string{"Cookie", "a=1", "Origin", "https://www.app.example", "Sec-Fetch-Site", "same-site"}, false},
		{"an old browser", []string{"Cookie", "a=1", "Origin", "https://evil.example"}, false},
		{"an opaque origin", []string{"Cookie", "a=1", "Origin", "null"}, false},
		// The token may be anything: the application may look at the cookie alone.
		{"a cookie beside a token", []string{"Cookie", "a=1", "Authorization", "Bearer x", "Sec-Fetch-Site", "cross-site"}, false},
		{"an empty cookie", []string{"Cookie", "", "Sec-Fetch-Site", "cross-site"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, request := range [][3]string{
				{"POST", events, "x"}, {"POST", "/v1/events", lines}, {"POST", "/v1/feeds/chat-2/close"},
				{"DELETE", events + "?before=1"}, {"DELETE", "/v1/feeds/chat"},
			} {
				header := map[string]string{"Content-Type": "application/x-ndjson"}
				if request[2] == "x" {
					header["Content-Type"] = "text/plain"
				}
				for i := 0; i < len(test.header); i += 2 {
					header[test.header[i]] = test.header[i+1]
				}
				a.take()
				r, body := n.do(request[0], request[1], header, request[2])
				if asked := len(a.take()) > 0; (r.StatusCode < 300) != test.allowed || !test.allowed && r.StatusCode != 403 || asked != test.allowed {
					t.Errorf("%s %s: %s %s, asked: %v", request[0], request[1], r.Status, body, asked)
				}
			}
			header := map[string]string{"Accept": "text/event-stream"}
			for i := 0; i < len(test.header); i += 2 {
				header[test.header[i]] = test.header[i+1]
			}
			if r, _ := n.head("GET", events, header, ""); r.StatusCode != 200 {
				t.Errorf("reading: %s", r.Status) // CORS keeps the answer from the page
			}
		})
	}
}

// TestForwardProxies: what a client claims about itself reaches the application only from
// a trusted proxy.
func TestForwardProxies(t *testing.T) {
	trusted, err := server.ParseProxies([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]string{
		"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example",
		"X-Forwarded-Uri": "/elsewhere", "X-Forwarded-Method": "PATCH", "Rejoin-Action": "admin", "Rejoin-Feeds": "other",
	}
	for _, test := range []struct {
		name    string
		proxies server.Proxies
		want    func(n *node) string
	}{
		{"anybody", nil, func(n *node) string { return "127.0.0.1 http " + strings.TrimPrefix(n.url, "http://") }},
		{"a proxy", trusted, func(*node) string { return "203.0.113.9 https app.example" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, a := asking(t, auth.ForwardOptions{}, server.Options{TrustedProxies: test.proxies})
			got := ""
			a.set(func(_ http.ResponseWriter, r *http.Request) {
				h := r.Header
				got = fmt.Sprintln(h.Get("X-Forwarded-For"), h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Host"),
					h["X-Forwarded-Method"], h["X-Forwarded-Uri"], h["Rejoin-Action"], h["Rejoin-Feeds"])
			})
			n.head("GET", events+"?types=a&lastEventId=0&access%5Ftoken=hush&from=start&x=%0A&;access_token=hush", claims, "")
			if want := fmt.Sprintln(test.want(n), "[GET] ["+events+"?types=a&x=%0A] [subscribe] [chat]"); got != want {
				t.Errorf("it asks\n%swant\n%s", got, want)
			}
		})
	}
}

// TestForwardVerdictIsForOneAction: that somebody may read does not let them write, whether
// the answer is kept or has patterns.
func TestForwardVerdictIsForOneAction(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{Cache: time.Hour}, server.Options{})
	a.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Rejoin-Action") != "subscribe" {
			w.WriteHeader(403)
		}
	})
	cookie := map[string]string{"Cookie": "a=1"}
	n.follow(events, cookie).block()
	patterns := map[string]string{"Cookie": "patterns=1"}
	for _, request := range [][2]string{{"POST", events}, {"POST", "/v1/feeds/chat/close"}, {"DELETE", "/v1/feeds/chat"}, {"GET", "/v1/feeds"}} {
		if r, _ := n.do(request[0], request[1], cookie, "x"); r.StatusCode != 403 {
			t.Errorf("%s: %s", request, r.Status)
		}
	}
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"rejoin":{"subscribe":["chat"],"close":["chat"]}}`)
	})
	for request, status := range map[[2]string]int{
		{"GET", "/v1/feeds/chat/events"}: 200, {"GET", "/v1/events?feed=chat,news"}: 403, {"POST", events}: 403,
		{"DELETE", "/v1/feeds/chat"}: 403, {"POST", "/v1/feeds/chat/close"}: 204,
	} {
		if r, _ := n.head(request[0], request[1], patterns, "x"); r.StatusCode != status {
			t.Errorf("with patterns, %s: %s", request, r.Status)
		}
	}
}

// TestForwardMetrics: questions are counted by their answers.
func TestForwardMetrics(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{Cache: time.Hour}, server.Options{})
	for _, code := range []int{200, 401, 403, 302, 500} {
		a.status(code)
		for range 2 {
			n.head("POST", events, map[string]string{"Cookie": fmt.Sprint("code=", code)}, "x")
		}
	}
	n.wantMetrics(t, []string{
		`rejoin_auth_questions_total{verdict="allowed"} 1`,
		`rejoin_auth_questions_total{verdict="unauthorized"} 2`,
		`rejoin_auth_questions_total{verdict="forbidden"} 1`,
		`rejoin_auth_questions_total{verdict="unanswered"} 2`,
		`rejoin_auth_cache_hits_total 4`,
		`rejoin_auth_question_seconds_count 6`,
	})
}

// TestForwardHidesCredentials: whatever the application answers, credentials are in no
// log, metric or answer, from which others could read and use them.
func TestForwardHidesCredentials(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n, a := asking(t, auth.ForwardOptions{Timeout: 300 * time.Millisecond, Logger: logger}, server.Options{Logger: logger})
	seen := ""
	for _, header := range []map[string]string{
		{"Cookie": "session=hush"}, {"Authorization": "Bearer hush"}, {"Authorization": "Basic hush", "Cookie": "hush=hush"},
	} {
		for name, answer := range map[string]http.HandlerFunc{
			"yes": nil, "401": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
			"403": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
			"echo": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Echo", fmt.Sprint(r.Header))
				w.WriteHeader(500)
				fmt.Fprint(w, r.Header)
			},
			"echo in JSON": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"rejoin":{"subscribe":%q}`, r.Header)
			},
			"echo in a redirect": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/hush")
				w.WriteHeader(302)
			},
			"broken": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"hangs":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		} {
			a.set(answer)
			for _, request := range [][2]string{{"POST", events}, {"POST", events + "?access_token=hush"}, {"GET", events + "?access_token=hush&types=%zz"}, {"DELETE", "/v1/feeds/chat?access_token=a&access_token=hush"}} {
				if name == "hangs" && request[0] != "POST" {
					continue
				}
				r, body := n.head(request[0], request[1], header, "x")
				seen += fmt.Sprint(r.Header, body)
			}
		}
	}
	a.status(500)
	f := n.follow(events+"?access_token=hush", map[string]string{"Accept": "text/event-stream", "Cookie": "hush"}) // held
	a.set(nil)
	seen += f.block()
	f.close()
	n.wantMetrics(t, []string{`rejoin_subscribers 0`})
	metrics := httptest.NewRecorder()
	server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Server: n.Server}).ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
	seen += metrics.Body.String() + log.String()
	if i := strings.Index(seen, "hush"); i >= 0 {
		t.Errorf("it is in %.300q", seen[max(0, i-200):])
	}
	if !strings.Contains(log.String(), "does not answer") {
		t.Errorf("the log is %.500q", log.String())
	}
}

package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// logbook keeps what a node logs, at every level.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// lines returns the lines with this message.
func (l *logbook) lines(t *testing.T, message string) (found []logLine) {
	t.Helper()
	for text := range strings.Lines(l.String()) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line.Message == message {
			found = append(found, line)
		}
	}
	return found
}

type logLine struct {
	Level     string
	Message   string `json:"msg"`
	Reason    string
	Status    int
	Error     string
	Method    string
	Path      string
	Feed      string
	Subject   string
	Address   string
	RequestID string `json:"request_id"`
	Bytes     int64
	Duration  int64
	More      int
	Before    int
}

// refusalOf returns the line about a refused request.
func (l *logbook) refusalOf(t *testing.T, id string) logLine {
	t.Helper()
	for _, message := range []string{"request refused", "request failed"} {
		for _, line := range l.lines(t, message) {
			if line.RequestID == id {
				return line
			}
		}
	}
	t.Errorf("the log has no refusal with the id %s", id)
	return logLine{}
}

// refusals is a test of what is counted and logged.
type refusals struct {
	t    *testing.T
	book *logbook
	seen map[string]bool
}

// expect demands that the answer was a refusal, and that it was counted and logged.
func (f *refusals) expect(n *node, before map[string]uint64, r *http.Response, wantFeed string) {
	f.t.Helper()
	id := r.Header.Get("X-Request-Id")
	line := f.book.refusalOf(f.t, id)
	if id == "" || line.Reason == "" || line.Address == "" || line.Feed != wantFeed || line.Method == "" || line.Path == "" {
		f.t.Errorf("%s: the line of %q, for the feed %q, is %+v", r.Status, id, wantFeed, line)
		return
	}
	f.seen[line.Reason] = true
	if n.Refused(line.Reason) != before[line.Reason]+1 {
		f.t.Errorf("%s is not counted", line.Reason)
	}
}

func countsOf(n *node) map[string]uint64 {
	counts := map[string]uint64{}
	for _, reason := range n.RefusalReasons() {
		counts[reason] = n.Refused(reason)
	}
	return counts
}

// TestEveryRefusalIsLogged: whatever refusal a client meets, an operator finds it in a
// metric and, by the id of its answer, in the log.
func TestEveryRefusalIsLogged(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	f := &refusals{t, &logbook{}, map[string]bool{}}
	nodes := openAPINodesWith(t, f.book.logger())
	for _, n := range nodes {
		n.LogEach()
	}
	byID := map[string]operation{}
	for _, op := range d.operations(t) {
		byID[op.id] = op
	}
	for _, c := range withVariants(t, d.operations(t), openAPICalls) {
		shed := c.on == "full" && c.status == http.StatusOK && !strings.HasSuffix(c.operation, "Head")
		refused := shed || c.status >= 400 && !strings.HasPrefix(c.operation, "readyz")
		if !refused && !strings.HasPrefix(c.operation, "publish") { // some publishes prepare others
			continue
		}
		n := nodes[c.on]
		before := countsOf(n)
		if r, _ := d.send(t, byID[c.operation], c, n); refused {
			f.expect(n, before, r, feedIn(c))
		}
	}
	f.withoutStore(nodes)
	f.beforeRoutes()
	for _, reason := range nodes[""].RefusalReasons() {
		if !f.seen[reason] {
			t.Errorf("no test provokes a refusal for the reason %s", reason)
		}
	}
}

// feedIn returns the feed that a call is about, as the log has it.
func feedIn(c call) string {
	path, query, _ := strings.Cut(c.path, "?")
	if rest, ok := strings.CutPrefix(path, "/v1/feeds/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		if feed.CheckName(name) == nil {
			return name
		}
		return ""
	}
	switch {
	case strings.HasPrefix(c.operation, "publishMany") && c.token == "powerless":
		return "m"
	case c.on == "crowded", c.on == "full", c.on == "failing", c.on == "away", c.status == http.StatusGone:
		if !strings.HasPrefix(c.operation, "subscribeMany") {
			return ""
		}
		names := strings.ReplaceAll(query, "&feed=", ",")
		names, _, _ = strings.Cut(strings.TrimPrefix(names, "feed="), "&")
		return names
	case c.token == "powerless" && strings.HasPrefix(c.operation, "subscribeMany"):
		return "chat"
	}
	return ""
}

// withoutStore provokes what takes a store with a fault, and refusals beside the table
// of errors.
func (f *refusals) withoutStore(nodes map[string]*node) {
	t := f.t
	for _, err := range []error{feed.ErrBusy, feed.ErrOverloaded, context.Canceled, server.ErrNoMemory} {
		n := startOn(t, feedtest.NewStore().Through(func(context.Context, feedtest.Call) error { return err }), server.Options{Logger: f.book.logger()})
		n.LogEach()
		before := countsOf(n)
		r, body := n.do("GET", events+"/1", nil, "")
		if r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v: %s %s", err, r.Status, body)
		}
		f.expect(n, before, r, "chat")
	}
	console := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "none", http.StatusNotFound) })
	options := server.Options{Logger: f.book.logger(), Origins: []string{"https://a.example"}}
	open := start(t, options, nil)
	options.Console = console
	consoled := start(t, options, nil)
	for _, c := range []struct {
		n                  *node
		method, path, feed string
		header             map[string]string
		status             int
	}{
		{open, "GET", "/nowhere", "", nil, 404},
		{consoled, "GET", "/nowhere", "", nil, 404},
		{open, "PUT", events, "", nil, 405},
		{open, "OPTIONS", events, "", nil, 405},
		{open, "POST", events, "chat", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://b.example"}, 403},
		{open, "OPTIONS", events, "", map[string]string{"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}, 200},
	} {
		c.n.LogEach()
		before := countsOf(c.n)
		r, body := c.n.do(c.method, c.path, c.header, "")
		if r.StatusCode != c.status {
			t.Errorf("%s %s: %s %s", c.method, c.path, r.Status, body)
		}
		f.expect(c.n, before, r, c.feed)
	}
}

// beforeRoutes provokes the refusals of handlers in front of a node.
func (f *refusals) beforeRoutes() {
	t := f.t
	shared := start(t, server.Options{Logger: f.book.logger()}, nil)
	shared.LogEach()
	refused := shared.Refusals()
	waiting := server.Waiting(server.Options{Refusals: refused, Console: http.NotFoundHandler()})
	for _, c := range []struct {
		handler      http.Handler
		method, path string
		status       int
	}{
		{server.OnlyHosts([]string{"rejoin.example"}, refused, shared), "GET", events, 421},
		{waiting, "GET", events, 503},
		{waiting, "POST", events, 503},
		{waiting, "GET", "/none", 404},
		{server.Waiting(server.Options{Origins: []string{"https://a.example"}, Refusals: refused}), "OPTIONS", events, 200},
	} {
		before := countsOf(shared)
		r := httptest.NewRequest(c.method, "http://evil.example"+c.path, nil)
		r.Header.Set("Origin", "https://b.example")
		r.Header.Set("Access-Control-Request-Method", "POST")
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
		f.expect(shared, before, w.Result(), "")
	}
}

// TestRefusalsAreNoFlood: however many requests are refused for one reason, the log has
// the first, and how many there were.
func TestRefusalsAreNoFlood(t *testing.T) {
	t.Parallel()
	var book logbook
	n := start(t, server.Options{Logger: book.logger()}, nil)
	for range 100 {
		n.do("GET", "/v1/feeds/none/events/1", nil, "")
		n.do("GET", "/v1/feeds/none/events/x", nil, "")
	}
	if lines := book.lines(t, "request refused"); len(lines) != 2 || lines[0].Reason != "not_found" || lines[1].Reason != "invalid" {
		t.Errorf("the lines are %+v", lines)
	}
	n.Close()
	rest := map[string]int{}
	for _, line := range book.lines(t, "more requests refused") {
		rest[line.Reason] = line.More
	}
	if len(rest) != 2 || rest["not_found"] != 99 || rest["invalid"] != 99 {
		t.Errorf("the rest is %v", rest)
	}
}

// TestRefusalLevels: faults of the server stand out, and what is part of the contract
// does not.
func TestRefusalLevels(t *testing.T) {
	t.Parallel()
	var book logbook
	failing := startOn(t, feedtest.NewStore().Through(func(context.Context, feedtest.Call) error { return errors.New("the disk burns") }), server.Options{Logger: book.logger()})
	full := start(t, server.Options{Logger: book.logger(), Subscribers: 1}, nil)
	closedTo := guarded(t, auth.Options{Key: secret}, server.Options{Logger: book.logger()})
	for _, n := range []*node{failing, full, closedTo} {
		n.LogEach()
	}
	full.follow(events, nil).block()
	lines := map[string]string{"Accept": "application/x-ndjson"}
	for _, c := range []struct {
		n     *node
		path  string
		level string
		error string
	}{
		{failing, events + "/1", "ERROR", "the disk burns"},
		{full, events, "WARN", "this node has reached its limit of subscribers"},
		{closedTo, events, "INFO", "a token is needed"},
		{full, events + "/x", "DEBUG", ""},
	} {
		r, _ := c.n.do("GET", c.path, lines, "")
		if line := book.refusalOf(t, r.Header.Get("X-Request-Id")); line.Level != c.level || line.Error != c.error {
			t.Errorf("%s: %+v", r.Status, line)
		}
	}
}

// TestNoRefusalIsSilent: whoever writes a refusal also counts and logs it.
func TestNoRefusalIsSilent(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	writers := []string{"writeProblem", "unauthorized", "answerRetryLater", "answerRetryAfter", "write"}
	checked := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || slices.Contains(writers, f.Name.Name) {
				continue
			}
			writes, refuses := false, false
			ast.Inspect(f.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch name := calledName(call); {
				case name == "refuse":
					refuses = true
				case slices.Contains(writers, name) && mentions(call, "problem", name):
					writes = true
				}
				return true
			})
			if writes {
				checked++
			}
			if writes && !refuses {
				t.Errorf("%s: %s writes a refusal that nobody counts or logs", file, f.Name.Name)
			}
		}
	}
	if checked < 7 {
		t.Errorf("only %d functions write refusals; this test no longer finds them", checked)
	}
}

func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// mentions reports whether a call named write is that of a problem.
func mentions(call *ast.CallExpr, what, name string) bool {
	if name != "write" {
		return true
	}
	found := false
	ast.Inspect(call.Fun, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && id.Name == what
		return true
	})
	return found
}

package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

func wantProblem(t *testing.T, r *http.Response, body string, status int, detail string) {
	t.Helper()
	var problem struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil {
		t.Fatalf("%s: %v in %q", r.Status, err, body)
	}
	if r.StatusCode != status || problem.Status != status || problem.Title != http.StatusText(status) || !strings.Contains(problem.Detail, detail) {
		t.Errorf("got %s %s, want %d and %q in the detail", r.Status, body, status, detail)
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type: %s", got)
	}
	if len(body) > 1000 {
		t.Errorf("the problem has %d bytes: it repeats what was sent", len(body))
	}
}

func TestPublishAnswer(t *testing.T) {
	n := start(t, server.Options{}, nil)
	before := time.Now().Truncate(time.Millisecond)
	r, body := n.do("POST", "/v1/feeds/chat:42/events", map[string]string{"Content-Type": "application/json"}, `{"text":"hi"}`)
	if r.StatusCode != http.StatusCreated || r.Header.Get("Location") != "/v1/feeds/chat:42/events/1" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v %s", r.Status, r.Header, body)
	}
	var answer struct {
		Feed, Time string
		ID         feed.ID
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", answer.Time)
	if err != nil || at.Before(before) || at.After(time.Now()) || answer.Feed != "chat:42" || answer.ID != 1 {
		t.Errorf("%s: %v", body, err)
	}
}

// TestPublishKeepsData: data comes back as it was published, except for line breaks.
func TestPublishKeepsData(t *testing.T) {
	n := start(t, server.Options{}, nil)
	f := n.follow(events, nil)
	f.want(open("chat", 0, 1, 0))
	for _, test := range []struct {
		query  string
		header map[string]string
		body   string
		want   string // without its id
	}{
		{"", nil, "hi", "data: hi\n"},
		{"", nil, "", "data: \n"},
		{"", nil, "a\nb\r\nc\rd\n", "data: a\ndata: b\ndata: c\ndata: d\ndata: \n"},
		{"", nil, "\uFEFF ünïcödé 🚀\t", "data: \uFEFF ünïcödé 🚀\t\n"},
		{"", map[string]string{"Content-Type": "application/json; charset=utf-8"}, "{ \"a\" : \"\\u0000\" }", "data: { \"a\" : \"\\u0000\" }\n"},
		{"", map[string]string{"Content-Type": "text/plain"}, "{not json", "data: {not json\n"},
		{"", map[string]string{"Content-Type": "text/plain;charset=UTF8", "Content-Encoding": "Identity"}, "é", "data: é\n"},
		{"", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, "a=b&c", "data: a=b&c\n"},
		{"", map[string]string{"Content-Type": ";;;"}, "x", "data: x\n"},
		{"?type=message", nil, "x", "data: x\n"},
		{"?type=a.b_c:d/e-1", nil, "x", "event: a.b_c:d/e-1\ndata: x\n"},
		{"", map[string]string{"Event-Type": "edited"}, "x", "event: edited\ndata: x\n"},
		{"?type=edited", map[string]string{"Event-Type": "edited"}, "x", "event: edited\ndata: x\n"},
		{"", nil, strings.Repeat("x", 60_000), "data: " + strings.Repeat("x", 60_000) + "\n"},
		{"", nil, strings.Repeat("\r\n", 60_000/7), strings.Repeat("data: \n", 60_000/7+1)},
	} {
		if r, body := n.do("POST", events+test.query, test.header, test.body); r.StatusCode != 201 {
			t.Errorf("%q: %s %s", test.body, r.Status, body)
			continue
		}
		block := f.block()
		if got := block[:strings.LastIndex(block, "id: ")]; got != test.want {
			t.Errorf("published %.80q with %v, got %.80q", test.body, test.header, got)
		}
	}
}

// TestBadPublish: the server refuses each request with a reason, and uses up no id.
func TestBadPublish(t *testing.T) {
	n := start(t, server.Options{}, nil)
	asJSON := map[string]string{"Content-Type": "application/json"}
	withType := func(s string) map[string]string { return map[string]string{"Event-Type": s} }
	for _, test := range []struct {
		path   string
		header map[string]string
		body   string
		status int
		detail string
	}{
		{events, nil, "a\xffb", 400, "byte 1"},
		{events, nil, "a\x00b", 400, "byte 1"},
		{events, nil, "\xed\xa0\x80", 400, "UTF-8"}, // half a surrogate pair
		{events, nil, strings.Repeat("x", 60_001), 413, "60000"},
		{events, nil, strings.Repeat("\n", 60_000/7+1), 413, "60000"},
		{events, nil, strings.Repeat("x", 1<<20), 413, "120000"},
		{events, asJSON, "", 400, "JSON"},
		{events, asJSON, "{", 400, "JSON"},
		{events, asJSON, "{} {}", 400, "JSON"},
		{events, asJSON, "\uFEFF{}", 400, "JSON"},
		{events, asJSON, "NaN", 400, "JSON"},
		{events, asJSON, strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000), 400, "nested"},
		{events, withType("feed.open"), "x", 400, "feed."},
		{events, withType("open"), "x", 400, "browser"},
		{events, withType("error"), "x", 400, "browser"},
		{events, withType("a b"), "x", 400, "character 2"},
		{events, withType(strings.Repeat("x", 101)), "x", 400, "100"},
		{events + "?type=a%0Aid:9", nil, "x", 400, "character 2"},
		{events + "?type=a", withType("b"), "x", 400, "different"},
		{events + "?type=a;b", nil, "x", 400, "query"},
		{"/v1/feeds/a%0Ab/events", nil, "x", 400, "character 2"},
		{"/v1/feeds/%20/events", nil, "x", 400, "character 1"},
		{"/v1/feeds/.chat/events", nil, "x", 400, "character 1"},
		{"/v1/feeds/caf%C3%A9/events", nil, "x", 400, "character 4"},
		{"/v1/feeds//events", nil, "x", 400, "feed name"},
		{"/v1/feeds/" + strings.Repeat("x", 256) + "/events", nil, "x", 400, "255"},
		{events, map[string]string{"Content-Encoding": "gzip"}, "x", 415, "gzip"},
		{events, map[string]string{"Content-Type": "text/plain; charset=ISO-8859-1"}, "x", 415, "UTF-8"},
		{events, map[string]string{"Content-Type": "application/json;charset=utf-16le"}, "1", 415, "UTF-8"},
		{events, map[string]string{"Content-Type": "application/x-ndjson;charset=latin1"}, `{"data":1}`, 415, "UTF-8"},
		{events + "?type=a&type=a", nil, "x", 400, "more than once"},
	} {
		t.Run(fmt.Sprintf("%.40s %v %.20q", test.path, test.header, test.body), func(t *testing.T) {
			r, body := n.do("POST", test.path, test.header, test.body)
			wantProblem(t, r, body, test.status, test.detail)
		})
	}
	n.publish("chat", "the first that was accepted", 1)
}

func TestHealth(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for path, want := range map[string]string{
		"/healthz": `{"status":"alive"}`,
		"/readyz":  `{"ready":true,"draining":false,"store":"up","bus":"up"}`,
	} {
		if r, body := n.do("GET", path, nil, ""); r.StatusCode != 200 || strings.TrimSpace(body) != want {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
	n.Drain(within(t, prompt), 0)
	if r, body := n.do("GET", "/readyz", nil, ""); r.StatusCode != 503 || !strings.Contains(body, `"draining":true`) {
		t.Errorf("%s %s", r.Status, body)
	}
}

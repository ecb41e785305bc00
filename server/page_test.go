package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

var acceptJSON = map[string]string{"Accept": "application/json"}

// page is a page of history as a client reads it.
type page struct {
	Feed   string
	Events []struct {
		Feed, Type string
		ID         feed.ID
		Time       time.Time
		Data       json.RawMessage
	}
	Cursor      string
	First, Last feed.ID
	Closed      bool

	links map[string]string // by relation
	body  string
}

// page gets a page and checks its form.
func (n *node) page(path string, header map[string]string) page {
	n.t.Helper()
	asked := map[string]string{"Accept": "application/json"}
	for name, value := range header {
		asked[name] = value
	}
	r, body := n.do("GET", path, asked, "")
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Vary") != "Accept" {
		n.t.Fatalf("GET %s: %s %v %.200s", path, r.Status, r.Header, body)
	}
	p := page{links: links(n.t, r), body: body}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		n.t.Fatalf("GET %s: %v in %.200s", path, err, body)
	}
	return p
}

var linkForm = regexp.MustCompile(`^<(/v1/feeds/[^>]+)>; rel="(next|prev)"$`)

// links reads the Link header of an answer.
func links(t *testing.T, r *http.Response) map[string]string {
	t.Helper()
	found := map[string]string{}
	if len(r.Header.Values("Link")) > 1 {
		t.Errorf("several Link headers: %q", r.Header.Values("Link"))
	}
	for link := range strings.SplitSeq(r.Header.Get("Link"), ", ") {
		if link == "" {
			continue
		}
		m := linkForm.FindStringSubmatch(link)
		if m == nil || found[m[2]] != "" {
			t.Fatalf("Link: %s", r.Header.Get("Link"))
		}
		found[m[2]] = m[1]
	}
	return found
}

// ids returns the first and the last id of the page, and demands every id in between.
func (p page) ids(t *testing.T) (low, high feed.ID) {
	t.Helper()
	if p.Events == nil {
		t.Errorf("events are not a list in %.200s", p.body)
	}
	for i, e := range p.Events {
		if e.ID != p.Events[0].ID+feed.ID(i) || e.Feed != p.Feed {
			t.Fatalf("event %d is number %d of the page, which begins with %d", e.ID, i+1, p.Events[0].ID)
		}
		low, high = p.Events[0].ID, e.ID
	}
	return low, high
}

// append publishes count events, whose data are their ids.
func (n *node) append(name string, count int) {
	n.t.Helper()
	drafts := make([]feed.Draft, count)
	for i := range drafts {
		drafts[i] = feed.Draft{Feed: name, Data: fmt.Sprint(i + 1), JSON: true}
	}
	if _, err := n.publisher.Publish(n.t.Context(), drafts...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) closeFeed(name string) {
	n.t.Helper()
	if _, err := n.publisher.PublishBatch(n.t.Context(), feed.Publication{Feed: name, Close: true}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) delete(path string) {
	n.t.Helper()
	if r, body := n.do("DELETE", path, nil, ""); r.StatusCode != http.StatusNoContent || body != "" {
		n.t.Fatalf("DELETE %s: %s %s", path, r.Status, body)
	}
}

// startHistory runs a node with the feeds chat (1 to 150), old (11 to 20, the
// rest is trimmed), gone (1 to 5, deleted), done (1 to 3, closed).
func startHistory(t *testing.T) *node {
	n := start(t, server.Options{}, nil)
	n.append("chat", 150)
	n.append("old", 20)
	n.delete("/v1/feeds/old/events?before=11")
	n.append("gone", 5)
	n.delete("/v1/feeds/gone")
	n.append("done", 3)
	n.closeFeed("done")
	return n
}

// TestPage checks the contract of a page, sentence by sentence.
func TestPage(t *testing.T) { eachStore(t, testPage) }

func testPage(t *testing.T) {
	n := startHistory(t)
	bounds := map[string][2]feed.ID{"chat": {1, 150}, "old": {11, 20}, "gone": {6, 5}, "done": {1, 3}, "new": {1, 0}}
	lastEventID := func(c string) map[string]string { return map[string]string{"Last-Event-ID": c} }
	for _, test := range []struct {
		sentence   string
		feed       string
		query      string
		header     map[string]string
		low, high  feed.ID // of the events; 0, 0 for none
		cursor     string
		next, prev string // queries
	}{
		{"after=42&limit=100: the events after 42", "chat", "after=42&limit=100", nil, 43, 142, "142", "after=142&limit=100", "before=43&limit=100"},
		{"limit 1", "chat", "after=42&limit=1", nil, 43, 43, "43", "after=43&limit=1", "before=43&limit=1"},
		{"limit 1000", "chat", "limit=1000", nil, 1, 150, "150", "", ""},
		{"default 100", "chat", "after=0", nil, 1, 100, "100", "after=100", ""},
		{"an empty parameter counts as absent", "chat", "after=&before=&limit=&wait=&gap=&from=", nil, 1, 100, "100", "after=100", ""},
		{"Link next and prev only where there is more", "chat", "after=100", nil, 101, 150, "150", "", "before=101"},
		{"at the end", "chat", "after=150", nil, 0, 0, "150", "", "before=151"},

		{"before=43: the limit events just before 43, oldest first", "chat", "before=43&limit=10", nil, 33, 42, "42", "after=42&limit=10", "before=33&limit=10"},
		{"fewer, where fewer are there", "chat", "before=43", nil, 1, 42, "42", "after=42", ""},
		{"before the first: none", "chat", "before=1", nil, 0, 0, "0", "after=0", ""},
		{"before 0: none", "chat", "before=0", nil, 0, 0, "0", "after=0", ""},
		{"before the end: the newest", "chat", "before=151&limit=2", nil, 149, 150, "150", "", "before=149&limit=2"},
		{"before any number behind the end: the newest", "chat", "before=9223372036854775807&limit=2", nil, 149, 150, "150", "", "before=149&limit=2"},

		{"a feed never written to is an empty page", "new", "", nil, 0, 0, "0", "", ""},
		{"with after", "new", "after=7", nil, 0, 0, "7", "", ""},
		{"with before", "new", "before=7", nil, 0, 0, "0", "", ""},
		{"with wait, it waits", "new", "wait=1ms", nil, 0, 0, "0", "", ""},
		{"a closed feed says so", "done", "after=1", nil, 2, 3, "3", "", "before=2"},

		{"trimmed: the oldest kept", "old", "after=3&limit=5", nil, 11, 15, "15", "after=15&limit=5", ""},
		{"trimmed, backwards", "old", "before=14", nil, 11, 13, "13", "after=13", ""},
		{"trimmed, backwards from before it", "old", "before=5", nil, 0, 0, "4", "after=10", ""},
		{"trimmed to nothing: the cursor stays, so that the stream tells of the gap", "gone", "after=2", nil, 0, 0, "2", "", ""},
		{"trimmed to nothing, without a cursor: no gap", "gone", "", nil, 0, 0, "5", "", ""},
		{"ahead: the cursor stays, so that the stream tells of the gap", "chat", "after=151", nil, 0, 0, "151", "", "before=151"},

		{"without after and before: Last-Event-ID", "chat", "limit=2&lastEventId=9&from=start", lastEventID("42"), 43, 44, "44", "after=44&limit=2", "before=43&limit=2"},
		{"then lastEventId", "chat", "limit=2&lastEventId=42&from=now", lastEventID(""), 43, 44, "44", "after=44&limit=2", "before=43&limit=2"},
		{"then from: now", "chat", "from=now", nil, 0, 0, "150", "", "before=151"},
		{"start", "old", "from=start&limit=1", nil, 11, 11, "11", "after=11&limit=1", ""},
		{"-N", "chat", "from=-3", nil, 148, 150, "150", "", "before=148"},
		{"-N with a limit: the first of them", "chat", "from=-3&limit=2", nil, 148, 149, "149", "after=149&limit=2", "before=148&limit=2"},
		{"a time", "chat", "from=2000-01-01T00:00:00Z&limit=1", nil, 1, 1, "1", "after=1&limit=1", ""},
		{"a time to come", "chat", "from=2100-01-01T00:00:00Z", nil, 0, 0, "150", "", "before=151"},
		{"then the oldest kept", "old", "", nil, 11, 20, "20", "", ""},
		{"after wins over Last-Event-ID", "chat", "after=42&limit=1", lastEventID("9"), 43, 43, "43", "after=43&limit=1", "before=43&limit=1"},
		{"before wins over Last-Event-ID", "chat", "before=42&limit=1", lastEventID("9"), 41, 41, "41", "after=41&limit=1", "before=41&limit=1"},

		{"gap=fail without a gap; links keep it", "old", "gap=fail&after=10&limit=1", nil, 11, 11, "11", "after=11&gap=fail&limit=1", ""},
		{"gap=fail: from is never a gap", "old", "gap=fail&from=start", nil, 11, 20, "20", "", ""},
		{"gap=fail at the end", "old", "gap=fail&after=20", nil, 0, 0, "20", "", "before=21&gap=fail"},
		{"gap=fail: nor is before", "old", "gap=fail&before=3", nil, 0, 0, "2", "after=10&gap=fail", ""},
		{"heartbeat and envelope change nothing", "chat", "heartbeat=4s&envelope=true&limit=1", nil, 1, 1, "1", "after=1&limit=1", ""},
		{"links never carry a token", "chat", "after=42&access_token=secret&limit=1", nil, 43, 43, "43", "after=43&limit=1", "before=43&limit=1"},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			base := "/v1/feeds/" + test.feed + "/events?"
			p := n.page(base+test.query, test.header)
			low, high := p.ids(t)
			if low != test.low || high != test.high || p.Cursor != test.cursor {
				t.Errorf("events %d to %d and cursor %s, want %d to %d and %s", low, high, p.Cursor, test.low, test.high, test.cursor)
			}
			if b := bounds[test.feed]; p.Feed != test.feed || p.First != b[0] || p.Last != b[1] || p.Closed != (test.feed == "done") {
				t.Errorf("%s, first %d, last %d, closed %t; want %v", p.Feed, p.First, p.Last, p.Closed, b)
			}
			want := map[string]string{}
			if test.next != "" {
				want["next"] = base + test.next
			}
			if test.prev != "" {
				want["prev"] = base + test.prev
			}
			if diff := cmp.Diff(want, p.links); diff != "" {
				t.Errorf("links: %s", diff)
			}
		})
	}
}

// TestPageOnTheWire checks a page against the contract, byte for byte.
func TestPageOnTheWire(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for _, path := range []string{"/v1/feeds/chat:42/events", "/v1/feeds/chat%3A42/events"} {
		if r, body := n.do("GET", path, acceptJSON, ""); body != `{"feed":"chat:42","events":[],"cursor":"0","first":1,"last":0,"closed":false}`+"\n" {
			t.Errorf("%s %s", r.Status, body)
		}
	}
	n.do("POST", "/v1/feeds/chat:42/events?type=edited", map[string]string{"Content-Type": "application/json"}, "{\n\"text\": \"<hi>\"}")
	n.publish("chat:42", "two\nlines", 2)
	r, body := n.do("GET", "/v1/feeds/chat:42/events", acceptJSON, "")
	at := regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)
	want := `{"feed":"chat:42","events":[` +
		`{"feed":"chat:42","id":1,"type":"edited","time":T,"data":{ "text": "<hi>"}},` +
		`{"feed":"chat:42","id":2,"type":"message","time":T,"data":"two\nlines"}],` +
		`"cursor":"2","first":1,"last":2,"closed":false}` + "\n"
	if diff := cmp.Diff(want, at.ReplaceAllString(body, "T")); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Content-Length": fmt.Sprint(len(body)), "Cache-Control": "private, no-cache",
		"Vary": "Accept", "X-Content-Type-Options": "nosniff", "Link": "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	head, none := n.do("HEAD", "/v1/feeds/chat:42/events", acceptJSON, "")
	for _, name := range []string{"Date", "X-Request-Id"} {
		head.Header.Set(name, r.Header.Get(name))
	}
	if diff := cmp.Diff(r.Header, head.Header); diff != "" || head.StatusCode != http.StatusOK || none != "" {
		t.Errorf("HEAD: %s %s %q", head.Status, diff, none)
	}
}

// TestWhoGetsAPage: Accept decides. A request that accepts an event stream gets one.
func TestWhoGetsAPage(t *testing.T) {
	n := startHistory(t)
	for accept, want := range map[string]string{
		"application/json":                             "application/json",
		"Application/JSON; charset=utf-8":              "application/json",
		"application/json, text/plain, */*":            "application/json",
		"application/json, application/x-ndjson;q=0.5": "application/json",
		"text/event-stream":                            "text/event-stream; charset=utf-8",
		"text/event-stream, application/json":          "text/event-stream; charset=utf-8",
		"application/json;q=0, */*":                    "text/event-stream; charset=utf-8",
		"*/*":                                          "text/event-stream; charset=utf-8",
		"":                                             "text/event-stream; charset=utf-8",
		"text/html,application/xhtml+xml,*/*;q=0.8":    "text/event-stream; charset=utf-8",
	} {
		if r, _ := n.do("HEAD", events, map[string]string{"Accept": accept}, ""); r.Header.Get("Content-Type") != want {
			t.Errorf("%s: got %s", accept, r.Header.Get("Content-Type"))
		}
	}
}

// TestBadPage: the server refuses each request with an error that names the
// parameter.
func TestBadPage(t *testing.T) {
	n := startHistory(t)
	for _, test := range []struct {
		path   string
		status int
		detail string
	}{
		{"chat/events?after=42&before=43", 400, "after or before"},
		{"chat/events?after=x", 400, "after"},
		{"chat/events?after=-1", 400, "after"},
		{"chat/events?after=007", 400, "after"},
		{"chat/events?after=%2B1", 400, "after"},
		{"chat/events?after=9223372036854775808", 400, "after"},
		{"chat/events?before=x", 400, "before"},
		{"chat/events?before=" + strings.Repeat("9", 10_000), 400, "before"},
		{"chat/events?limit=0", 400, "limit"},
		{"chat/events?limit=1001", 400, "limit"},
		{"chat/events?limit=-1", 400, "limit"},
		{"chat/events?limit=all", 400, "limit"},
		{"chat/events?limit=65537", 400, "limit"},
		{"chat/events?wait=30", 400, "wait"},
		{"chat/events?wait=soon", 400, "wait"},
		{"chat/events?before=43&wait=1s", 400, "wait"},
		{"chat/events?gap=tell", 400, "gap"},
		{"chat/events?types=a", 400, "types"},
		{"chat/events?control=live", 400, "control"},
		{"chat/events?lastEventId=x", 400, "cursor"},
		{"chat/events?from=yesterday", 400, "from"},
		{"chat/events?after=%zz", 400, "query"},
		{"old/events?gap=fail&after=9", 410, "no longer kept"},
		{"old/events?gap=fail&after=0", 410, "no longer kept"},
		{"old/events?gap=fail&lastEventId=9", 410, "no longer kept"},
		{"old/events?gap=fail&after=9&wait=1m", 410, "no longer kept"},
		{"old/events?gap=fail&after=21", 410, "ahead"},
		{"old/events?gap=fail&after=21&wait=1m", 410, "ahead"},
		{"gone/events?gap=fail&after=4", 410, "no longer kept"},
		{"new/events?gap=fail&after=1", 410, "ahead"},
	} {
		t.Run(fmt.Sprintf("%.60s", test.path), func(t *testing.T) {
			r, body := n.do("GET", "/v1/feeds/"+test.path, acceptJSON, "")
			wantProblem(t, r, body, test.status, test.detail)
			if r.Header.Get("Vary") != "Accept" || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("ETag") != "" {
				t.Errorf("headers %v", r.Header)
			}
		})
	}
}

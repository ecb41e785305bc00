package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

var updated = regexp.MustCompile(`"updated":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)

// get demands JSON that must not be stored, and returns it without times.
func (n *node) get(path string) string {
	n.t.Helper()
	r, body := n.do("GET", path, nil, "")
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
		n.t.Errorf("GET %s: %s %v %s", path, r.Status, r.Header, body)
	}
	head, none := n.do("HEAD", path, nil, "")
	if head.StatusCode != http.StatusOK || none != "" || head.ContentLength != r.ContentLength {
		n.t.Errorf("HEAD %s: %s %v %q", path, head.Status, head.Header, none)
	}
	return strings.TrimSpace(updated.ReplaceAllString(body, `"updated":T`))
}

// TestFeeds checks the contract of lists, sentence by sentence.
func TestFeeds(t *testing.T) { eachStore(t, testFeeds) }

func testFeeds(t *testing.T) {
	n := startHistory(t)
	const (
		chat = `{"feed":"chat","first":1,"last":150,"closed":false,"updated":T}`
		done = `{"feed":"done","first":1,"last":3,"closed":true,"updated":T}`
		gone = `{"feed":"gone","first":6,"last":5,"closed":false,"updated":T}`
		old  = `{"feed":"old","first":11,"last":20,"closed":false,"updated":T}`
	)
	list := func(next string, feeds ...string) string {
		if next != "" {
			next = `,"next":"` + next + `"`
		}
		return `{"feeds":[` + strings.Join(feeds, ",") + `]` + next + `}`
	}
	for _, test := range []struct{ sentence, query, want string }{
		{"by name, next absent at the end", "", list("", chat, done, gone, old)},
		{"empty parameters count as absent", "?prefix=&after=&limit=", list("", chat, done, gone, old)},
		{"limit", "?limit=2", list("done", chat, done)},
		{"next is the name for after", "?limit=2&after=done", list("", gone, old)},
		{"next absent at the end, though the page is full", "?limit=4", list("", chat, done, gone, old)},
		{"after a name that no feed has", "?after=d", list("", done, gone, old)},
		{"after the last", "?after=old", list("")},
		{"prefix", "?prefix=do", list("", done)},
		{"prefix with after", "?prefix=o&after=done", list("", old)},
		{"prefix with after behind it", "?prefix=c&after=done", list("")},
		{"a prefix that is a name", "?prefix=chat", list("", chat)},
		{"a prefix that no feed has", "?prefix=zzz", list("")},
	} {
		if diff := cmp.Diff(test.want, n.get("/v1/feeds"+test.query)); diff != "" {
			t.Errorf("%s: %s", test.sentence, diff)
		}
	}
}

// TestFeedsWalk: following next yields every feed once, in the order of names.
func TestFeedsWalk(t *testing.T) {
	n := start(t, server.Options{}, nil)
	var want []string
	for i := range 205 {
		name := fmt.Sprintf("room:%d", i)
		want = append(want, name, "Room:"+fmt.Sprint(i))
		n.append(name, 1)
		n.append("Room:"+fmt.Sprint(i), 1)
	}
	slices.Sort(want) // by bytes, as names are
	for _, limit := range []string{"", "&limit=1000", "&limit=41", "&limit=205", "&limit=410"} {
		var got []string
		for next := ""; ; {
			var answer struct {
				Feeds []struct{ Feed string }
				Next  *string
			}
			r, body := n.do("GET", "/v1/feeds?after="+url.QueryEscape(next)+limit, nil, "")
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(r.Status, err)
			}
			if limit == "" && answer.Next != nil && len(answer.Feeds) != 100 {
				t.Errorf("%d feeds without a limit, want 100", len(answer.Feeds))
			}
			for _, f := range answer.Feeds {
				got = append(got, f.Feed)
			}
			if answer.Next == nil {
				break
			}
			next = *answer.Next
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", limit, diff)
		}
	}
}

// TestFeedInfo: an entry of the list, plus subscribers and bytes.
func TestFeedInfo(t *testing.T) {
	n := startHistory(t)
	n.publish("a", "12345", 1)
	n.publish("a:b", "x", 1)
	want := `{"feed":"a","first":1,"last":1,"closed":false,"updated":T,"subscribers":0,"bytes":5}`
	if diff := cmp.Diff(want, n.get("/v1/feeds/a")); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		n.follow("/v1/feeds/a/events", nil).block()
	}
	n.publish("a", "12345", 2)
	want = `{"feed":"a","first":1,"last":2,"closed":false,"updated":T,"subscribers":2,"bytes":10}`
	if diff := cmp.Diff(want, n.get("/v1/feeds/a")); diff != "" {
		t.Error(diff)
	}
	if got := n.get("/v1/feeds/done"); !strings.Contains(got, `"closed":true`) {
		t.Error(got)
	}
	for _, name := range []string{"new", "ch", "chatt"} {
		r, body := n.do("GET", "/v1/feeds/"+name, nil, "")
		wantProblem(t, r, body, 404, "the feed "+name+" does not exist")
	}
	// Subscribing to a feed does not create it.
	n.follow("/v1/feeds/new/events", nil).block()
	r, body := n.do("GET", "/v1/feeds/new", nil, "")
	wantProblem(t, r, body, 404, "new")
	// Closing it does.
	n.closeFeed("new")
	if got := n.get("/v1/feeds/new"); !strings.Contains(got, `"first":1,"last":0,"closed":true`) {
		t.Error(got)
	}
}

// TestDelete: all events of the feed are deleted, and its numbering continues.
func TestDelete(t *testing.T) {
	n := startHistory(t)
	f := n.follow(events+"?from=now", nil)
	f.want(open("chat", 150, 1, 150))
	for range 2 { // it can be repeated
		n.delete("/v1/feeds/chat")
	}
	if p := n.page(events, nil); p.First != 151 || p.Last != 150 || len(p.Events) != 0 {
		t.Errorf("%+v", p)
	}
	if got := n.get("/v1/feeds/chat"); !strings.Contains(got, `"first":151,"last":150,"closed":false`) {
		t.Error(got)
	}
	n.publish("chat", "x", 151)
	f.want(event(151, "x"))
	n.delete("/v1/feeds/new") // the same answer, whether the feed exists or not
	r, body := n.do("GET", "/v1/feeds/new", nil, "")
	wantProblem(t, r, body, 404, "new")
	n.publish("new", "x", 1)
	n.delete("/v1/feeds/done")
	if p := n.page("/v1/feeds/done/events", nil); p.First != 4 || !p.Closed {
		t.Errorf("a deleted feed must start at 4 and stay closed: %+v", p)
	}
}

// TestTrim: the events below the given id are deleted.
func TestTrim(t *testing.T) {
	n := startHistory(t)
	for _, step := range []struct{ before, first string }{
		{"43", "43"}, {"43", "43"}, {"10", "43"}, {"0", "43"}, {"1", "43"}, {"150", "150"}, {"151", "151"}, {"9223372036854775807", "151"},
	} {
		n.delete(events + "?before=" + step.before)
		if p := n.page(events, nil); fmt.Sprint(p.First) != step.first || p.Last != 150 {
			t.Errorf("before=%s: first %d, last %d", step.before, p.First, p.Last)
		}
	}
	n.delete("/v1/feeds/new/events?before=43")
	n.publish("new", "x", 1)
	n.publish("chat", "x", 151)
}

// TestBadFeeds: the server refuses each request with an error that names the mistake,
// and deletes nothing.
func TestBadFeeds(t *testing.T) {
	n := startHistory(t)
	for _, test := range []struct {
		method, path string
		status       int
		detail       string
	}{
		{"GET", "/v1/feeds?limit=0", 400, "limit"},
		{"GET", "/v1/feeds?limit=1001", 400, "limit"},
		{"GET", "/v1/feeds?prefix=%00", 400, "prefix"},
		{"GET", "/v1/feeds?prefix=%ff", 400, "prefix"},
		{"GET", "/v1/feeds?prefix=chat*", 400, "prefix"},
		{"GET", "/v1/feeds?after=a%20b", 400, "after"},
		{"GET", "/v1/feeds?after=" + strings.Repeat("x", 256), 400, "after"},
		{"GET", "/v1/feeds?after=%zz", 400, "query"},
		{"GET", "/v1/feeds/-chat", 400, "feed name"},
		{"DELETE", "/v1/feeds/-chat", 400, "feed name"},
		{"DELETE", "/v1/feeds/-chat/events?before=3", 400, "feed name"},
		{"DELETE", events, 400, "before"},
		{"DELETE", events + "?before=", 400, "before"},
		{"DELETE", events + "?before=x", 400, "before"},
		{"DELETE", events + "?before=-1", 400, "before"},
		{"DELETE", events + "?before=9223372036854775808", 400, "before"},
		{"DELETE", events + "?after=10&before=43", 400, "after"},
		{"DELETE", events + "?before=43&limit=2", 400, "limit"},
		{"DELETE", events + "?before=%zz", 400, "query"},
		{"DELETE", "/v1/feeds/chat?before=43", 400, "before"},
		{"DELETE", "/v1/feeds/chat?before=", 400, "before"},
	} {
		r, body := n.do(test.method, test.path, nil, "")
		wantProblem(t, r, body, test.status, test.detail)
	}
	if p := n.page(events, nil); p.First != 1 {
		t.Errorf("first %d", p.First)
	}
}

func TestAllowedMethods(t *testing.T) {
	n := startHistory(t)
	for path, want := range map[string][]string{
		"/v1/feeds":      {"GET", "HEAD"},
		"/v1/feeds/chat": {"GET", "HEAD", "DELETE"},
		events:           {"GET", "HEAD", "POST", "DELETE"},
		events + "/1":    {"GET", "HEAD"},
	} {
		r, body := n.do("PATCH", path, nil, "")
		wantProblem(t, r, body, 405, "PATCH")
		if diff := cmp.Diff(want, r.Header.Values("Allow")); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// TestWhoMayKeep: subscribe covers pages and a feed's info. admin covers deleting,
// trimming and listing. The answers are the same whether the feed exists or not.
func TestWhoMayKeep(t *testing.T) {
	n := guarded(t, auth.Options{Key: secret}, server.Options{})
	n.append("chat", 3)
	n.append("news", 3)
	reader := tokenFor(t, auth.Rights{Subscribe: []string{"chat"}})
	writer := tokenFor(t, auth.Rights{Publish: []string{"*"}})
	admin := tokenFor(t, auth.Rights{Admin: true})
	for _, test := range []struct {
		method, path          string
		reader, writer, admin int
	}{
		{"GET", "/v1/feeds/chat/events?after=1", 200, 403, 403},
		{"GET", "/v1/feeds/chat/events/1", 200, 403, 403},
		{"GET", "/v1/feeds/chat/events/9", 404, 403, 403},
		{"GET", "/v1/feeds/chat", 200, 403, 403},
		{"HEAD", "/v1/feeds/chat", 200, 403, 403},
		{"GET", "/v1/feeds/news/events", 403, 403, 403},
		{"GET", "/v1/feeds/news/events/1", 403, 403, 403},
		{"GET", "/v1/feeds/new/events/1", 403, 403, 403},
		{"GET", "/v1/feeds/news", 403, 403, 403},
		{"GET", "/v1/feeds/new", 403, 403, 403},
		{"GET", "/v1/feeds", 403, 403, 200},
		{"HEAD", "/v1/feeds", 403, 403, 200},
		{"DELETE", "/v1/feeds/chat/events?before=2", 403, 403, 204},
		{"DELETE", "/v1/feeds/chat", 403, 403, 204},
		{"DELETE", "/v1/feeds/new", 403, 403, 204},
	} {
		for _, as := range []struct {
			token  string
			status int
		}{{reader, test.reader}, {writer, test.writer}, {admin, test.admin}, {"", 401}} {
			header := map[string]string{"Accept": "application/json"}
			if as.token != "" {
				header["Authorization"] = "Bearer " + as.token
			}
			if r, body := n.do(test.method, test.path, header, ""); r.StatusCode != as.status {
				t.Errorf("%s %s: %s %s, want %d", test.method, test.path, r.Status, body, as.status)
			}
		}
	}
}

// TestStoreThatKeepsNoList: such a store supports everything else.
func TestStoreThatKeepsNoList(t *testing.T) {
	n := startOn(t, struct{ feed.Store }{feedtest.NewStore()}, server.Options{})
	n.publish("chat", "x", 1)
	for _, request := range []string{"GET /v1/feeds", "GET /v1/feeds/chat", "DELETE /v1/feeds/chat", "DELETE /v1/feeds/chat/events?before=3"} {
		method, path, _ := strings.Cut(request, " ")
		r, body := n.do(method, path, nil, "")
		wantProblem(t, r, body, 501, "store")
	}
	if p := n.page(events, nil); len(p.Events) != 1 {
		t.Errorf("%+v", p)
	}
	n.tag(events + "/1")
}

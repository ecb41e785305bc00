package server_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
)

// TestEvent: one envelope, 404 unknown, 410 trimmed, 400 malformed.
func TestEvent(t *testing.T) {
	n := startHistory(t)
	for _, test := range []struct {
		path   string
		status int
		want   string // of the body, without times; or of the problem's detail
	}{
		{"chat/events/1", 200, `{"feed":"chat","id":1,"type":"message","time":T,"data":1}`},
		{"chat/events/150", 200, `{"feed":"chat","id":150,"type":"message","time":T,"data":150}`},
		{"chat/events/%31", 200, `{"feed":"chat","id":1,"type":"message","time":T,"data":1}`},
		{"old/events/11", 200, `{"feed":"old","id":11,"type":"message","time":T,"data":11}`},
		{"done/events/3", 200, `{"feed":"done","id":3,"type":"message","time":T,"data":3}`},
		{"old/events/10", 410, "event 10 of old is no longer kept"},
		{"old/events/1", 410, "event 1 of old is no longer kept"},
		{"gone/events/5", 410, "event 5 of gone is no longer kept"},
		{"gone/events/6", 404, "event 6 of gone does not exist"},
		{"chat/events/151", 404, "event 151 of chat does not exist"},
		{"chat/events/9223372036854775807", 404, "does not exist"},
		{"chat/events/0", 404, "event 0 of chat does not exist"},
		{"old/events/0", 404, "does not exist"},
		{"new/events/1", 404, "event 1 of new does not exist"},
		{"new/events/0", 404, "does not exist"},
		{"chat/events/abc", 400, "id"},
		{"chat/events/-1", 400, "id"},
		{"chat/events/+1", 400, "id"},
		{"chat/events/01", 400, "id"},
		{"chat/events/1.0", 400, "id"},
		{"chat/events/1%2F2", 400, "id"},
		{"chat/events/9223372036854775808", 400, "id"},
		{"chat/events/" + strings.Repeat("1", 10_000), 400, "id"},
		{"-chat/events/1", 400, "feed name"},
		{"chat/events/1/2", 404, "nothing"},
	} {
		t.Run(fmt.Sprintf("%.60s", test.path), func(t *testing.T) {
			r, body := n.do("GET", "/v1/feeds/"+test.path, nil, "")
			head, none := n.do("HEAD", "/v1/feeds/"+test.path, nil, "")
			if head.StatusCode != test.status || none != "" {
				t.Errorf("HEAD: %s %q", head.Status, none)
			}
			if test.status != http.StatusOK {
				wantProblem(t, r, body, test.status, test.want)
				if r.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("it may be cached: %v", r.Header)
				}
				return
			}
			at := regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)
			if diff := cmp.Diff(test.want+"\n", at.ReplaceAllString(body, "T")); diff != "" {
				t.Error(diff)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/json", "Content-Length": fmt.Sprint(len(body)),
				"Cache-Control": "private, max-age=300, immutable", "X-Content-Type-Options": "nosniff",
			} {
				if r.Header.Get(name) != want || head.Header.Get(name) != want {
					t.Errorf("%s: GET %s, HEAD %s, want %s", name, r.Header.Get(name), head.Header.Get(name), want)
				}
			}
		})
	}
	created, _ := n.do("POST", events, nil, "x")
	if r, body := n.do("GET", created.Header.Get("Location"), nil, ""); r.StatusCode != http.StatusOK || !strings.Contains(body, `"id":151`) {
		t.Errorf("what Location names: %s %s", r.Status, body)
	}
}

// tag returns the entity tag of the answer at path.
func (n *node) tag(path string) string {
	n.t.Helper()
	r, body := n.do("GET", path, acceptJSON, "")
	tag := r.Header.Get("ETag")
	if r.StatusCode != http.StatusOK || !regexp.MustCompile(`^"[\w-]{16}"$`).MatchString(tag) {
		n.t.Fatalf("GET %s: %s %v %s", path, r.Status, r.Header, body)
	}
	return tag
}

// TestNotModified: a client that has the body gets 304.
func TestNotModified(t *testing.T) {
	n := startHistory(t)
	for path, caching := range map[string]string{
		events + "/42":              "private, max-age=300, immutable",
		events + "?after=42":        "private, no-cache",
		events + "?before=43":       "private, no-cache",
		"/v1/feeds/new/events":      "private, no-cache",
		"/v1/feeds/done/events":     "private, no-cache",
		"/v1/feeds/gone/events":     "private, no-cache",
		"/v1/feeds/done/events?x=y": "private, no-cache",
	} {
		tag := n.tag(path)
		for known, status := range map[string]int{
			tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, tag + `,"x"`: 304, "*": 304,
			`"x"`: 200, "": 200, strings.Trim(tag, `"`): 200, `"` + tag: 200,
		} {
			for _, method := range []string{"GET", "HEAD"} {
				header := map[string]string{"Accept": "application/json", "If-None-Match": known}
				r, body := n.do(method, path, header, "")
				if r.StatusCode != status || r.Header.Get("ETag") != tag || r.Header.Get("Cache-Control") != caching {
					t.Errorf("%s %s, If-None-Match: %s: %s %v", method, path, known, r.Status, r.Header)
				}
				if (status == 304 || method == "HEAD") != (body == "") {
					t.Errorf("%s %s: %s %q", method, path, r.Status, body)
				}
				if vary := r.Header.Get("Vary"); vary != "Accept" && !strings.HasSuffix(path, "/42") {
					t.Errorf("%s %s: Vary: %s", method, path, vary)
				}
			}
		}
	}
}

// TestTagsChange: the entity tag changes with each part of the page.
func TestTagsChange(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const path = events + "?after=2&limit=2"
	seen := map[string]string{}
	changed := func(what string) {
		t.Helper()
		tag := n.tag(path)
		if before, ok := seen[tag]; ok {
			t.Errorf("%s: the tag is as it was when %s", what, before)
		}
		if again := n.tag(path); again != tag {
			t.Errorf("%s: another tag for the same page", what)
		}
		seen[tag] = what
	}
	changed("there was nothing")
	n.append("chat", 3)
	changed("there was one event")
	n.append("chat", 1)
	changed("there were two events")
	n.append("chat", 1)
	changed("there was more")
	n.delete(events + "?before=2")
	changed("an event before it was trimmed")
	n.delete(events + "?before=4")
	changed("one of its events was trimmed")
	n.closeFeed("chat")
	changed("the feed was closed: closed feeds can still be trimmed")
	n.delete("/v1/feeds/chat")
	changed("everything was deleted")

	n.append("a", 3)
	n.append("b", 3)
	if n.tag("/v1/feeds/a/events/1") == n.tag("/v1/feeds/b/events/1") || n.tag("/v1/feeds/a/events/1") == n.tag("/v1/feeds/a/events/2") {
		t.Error("different events have one tag")
	}
}

// renamed is a store with the events of another, and an ID of its own.
type renamed struct{ feed.Store }

func (renamed) ID() string { return "another" }

func TestTagsOfAnotherStore(t *testing.T) {
	store := feedtest.NewStore()
	n, other := startOn(t, store, server.Options{}), startOn(t, renamed{store}, server.Options{})
	n.append("chat", 3)
	for _, path := range []string{events, events + "?before=2", events + "/1"} {
		if n.tag(path) == other.tag(path) {
			t.Errorf("%s: different stores have one tag", path)
		}
	}
}

// TestTagsAfterARestore: a store that was replaced by an older copy of itself
// gives the same ids to other events.
func TestTagsAfterARestore(t *testing.T) {
	store := feedtest.NewStore()
	n := startOn(t, store, server.Options{})
	n.append("chat", 3)
	last := store.History("chat").Events[2].Time
	paths := []string{events, events + "?before=4", events + "/3"}
	var before []string
	for _, path := range paths {
		before = append(before, n.tag(path))
	}
	store.Rollback("chat", 2)
	eventually(t, "it is another millisecond", func() bool { return time.Since(last) > 2*time.Millisecond })
	if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: "another"}); err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		if n.tag(path) == before[i] {
			t.Errorf("%s: the same tag", path)
		}
	}
}

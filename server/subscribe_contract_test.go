package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// streamCase is a stream and its first blocks. Then the test publishes to the feed, and
// more blocks follow.
type streamCase struct {
	sentence string
	path     string
	header   string // lines
	want     []string
	then     func(n *node)
	after    []string
	ends     error // io.EOF for a clean end, io.ErrUnexpectedEOF for a break; nil if it goes on
}

const lines = "Accept: application/x-ndjson"

// control is a control event as a block.
func control(kind, data, id string) string {
	if id == "" {
		return fmt.Sprintf("event: %s\ndata: %s\n", kind, data)
	}
	return fmt.Sprintf("event: %s\ndata: %s\nid: %s\n", kind, data, id)
}

func gap(feedName string, after, resumes int, reason string) string {
	return control("feed.gap", fmt.Sprintf(`{"feed":%q,"after":"%d","resumes":%d,"reason":%q}`, feedName, after, resumes, reason), fmt.Sprint(resumes-1))
}

func enveloped(feedName string, id int, kind, data string) string {
	return fmt.Sprintf(`{"feed":%q,"id":%d,"type":%q,"time":"T","data":%s}`, feedName, id, kind, data)
}

// subscribeContract lists the contract for subscribing. The feed chat has the events a,
// b of type t, c; old has 3 to 5 of 5; done has one and is closed; gone had one and is
// deleted.
var subscribeContract = []streamCase{
	{"types passes only those types", "chat/events?from=start&types=t", "",
		[]string{open("chat", 0, 1, 3), "event: t\ndata: b\nid: 2\n"}, nil,
		[]string{control("feed.cursor", `{"feed":"chat","cursor":"3"}`, "3")}, nil},
	{"message is the type of events without one", "chat/events?from=start&types=x,message", "",
		[]string{open("chat", 0, 1, 3), event(1, "a"), event(3, "c")}, nil, nil, nil},
	{"a filtered stream goes on with what is new", "chat/events?types=u", "",
		[]string{open("chat", 3, 1, 3)}, say("t", "d", "u", "e"), []string{"event: u\ndata: e\nid: 5\n"}, nil},
	{"envelope=true puts everything into data", "chat/events?from=-2&envelope=true", "",
		[]string{open("chat", 1, 1, 3), "event: t\ndata: " + enveloped("chat", 2, "t", `"b"`) + "\nid: 2\n", "data: " + enveloped("chat", 3, "message", `"c"`) + "\nid: 3\n"}, nil, nil, nil},
	{"control=live says when the history is through", "chat/events?from=start&control=live", "",
		[]string{open("chat", 0, 1, 3), event(1, "a"), "event: t\ndata: b\nid: 2\n", event(3, "c"), control("feed.live", `{"feed":"chat","cursor":"3"}`, "")},
		say("", "d"), []string{event(4, "d")}, nil},
	{"without history it is through at once", "new/events?control=live", "",
		[]string{open("new", 0, 1, 0), control("feed.live", `{"feed":"new","cursor":"0"}`, "")}, nil, nil, nil},
	{"a gap comes before the history", "old/events?control=live", "Last-Event-ID: 1",
		[]string{open("old", 1, 3, 5), gap("old", 1, 3, "trimmed"), event(3, "3"), event(4, "4"), event(5, "5"), control("feed.live", `{"feed":"old","cursor":"5"}`, "")}, nil, nil, nil},
	{"control=heartbeat makes keep-alives visible", "chat/events?control=heartbeat", "",
		[]string{open("chat", 3, 1, 3), control("feed.heartbeat", "{}", ""), control("feed.heartbeat", "{}", "")}, nil, nil, nil},
	{"a cursor that is too old is a gap, 0 included", "old/events", "Last-Event-ID: 0",
		[]string{open("old", 0, 3, 5), gap("old", 0, 3, "trimmed"), event(3, "3"), event(4, "4"), event(5, "5")}, nil, nil, nil},
	{"from is never a gap", "old/events?from=start", "", []string{open("old", 2, 3, 5), event(3, "3")}, nil, nil, nil},
	{"a cursor ahead is a gap, and goes on from the live end", "old/events", "Last-Event-ID: 9",
		[]string{open("old", 9, 3, 5), gap("old", 9, 6, "ahead")}, nil, nil, nil},
	{"a deleted feed numbers on", "gone/events", "Last-Event-ID: 0",
		[]string{open("gone", 0, 2, 1), gap("gone", 0, 2, "trimmed")},
		func(n *node) { n.publish("gone", "x", 2) }, []string{event(2, "x")}, nil},
	{"gap=fail without a gap is a stream", "old/events?gap=fail", "Last-Event-ID: 2", []string{open("old", 2, 3, 5), event(3, "3")}, nil, nil, nil},
	{"a closed feed is delivered whole, then the stream ends cleanly", "done/events?from=start", "",
		[]string{open("done", 0, 1, 1), event(1, "x"), control("feed.closed", `{"feed":"done","last":1}`, "1")}, nil, nil, io.EOF},
	{"without a cursor: feed.open, feed.closed, end", "done/events", "",
		[]string{open("done", 1, 1, 1), control("feed.closed", `{"feed":"done","last":1}`, "1")}, nil, nil, io.EOF},
	{"a feed that is closed meanwhile", "chat/events", "", []string{open("chat", 3, 1, 3)},
		func(n *node) {
			n.post(exchange{events + "?close=true", "", "bye", 201, `{"feed":"chat","id":4}`, ""})
		},
		[]string{event(4, "bye"), control("feed.closed", `{"feed":"chat","last":4}`, "4")}, io.EOF},
	{"a feed that is closed without an event", "chat/events", "", []string{open("chat", 3, 1, 3)},
		func(n *node) { n.post(exchange{"/v1/feeds/chat/close", "", "", 204, "", ""}) },
		[]string{control("feed.closed", `{"feed":"chat","last":3}`, "3")}, io.EOF},
	{"an ephemeral event has no id", "chat/events", "", []string{open("chat", 3, 1, 3)},
		func(n *node) { n.post(exchange{events + "?ephemeral=true&type=typing", "", "me", 202, "", ""}) },
		[]string{"event: typing\ndata: me\n"}, nil},
	{"as lines", "old/events", lines + "\nLast-Event-ID: 3",
		[]string{`{"feed":"old","type":"feed.open","cursor":"3","data":{"feed":"old","cursor":"3","first":3,"last":5}}`,
			enveloped("old", 4, "message", `"4"`), enveloped("old", 5, "message", `"5"`)}, nil, nil, nil},
	{"as lines, control events have a cursor", "old/events?control=live", lines + "\nLast-Event-ID: 9",
		[]string{`{"feed":"old","type":"feed.open","cursor":"9","data":{"feed":"old","cursor":"9","first":3,"last":5}}`,
			`{"feed":"old","type":"feed.gap","cursor":"5","data":{"feed":"old","after":"9","resumes":6,"reason":"ahead"}}`,
			`{"feed":"old","type":"feed.live","data":{"feed":"old","cursor":"5"}}`}, nil, nil, nil},
	{"as lines, a closed feed ends cleanly", "done/events", lines,
		[]string{`{"feed":"done","type":"feed.open","cursor":"1","data":{"feed":"done","cursor":"1","first":1,"last":1}}`,
			`{"feed":"done","type":"feed.closed","cursor":"1","data":{"feed":"done","last":1}}`}, nil, nil, io.EOF},
	{"as lines, an ephemeral event has no id", "chat/events", lines, []string{`{"feed":"chat","type":"feed.open","cursor":"3","data":{"feed":"chat","cursor":"3","first":1,"last":3}}`},
		func(n *node) { n.post(exchange{events + "?ephemeral=true", "", "me", 202, "", ""}) },
		[]string{`{"feed":"chat","type":"message","time":"T","data":"me"}`}, nil},
}

// say publishes pairs of type and data to the feed chat, all at once, so that no
// keep-alive comes between them.
func say(pairs ...string) func(n *node) {
	var drafts []feed.Draft
	for i := 0; i < len(pairs); i += 2 {
		drafts = append(drafts, feed.Draft{Feed: "chat", Type: pairs[i], Data: pairs[i+1]})
	}
	return func(n *node) {
		n.t.Helper()
		if _, err := n.publisher.Publish(n.t.Context(), drafts...); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestSubscribeContract(t *testing.T) { eachStore(t, testSubscribeContract) }

func testSubscribeContract(t *testing.T) { expectEach(t, subscribeContract, "/v1/feeds/") }

// expectEach asks a node of its own for the stream of each case, whose path goes on
// behind base.
func expectEach(t *testing.T, cases []streamCase, base string) {
	for _, test := range cases {
		t.Run(test.sentence, func(t *testing.T) {
			t.Parallel()
			startSubscribed(t).expect(test, base+test.path)
		})
	}
}

// startSubscribed runs a node with the feeds of the cases.
func startSubscribed(t *testing.T) *node {
	return startFeeds(t, server.Options{Heartbeat: 50 * time.Millisecond})
}

func startFeeds(t *testing.T, o server.Options) *node {
	n := start(t, o, nil)
	say("", "a", "t", "b", "", "c")(n)
	for id := range feed.ID(5) {
		n.publish("old", fmt.Sprint(id+1), id+1)
	}
	n.delete("/v1/feeds/old/events?before=3")
	n.post(exchange{"/v1/feeds/done/events?close=true", "", "x", 201, `{"feed":"done","id":1}`, ""})
	n.publish("gone", "x", 1)
	n.delete("/v1/feeds/gone")
	return n
}

func (n *node) expect(test streamCase, path string) {
	n.t.Helper()
	header := make(http.Header)
	addHeader(header, test.header)
	flat := make(map[string]string)
	for name := range header {
		flat[name] = header.Get(name)
	}
	f := n.follow(path, flat)
	next := f.block
	if strings.Contains(test.header, lines) {
		next = f.line
	}
	want := func(all []string) {
		n.t.Helper()
		for _, want := range all {
			if diff := cmp.Diff(want, timeless(next())); diff != "" {
				n.t.Fatal(diff)
			}
		}
	}
	want(test.want)
	if test.then != nil {
		test.then(n)
	}
	want(test.after)
	if test.ends != nil {
		rest, err := io.ReadAll(f.r)
		if rest = keepAlives.ReplaceAll(rest, nil); err != nil && !errors.Is(err, test.ends) || err == nil && test.ends != io.EOF || len(rest) > 0 {
			n.t.Errorf("the stream ended with %v after %q, want %v", err, rest, test.ends)
		}
	}
}

var timeOfEnvelope = regexp.MustCompile(`"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)

func timeless(s string) string { return timeOfEnvelope.ReplaceAllString(s, `"time":"T"`) }

// line returns the next line that is not a keep-alive.
func (f *follower) line() string {
	f.t.Helper()
	for {
		line, err := f.r.ReadString('\n')
		if err != nil {
			f.t.Fatalf("the stream ended (%v) in the line %q", err, line)
		}
		if line != "\n" {
			return strings.TrimSuffix(line, "\n")
		}
	}
}

// TestComingBackToAClosedFeed: 204 stops an EventSource, which a clean end
// alone would not.
func TestComingBackToAClosedFeed(t *testing.T) {
	n := startSubscribed(t)
	for _, test := range []struct {
		path, cursor string
		status       int
	}{
		{"/v1/feeds/done/events", "1", http.StatusNoContent},
		{"/v1/feeds/done/events", "0", http.StatusOK},
		{"/v1/feeds/done/events?lastEventId=1", "", http.StatusNoContent},
		{"/v1/feeds/done/events", "2", http.StatusOK}, // which is ahead: a gap, then the end
		{"/v1/events?feed=done", "done=1", http.StatusNoContent},
		{"/v1/events?feed=done", "", http.StatusOK},
		{"/v1/events?feed=done,chat", "done=1,chat=3", http.StatusOK},
	} {
		for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
			r := n.request("GET", test.path, map[string]string{"Last-Event-ID": test.cursor, "Accept": accept}, "")
			r.Body.Close()
			if r.StatusCode != test.status {
				t.Errorf("%s, cursor %q: %s, want %d", test.path, test.cursor, r.Status, test.status)
			}
		}
	}
}

// TestGapFails: a client that needs the missing events is stopped.
func TestGapFails(t *testing.T) {
	n := startSubscribed(t)
	for path, detail := range map[string]string{
		"/v1/feeds/old/events?gap=fail&lastEventId=1":                "old",
		"/v1/feeds/old/events?gap=fail&lastEventId=6":                "ahead",
		"/v1/events?feed=chat,old&gap=fail&lastEventId=chat=1,old=1": "old",
	} {
		r, body := n.do("GET", path, map[string]string{"Accept": "text/event-stream"}, "")
		wantProblem(t, r, body, http.StatusGone, detail)
	}
}

// TestGapFailsLater: after the head, the status cannot change. The stream breaks off
// before the gap, and a client that comes back with its cursor gets the error.
func TestGapFailsLater(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, func(s feed.Store) feed.Store { return &forgetful{Store: s} })
	n.publish("chat", "a", 1)
	f := n.follow(events+"?gap=fail", nil)
	f.want(open("chat", 1, 1, 1))
	n.store.(*forgetful).forget.Store(true) // as a store does that was replaced by an older one
	rest, err := io.ReadAll(f.r)
	if !isBreak(err) || strings.Contains(string(rest), "gap") {
		t.Errorf("the stream went on with %q and ended with %v, want a break", rest, err)
	}
	r, body := n.do("GET", events+"?gap=fail", map[string]string{"Last-Event-ID": "1", "Accept": "text/event-stream"}, "")
	wantProblem(t, r, body, http.StatusGone, "ahead")
}

// forgetful is a store that a test can make lose all events.
type forgetful struct {
	feed.Store
	forget atomic.Bool
}

func (s *forgetful) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.Store.Bounds(ctx, feeds)
	for i := range all {
		if s.forget.Load() {
			all[i] = feed.Unwritten
		}
	}
	return all, err
}

func (s *forgetful) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	if s.forget.Load() {
		return feed.Page{Bounds: feed.Unwritten}, nil
	}
	return s.Store.Read(ctx, name, after, limit)
}

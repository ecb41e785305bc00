package server_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/server"
)

// of is an event of a stream of many feeds, as a block.
func of(feedName string, id int, data, cursor string) string {
	return "data: " + enveloped(feedName, id, "message", fmt.Sprintf("%q", data)) + "\nid: " + cursor + "\n"
}

func openMany(cursor string, feeds ...string) string {
	return "retry\n" + control("feed.open", `{"feeds":[`+strings.Join(feeds, ",")+`]}`, cursor)
}

func at(feedName string, cursor, first, last int) string {
	return fmt.Sprintf(`{"feed":%q,"cursor":"%d","first":%d,"last":%d}`, feedName, cursor, first, last)
}

func closedFeed(feedName string, last int, cursor string) string {
	return control("feed.closed", fmt.Sprintf(`{"feed":%q,"last":%d}`, feedName, last), cursor)
}

// manyContract lists the contract for several feeds on one connection, with the feeds
// of startSubscribed.
var manyContract = []streamCase{
	{"the id is the whole cursor, data is the envelope", "feed=chat&feed=old", "Last-Event-ID: chat=2,old=5",
		[]string{openMany("chat=2,old=5", at("chat", 2, 1, 3), at("old", 5, 3, 5)), of("chat", 3, "c", "chat=3,old=5")},
		func(n *node) { n.publish("old", "6", 6) }, []string{of("old", 6, "6", "chat=3,old=6")}, nil},
	{"feeds may stand in one parameter", "feed=chat,old", "Last-Event-ID: chat=3,old=4",
		[]string{openMany("chat=3,old=4", at("chat", 3, 1, 3), at("old", 4, 3, 5)), of("old", 5, "5", "chat=3,old=5")}, nil, nil, nil},
	{"a feed named twice is followed once", "feed=old,old&feed=old", "Last-Event-ID: old=4",
		[]string{openMany("old=4", at("old", 4, 3, 5)), of("old", 5, "5", "old=5")},
		func(n *node) { n.publish("old", "6", 6) }, []string{of("old", 6, "6", "old=6")}, nil},
	{"a feed that is not in the cursor starts at from", "feed=chat,old&from=-1", "Last-Event-ID: chat=3",
		[]string{openMany("chat=3,old=4", at("chat", 3, 1, 3), at("old", 4, 3, 5)), of("old", 5, "5", "chat=3,old=5")}, nil, nil, nil},
	{"from is now", "feed=chat,old", "",
		[]string{openMany("chat=3,old=5", at("chat", 3, 1, 3), at("old", 5, 3, 5))},
		func(n *node) { n.publish("old", "6", 6) }, []string{of("old", 6, "6", "chat=3,old=6")}, nil},
	{"one that is only in the cursor is ignored", "feed=old", "Last-Event-ID: chat=1,old=4,never=7",
		[]string{openMany("old=4", at("old", 4, 3, 5)), of("old", 5, "5", "old=5")}, nil, nil, nil},
	{"the cursor may come in the query", "feed=old&last_event_id=old=4", "",
		[]string{openMany("old=4", at("old", 4, 3, 5)), of("old", 5, "5", "old=5")}, nil, nil, nil},
	{"one never written to waits at 0", "feed=new,chat", "",
		[]string{openMany("new=0,chat=3", at("new", 0, 1, 0), at("chat", 3, 1, 3))},
		func(n *node) { n.publish("new", "x", 1) }, []string{of("new", 1, "x", "new=1,chat=3")}, nil},
	{"a gap names its feed and carries the whole cursor", "feed=chat,old", "Last-Event-ID: chat=3,old=0",
		[]string{openMany("chat=3,old=0", at("chat", 3, 1, 3), at("old", 0, 3, 5)),
			control("feed.gap", `{"feed":"old","after":"0","resumes":3,"reason":"trimmed"}`, "chat=3,old=2"),
			of("old", 3, "3", "chat=3,old=3"), of("old", 4, "4", "chat=3,old=4")}, nil, nil, nil},
	{"a closed feed is said, and the others go on", "feed=done,chat", "Last-Event-ID: done=1,chat=3",
		[]string{openMany("done=1,chat=3", at("done", 1, 1, 1), at("chat", 3, 1, 3)), closedFeed("done", 1, "done=1,chat=3")},
		say("", "d"), []string{of("chat", 4, "d", "done=1,chat=4")}, nil},
	{"the stream ends when all are closed and delivered", "feed=chat,done", "",
		[]string{openMany("chat=3,done=1", at("chat", 3, 1, 3), at("done", 1, 1, 1)), closedFeed("done", 1, "chat=3,done=1")},
		func(n *node) {
			n.post(exchange{events + "?close=true", "", "bye", 201, `{"feed":"chat","id":4}`, ""})
		},
		[]string{of("chat", 4, "bye", "chat=4,done=1"), closedFeed("chat", 4, "chat=4,done=1")}, io.EOF},
	{"control=live says when the history of all is through", "feed=new,chat&control=live", "",
		[]string{openMany("new=0,chat=3", at("new", 0, 1, 0), at("chat", 3, 1, 3)), control("feed.live", `{"cursor":"new=0,chat=3"}`, "")}, nil, nil, nil},
	{"an ephemeral event has no id", "feed=chat,old", "",
		[]string{openMany("chat=3,old=5", at("chat", 3, 1, 3), at("old", 5, 3, 5))},
		func(n *node) { n.post(exchange{events + "?ephemeral=true", "", "me", 202, "", ""}) },
		[]string{`data: {"feed":"chat","type":"message","time":"T","data":"me"}` + "\n"}, nil},
	{"as lines", "feed=chat,old", lines + "\nLast-Event-ID: chat=2,old=0",
		[]string{`{"type":"feed.open","cursor":"chat=2,old=0","data":{"feeds":[` + at("chat", 2, 1, 3) + "," + at("old", 0, 3, 5) + `]}}`}, nil, nil, nil},
}

var anyCursor = regexp.MustCompile(`(?m)^id: (chat=\d+,old=\d+)$`)

func TestManyContract(t *testing.T) { eachStore(t, testManyContract) }

func testManyContract(t *testing.T) { expectEach(t, manyContract, "/v1/events?") }

// TestManyHiddenCursors: a client does not miss the cursors of hidden events. The
// next cursor that it gets has them.
func TestManyHiddenCursors(t *testing.T) {
	n := startSubscribed(t)
	f := n.follow("/v1/events?feed=chat,old&types=t&from=start", nil)
	f.want(openMany("chat=0,old=2", at("chat", 0, 1, 3), at("old", 2, 3, 5)))
	seen := make(map[string]string)
	deadline := time.Now().Add(prompt)
	for (seen["chat"] != "3" || seen["old"] != "5") && time.Now().Before(deadline) {
		block := f.block()
		cursor := anyCursor.FindStringSubmatch(block)
		if cursor == nil {
			t.Fatalf("a block without the whole cursor: %q", block)
		}
		for part := range strings.SplitSeq(cursor[1], ",") {
			name, id, _ := strings.Cut(part, "=")
			seen[name] = id
		}
	}
	if diff := cmp.Diff(map[string]string{"chat": "3", "old": "5"}, seen); diff != "" {
		t.Error(diff)
	}
}

// TestManyLimits: the server refuses a subscription that could not be resumed.
func TestManyLimits(t *testing.T) {
	n := start(t, server.Options{}, nil)
	names := func(count, length int) string {
		var all []string
		for i := range count {
			all = append(all, fmt.Sprintf("%0*d", length, i))
		}
		return strings.Join(all, ",")
	}
	for _, test := range []struct {
		count, length, status int
		detail                string
	}{
		{100, 19, http.StatusOK, ""},
		{101, 3, http.StatusBadRequest, "more than 100 feeds"},
		{100, 20, http.StatusBadRequest, "4096"}, // 100 x (20 + = + 19 digits) and 99 commas are 4,099
		{14, 255, http.StatusOK, ""},
		{15, 255, http.StatusBadRequest, "4096"},
	} {
		r := n.request("GET", "/v1/events?feed="+names(test.count, test.length), nil, "")
		if test.status != http.StatusOK {
			body, _ := io.ReadAll(r.Body)
			wantProblem(t, r, string(body), test.status, test.detail)
		} else if r.StatusCode != http.StatusOK {
			t.Errorf("%d feeds of %d characters: %s", test.count, test.length, r.Status)
		}
		r.Body.Close()
	}
}

// TestManyDrain: the farewell carries the whole cursor.
func TestManyDrain(t *testing.T) {
	n := startSubscribed(t)
	f := n.follow("/v1/events?feed=chat,old", nil)
	f.block()
	n.Drain(within(t, prompt), 0)
	f.want("retry\n" + control("feed.cursor", `{"feed":"chat","cursor":"3"}`, "chat=3,old=5"))
}

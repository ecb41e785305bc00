package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

const (
	bare      = "/v1/feeds/chat/stream"
	tailIndex = "X-Workflow-Stream-Tail-Index"
)

// cursorAlone is a block that shows a cursor and nothing else.
func cursorAlone(id int) string { return fmt.Sprintf("id: %d\n", id) }

func openBare(id int) string { return "retry\n" + cursorAlone(id) }

// TestBareOnTheWire holds a bare stream to the contract byte for byte.
func TestBareOnTheWire(t *testing.T) {
	n := start(t, server.Options{Heartbeat: 50 * time.Millisecond}, nil)
	n.publish("chat", "old", 1)
	// Accept does not change the format.
	resp := n.request("GET", bare+"?lastEventId=1", map[string]string{"Accept": "application/json, application/x-ndjson"}, "")
	defer resp.Body.Close()
	for name, want := range map[string]string{
		"Content-Type":           "text/event-stream; charset=utf-8",
		"Cache-Control":          "no-store, no-transform",
		"X-Accel-Buffering":      "no",
		"X-Content-Type-Options": "nosniff",
		"Location":               bare,
		tailIndex:                "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if r, body := n.do("POST", events, map[string]string{"Event-Type": "part"}, "{\"text\":\"first line\nsecond line\"}"); r.StatusCode != 201 {
		t.Fatal(r.Status, body)
	}
	want := regexp.MustCompile("^retry: \\d{4}\nid: 1\n\n(:\n)*event: part\ndata: {\"text\":\"first line\ndata: second line\"}\nid: 2\n\n(:\n)+$")
	got := readUntil(t, resp.Body, func(s string) bool { return strings.HasSuffix(s, "id: 2\n\n:\n:\n") })
	if !want.MatchString(got) {
		t.Errorf("got %q, want %s", got, want)
	}
}

// bareContract lists the contract for bare streams, with the feeds of startSubscribed.
var bareContract = []streamCase{
	{"it starts with the oldest event", "chat/stream", "",
		[]string{openBare(0), event(1, "a"), "event: t\ndata: b\nid: 2\n", event(3, "c")}, say("", "d"), []string{event(4, "d")}, nil},
	{"the header wins", "chat/stream?lastEventId=0&startIndex=0&from=start", "Last-Event-ID: 2", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"then the query", "chat/stream?lastEventId=2&startIndex=0&from=start", "Last-Event-ID:", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"other spellings of it", "chat/stream?lastEventId=&last_event_id=2&startIndex=x", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"then startIndex", "chat/stream?startIndex=2&from=start", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"which may be from the end", "chat/stream?startIndex=-1&from=start", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"or more than there is", "old/stream?startIndex=-9", "", []string{openBare(2), event(3, "3"), event(4, "4"), event(5, "5")}, nil, nil, nil},
	{"then from", "chat/stream?startIndex=&from=-1", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"now, if it is asked for", "chat/stream?from=now", "", []string{openBare(3)}, say("", "d"), []string{event(4, "d")}, nil},
	{"from is never a gap", "old/stream", "", []string{openBare(2), event(3, "3")}, nil, nil, nil},
	{"what types hides moves the cursor", "chat/stream?types=t", "", []string{openBare(0), "event: t\ndata: b\nid: 2\n", cursorAlone(3)}, nil, nil, nil},
	{"envelope=true", "chat/stream?envelope=true&startIndex=2", "", []string{openBare(2), "data: " + enveloped("chat", 3, "message", `"c"`) + "\nid: 3\n"}, nil, nil, nil},
	{"lines and pages do not exist", "chat/stream?startIndex=2", "Accept: application/json, application/x-ndjson", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"what is not known is passed over", "chat/stream?startIndex=2&x=1&x=2&feed=old&workflow", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"gap=fail is what it does anyway", "chat/stream?startIndex=2&gap=fail", "", []string{openBare(2), event(3, "c")}, nil, nil, nil},
	{"an ephemeral event has no id", "chat/stream?from=now", "", []string{openBare(3)},
		func(n *node) { n.post(exchange{events + "?ephemeral=true", "", "me", 202, "", ""}) }, []string{"data: me\n"}, nil},
	{"a closed feed ends cleanly", "done/stream", "", []string{openBare(0), event(1, "x")}, nil, nil, io.EOF},
	{"at its end, too", "done/stream?from=now", "", []string{openBare(1)}, nil, nil, io.EOF},
	{"with the cursor that types has moved", "done/stream?types=t", "", []string{openBare(0), cursorAlone(1)}, nil, nil, io.EOF},
	{"closed=200 ends it without a 204", "done/stream?closed=200", "Last-Event-ID: 1", []string{openBare(1)}, nil, nil, io.EOF},
	{"closed=200 is for the end only", "done/stream?closed=200", "", []string{openBare(0), event(1, "x")}, nil, nil, io.EOF},
	{"closed=204 is not for an open feed", "chat/stream?closed=204&startIndex=3", "", []string{openBare(3)}, say("", "d"), []string{event(4, "d")}, nil},
	{"closed=204 is not for one that had events", "gone/stream?closed=204", "", []string{openBare(1)},
		func(n *node) { n.publish("gone", "x", 2) }, []string{event(2, "x")}, nil},
	{"a feed that is closed meanwhile", "chat/stream?from=now&closed=204", "", []string{openBare(3)},
		func(n *node) {
			n.post(exchange{events + "?close=true", "", "bye", 201, `{"feed":"chat","id":4}`, ""})
		}, []string{event(4, "bye")}, io.EOF},
	{"a feed that is closed without an event", "chat/stream?from=now", "", []string{openBare(3)},
		func(n *node) { n.post(exchange{"/v1/feeds/chat/close", "", "", 204, "", ""}) }, nil, io.EOF},
}

func TestBareContract(t *testing.T) { expectEach(t, bareContract, "/v1/feeds/") }

// TestBareStatus: a status replaces the control events that other streams have.
func TestBareStatus(t *testing.T) {
	n := startSubscribed(t)
	n.post(exchange{"/v1/feeds/shut/close", "", "", 204, "", ""})
	for _, test := range []struct {
		path, cursor string
		status       int
		detail       string
	}{
		{"done/stream", "1", 204, ""},
		{"done/stream?lastEventId=1", "", 204, ""},
		{"done/stream?startIndex=1", "", 204, ""},
		{"done/stream?closed=204", "", 204, ""},
		{"done/stream?closed=204&from=now", "", 204, ""},
		{"done/stream?closed=204", "0", 204, ""},
		{"done/stream?closed=204", "9", 204, ""}, // which would be a gap
		{"shut/stream?closed=204", "", 204, ""},
		{"new/stream?closed=204", "", 204, ""},
		{"new/stream?closed=204", "0", 204, ""},
		{"new/stream?closed=204", "7", 204, ""},
		{"new/stream?closed=204&from=now", "", 204, ""},
		{"new/stream?closed=204&startIndex=-3", "", 204, ""},
		{"old/stream", "1", 410, "the oldest event is 3"},
		{"old/stream", "0", 410, "the oldest event is 3"},
		{"old/stream", "6", 410, "ahead of the feed"},
		{"old/stream?startIndex=1", "", 410, "the oldest event is 3"},
		{"old/stream?startIndex=6", "", 410, "ahead of the feed"},
		{"old/stream?closed=204&lastEventId=1", "", 410, "the oldest event is 3"},
		{"done/stream?closed=200", "9", 410, "ahead of the feed"},
		{"new/stream?closed=200", "1", 410, "ahead of the feed"},
		{"chat/stream", "x", 400, "cursor"},
		{"chat/stream?startIndex=x", "", 400, "startIndex"},
		{"chat/stream?startIndex=--1", "", 400, "startIndex"},
		{"chat/stream?startIndex=%2B1", "", 400, "startIndex"},
		{"chat/stream?startIndex=1.5", "", 400, "startIndex"},
		{"chat/stream?startIndex=007", "", 400, "startIndex"},
		{"chat/stream?startIndex=-", "", 400, "startIndex"},
		{"chat/stream?startIndex=9223372036854775808", "", 400, "startIndex"},
		{"chat/stream?startIndex=-9223372036854775808", "", 400, "startIndex"},
		{"chat/stream?startIndex=1&startIndex=2", "", 400, "startIndex"},
		{"chat/stream?closed=410", "", 400, "closed is 204 or 200"},
		{"chat/stream?closed=204&closed=200", "", 400, "closed"},
		{"chat/stream?control=live", "", 400, "control"},
		{"chat/stream?control=", "", 400, "control"},
		{"chat/stream?control=x", "", 400, "control"},
		{"chat/stream?from=yesterday", "", 400, "from"},
		{"chat/stream?gap=hide", "", 400, "gap"},
		{"chat/stream?limit=10", "", 400, "limit"},
		{"chat/stream?types=a,,b", "", 400, "types"},
		{"chat/stream?heartbeat=often", "", 400, "heartbeat"},
		{"chat/stream?envelope=yes", "", 400, "envelope"},
		{"-chat/stream", "", 400, "feed name"},
		{"chat/stream/1", "", 404, "nothing"},
	} {
		for _, accept := range []string{"text/event-stream", "*/*", "application/json"} {
			t.Run(test.path+" "+test.cursor+" "+accept, func(t *testing.T) {
				r, body := n.head("GET", "/v1/feeds/"+test.path, map[string]string{"Last-Event-ID": test.cursor, "Accept": accept}, "")
				if test.status != 204 {
					wantProblem(t, r, body, test.status, test.detail)
				} else if r.StatusCode != 204 || body != "" {
					t.Errorf("%s %q", r.Status, body)
				}
			})
		}
	}
	r, body := n.do("POST", bare, nil, "x")
	wantProblem(t, r, body, 405, "POST")
	r, body = n.do("GET", "/v1/stream?feed=chat", nil, "")
	wantProblem(t, r, body, 404, "nothing")
}

// TestTailIndex: a client that starts at the end counts its events from the header, as
// from 0.
func TestTailIndex(t *testing.T) {
	n := startSubscribed(t)
	for _, test := range []struct{ path, want string }{
		{"chat/stream?startIndex=-2", "2"},
		{"chat/stream?startIndex=-0", "2"},
		{"old/stream?startIndex=-9", "4"},
		{"new/stream?startIndex=-1", "-1"},
		{"chat/stream?startIndex=2", ""},
		{"chat/stream?from=-2", ""},
		{"chat/stream?startIndex=-2&lastEventId=1", ""},
		{"chat/events?startIndex=-2", ""},
	} {
		r := n.request("GET", "/v1/feeds/"+test.path, nil, "")
		r.Body.Close()
		if got := r.Header.Get(tailIndex); r.StatusCode != 200 || got != test.want {
			t.Errorf("%s: %s, %q, want %q", test.path, r.Status, got, test.want)
		}
	}
}

// TestLocation: some clients come back to the Location, and put their own base in front
// of it. The cursor of the first request is too old by then.
func TestLocation(t *testing.T) {
	n := start(t, server.Options{Origins: []string{"https://a.example"}}, nil)
	long := strings.Repeat("x", 3000)
	for path, want := range map[string]string{
		events:               events,
		bare:                 bare,
		bare + "?":           bare,
		bare + "?from=start": bare + "?from=start",
		bare + "?lastEventId=0&from=now&lastEventID=&last_event_id=7&closed=200": bare + "?from=now&closed=200",
		bare + "?access_token=x&x=1":                               bare + "?x=1",
		bare + "?startIndex=0":                                     bare,
		bare + "?startIndex=-5":                                    bare + "?startIndex=-5",
		bare + "?types=a&startIndex=%2d5":                          bare + "?types=a&startIndex=%2d5",
		bare + "?&types=a&&types=b&x=/?":                           bare + "?types=a&types=b&x=/?",
		bare + "?last%45ventId=0&x=%0d%0aY:+1":                     bare + "?x=%0d%0aY:+1",
		bare + "?x=é":                                              bare + "?x=%C3%A9",
		"/v1/feeds/a%3Ab:c/stream":                                 "/v1/feeds/a%3Ab:c/stream",
		"/v1/events?feed=a&lastEventId=a=0":                        "", // it may name many feeds
		events + "?lastEventId=0&startIndex=-5":                    events + "?startIndex=-5",
		bare + "?types=" + strings.Repeat("x", 100) + "&x=" + long: "",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
				r := n.request(method, path, map[string]string{"Accept": accept, "Origin": "https://a.example"}, "")
				r.Body.Close()
				if got := r.Header.Get("Location"); r.StatusCode != 200 || got != want {
					t.Errorf("%s %s: %s, %q, want %q", method, path, r.Status, got, want)
				}
				for _, name := range []string{"Location", tailIndex} {
					if exposed := r.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, name) {
						t.Errorf("a page of another origin can read %s, and not %s", exposed, name)
					}
				}
			}
		}
	}
	r, _ := n.do("GET", events, map[string]string{"Accept": "application/json"}, "")
	if got := r.Header.Get("Location"); got != "" {
		t.Errorf("a page has the Location %s", got)
	}
}

// TestBareGapLater: the stream breaks off, and a client that comes back gets the status.
func TestBareGapLater(t *testing.T) {
	n := start(t, server.Options{}, func(s feed.Store) feed.Store { return &forgetful{Store: s} })
	n.publish("chat", "a", 1)
	f := n.follow(bare, nil)
	f.want(openBare(0), event(1, "a"))
	n.store.(*forgetful).forget.Store(true)
	rest, err := io.ReadAll(f.r)
	if !isBreak(err) || len(rest) > 0 {
		t.Errorf("the stream went on with %q and ended with %v, want a break", rest, err)
	}
	r, body := n.do("GET", bare, map[string]string{"Last-Event-ID": "1", "Accept": "text/event-stream"}, "")
	wantProblem(t, r, body, http.StatusGone, "ahead")
}

// TestBareEnds: the server ends a bare stream as any other, and shows the cursor.
func TestBareEnds(t *testing.T) {
	for name, test := range map[string]struct {
		options server.Options
		end     func(n *node)
	}{
		"drain":   {server.Options{}, func(n *node) { n.Drain(within(n.t, prompt), 0) }},
		"max_age": {server.Options{MaxAge: 100 * time.Millisecond}, func(*node) {}},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, test.options, nil)
			n.publish("chat", "a", 1)
			f := n.follow(bare+"?from=now", nil)
			f.want(openBare(1))
			test.end(n)
			f.want(openBare(1))
			if rest, err := io.ReadAll(f.r); !isBreak(err) || len(rest) > 0 {
				t.Errorf("the stream ended with %q and %v, want a break", rest, err)
			}
		})
	}
}

// TestBareTokenExpires: the stream ends cleanly, with the cursor if that is not known.
func TestBareTokenExpires(t *testing.T) {
	t.Parallel()
	n := brief(t, nil)
	n.put("chat", "a")
	bearer := n.wantUntilExpiry(map[string][]string{
		bare:              {openBare(0), event(1, "a")},
		bare + "?types=x": {openBare(0), cursorAlone(1)},
	})
	if r, _ := n.do("GET", bare, bearer, ""); r.StatusCode != 401 {
		t.Errorf("coming back with the same token: %s", r.Status)
	}
	if r, _ := n.do("GET", "/v1/feeds/chat/stream", nil, ""); r.StatusCode != 401 {
		t.Errorf("without a token: %s", r.Status)
	}
}

// TestBareFull: neither a lack of room nor a broken store stops an EventSource.
func TestBareFull(t *testing.T) {
	n := start(t, server.Options{SubscribersPerAddress: 1}, nil)
	n.follow(bare, nil).block()
	wantShed(t, n.url, bare)
	r, body := n.do("GET", bare, nil, "")
	wantProblem(t, r, body, http.StatusTooManyRequests, "its limit of subscribers")
	n = start(t, server.Options{}, func(s feed.Store) feed.Store { return faulty{s} })
	wantShed(t, n.url, bare)
}

// TestBareAway: bare streams wait for the store, too. Their status is 200 by then, so
// their end replaces 410 and 204.
func TestBareAway(t *testing.T) {
	n, store := startAway(t, server.Options{Heartbeat: 20 * time.Millisecond})
	n.publish("chat", "a", 1)
	n.publish("chat", "b", 2)
	n.finish("done", "x")
	if err := n.hub.Trim(t.Context(), "chat", 2); err != nil {
		t.Fatal(err)
	}
	n = startOn(t, shared{store}, server.Options{Heartbeat: 20 * time.Millisecond}) // which remembers nothing
	store.down.Store(true)
	wantShed(t, n.url, bare+"?startIndex=-1") // the head needs to know the end
	r, body := n.do("GET", bare, nil, "")
	wantProblem(t, r, body, 503, "store")
	follow := func(path string) *follower { return n.follow("/v1/feeds/"+path, eventStream) }
	oldest, gone := follow("chat/stream"), follow("chat/stream?startIndex=0")
	ended, none := follow("done/stream?closed=204"), follow("new/stream?closed=204")
	back, empty := follow("done/stream?startIndex=1"), follow("done/stream?startIndex=1&closed=200")
	if line, err := oldest.r.ReadString('\n'); err != nil || line != ":\n" {
		t.Fatalf("%q, %v; want a keep-alive", line, err)
	}
	store.down.Store(false)
	oldest.want(openBare(1), event(2, "b"))
	empty.want(openBare(1))
	for _, test := range []struct {
		f    *follower
		want error
	}{{gone, io.ErrUnexpectedEOF}, {ended, nil}, {none, nil}, {back, nil}, {empty, nil}} {
		if rest, err := io.ReadAll(test.f.r); !errors.Is(err, test.want) || len(keepAlives.ReplaceAll(rest, nil)) > 0 {
			t.Errorf("the stream ended with %q and %v, want %v", rest, err, test.want)
		}
	}
}

// stale is a store whose bounds are those of a moment before the first event.
type stale struct{ feed.RetentionStore }

func (stale) Bounds(_ context.Context, feeds []string) ([]feed.Bounds, error) {
	all := make([]feed.Bounds, len(feeds))
	for i := range all {
		all[i] = feed.Unwritten
	}
	return all, nil
}

// TestBareJustWritten: a client that asks whether there is anything, after the first
// event was acknowledged, must not be turned away by older news: it would not come back.
func TestBareJustWritten(t *testing.T) {
	n := startOn(t, stale{newKeeper(t)}, server.Options{})
	if r, _ := n.do("GET", bare+"?closed=204", nil, ""); r.StatusCode != 204 {
		t.Errorf("before the first event: %s", r.Status)
	}
	if _, err := n.store.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "chat", Data: "a"}}}}); err != nil {
		t.Fatal(err)
	}
	n.follow(bare+"?closed=204", nil).want(openBare(0))
}

func TestBareHead(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for path, status := range map[string]int{bare + "?closed=204&startIndex=-1": 200, bare + "?control=live": 400, "/v1/feeds/-/stream": 400} {
		r, body := n.do("HEAD", path, nil, "")
		if r.StatusCode != status || body != "" {
			t.Errorf("%s: %s %v %q", path, r.Status, r.Header, body)
		}
	}
}

// TestBareHTTP2: the stream is the same.
func TestBareHTTP2(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.finish("done", "x")
	secure := httptest.NewUnstartedServer(n.Server)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	resp, err := secure.Client().Get(secure.URL + "/v1/feeds/done/stream?startIndex=-1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.ProtoMajor != 2 || resp.Header.Get(tailIndex) != "0" ||
		!regexp.MustCompile(`^retry: \d+\nid: 0\n\ndata: x\nid: 1\n\n$`).Match(body) {
		t.Errorf("%s %v %q, %v", resp.Status, resp.Header, body, err)
	}
}

// bareReader reads a bare stream as the clients do that it is for: each block with data
// is an event, whatever its type.
type bareReader struct {
	data   []string
	cursor string // as in an EventSource; empty if there is none yet
}

// read reads a response as far as it goes, and returns how it ended.
func (b *bareReader) read(r io.Reader) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var data []string
	cursor := b.cursor
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); {
		case line == "\n":
			if data != nil {
				b.data = append(b.data, strings.Join(data, "\n"))
			}
			b.cursor, data = cursor, nil
		case name == "data":
			data = append(data, value)
		case name == "id":
			cursor = value
		}
	}
}

// TestBareCutAtEveryByte cuts a stream after each of its bytes. With what the client has
// when it comes back, it always gets the same.
func TestBareCutAtEveryByte(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	want := []string{"", " ", "one line", "two\nlines", "data: id: 7", "\n\n", "ünïcödé", "id: 99\n\nevent: feed.gap", "the end"}
	var b feed.Publication
	for i, data := range want {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: "chat", Data: data, Type: []string{"", "t"}[i%2]})
	}
	b.Feed, b.Close = "chat", true
	n.publishBatch(b)
	get := func(cursor string) io.Reader {
		conn := dial(t, n.url)
		if cursor != "" {
			cursor = "Last-Event-ID: " + cursor + "\r\n"
		}
		// The answer repeats the id, so all answers are of one length.
		fmt.Fprintf(conn, "GET %s?closed=200 HTTP/1.1\r\nHost: rejoin\r\nConnection: close\r\nX-Request-Id: cut\r\n%s\r\n", bare, cursor)
		return conn
	}
	whole, err := io.ReadAll(get(""))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		var client bareReader
		first := client.read(io.LimitReader(get(""), int64(cut)))
		if clean := cut == len(whole); clean != (first == nil) {
			t.Fatalf("cut after %d of %d bytes, it ended with %v", cut, len(whole), first)
		}
		if err := client.read(get(client.cursor)); err != nil {
			t.Fatalf("cut after %d bytes, then %v", cut, err)
		}
		if diff := cmp.Diff(want, client.data); diff != "" {
			t.Fatalf("cut after %d bytes: %s", cut, diff)
		}
	}
	t.Logf("%d cuts", len(whole)+1)
}

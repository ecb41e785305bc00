package server_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

const events = "/v1/feeds/chat/events"

// TestStreamOnTheWire checks a stream against the contract, byte for byte.
func TestStreamOnTheWire(t *testing.T) {
	n := start(t, server.Options{Heartbeat: 50 * time.Millisecond}, nil)
	for id := range feed.ID(41) {
		n.publish("chat", "old", id+1)
	}
	conn := dial(t, n.url)
	fmt.Fprintf(conn, "GET %s?lastEventId=41 HTTP/1.1\r\nHost: rejoin\r\n\r\n", events)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Content-Type":           "text/event-stream; charset=utf-8",
		"Cache-Control":          "no-store, no-transform",
		"X-Accel-Buffering":      "no",
		"X-Content-Type-Options": "nosniff",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if diff := cmp.Diff([]string{"chunked"}, resp.TransferEncoding); diff != "" {
		t.Error(diff)
	}
	if r, body := n.do("POST", events, map[string]string{"Event-Type": "message.edited"}, "{\"text\":\"first line\r\nsecond line\"}"); r.StatusCode != 201 {
		t.Fatal(r.Status, body)
	}
	want := regexp.MustCompile("^retry: \\d{4}\nevent: feed.open\ndata: {\"feed\":\"chat\",\"cursor\":\"41\",\"first\":1,\"last\":41}\nid: 41\n\n" +
		"(:\n)*event: message.edited\ndata: {\"text\":\"first line\ndata: second line\"}\nid: 42\n\n(:\n)+$")
	got := readUntil(t, resp.Body, func(s string) bool {
		_, after, found := strings.Cut(s, "id: 42\n\n")
		return found && strings.Count(after, ":\n") >= 2
	})
	if !want.MatchString(got) {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestRetryIsSpread(t *testing.T) {
	n := start(t, server.Options{}, nil)
	seen := map[int]bool{}
	for range 20 {
		f := n.follow(events, nil)
		line, err := f.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		ms, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(line, "retry: "), "\n"))
		if err != nil || ms < 1000 || ms > 3000 {
			t.Errorf("%q: want 1000 to 3000 ms", line)
		}
		seen[ms] = true
		f.close()
	}
	if len(seen) < 5 {
		t.Errorf("20 streams were told to come back at only %d different times", len(seen))
	}
}

// TestQuietClient: a client that was cut before it saw any event must not lose the
// events that were published while it was away.
func TestQuietClient(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "before", 1)
	f := n.follow(events, nil)
	f.want(open("chat", 1, 1, 1))
	f.close()
	n.publish("chat", "a", 2)
	n.publish("chat", "b", 3)
	n.publish("chat", "c", 4)
	f = n.follow(events, map[string]string{"Last-Event-ID": "1"})
	f.want(open("chat", 1, 1, 4), event(2, "a"), event(3, "b"), event(4, "c"))
	n.publish("chat", "d", 5)
	f.want(event(5, "d"))
}

func TestWhereAStreamStarts(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "a", 1)
	n.publish("chat", "b", 2)
	_, body := n.do("POST", events, nil, "c")
	at := regexp.MustCompile(`"time":"([^"]+)"`).FindStringSubmatch(body)[1]
	a, b, c := event(1, "a"), event(2, "b"), event(3, "c")
	header := func(cursor string) map[string]string { return map[string]string{"Last-Event-ID": cursor} }
	for _, test := range []struct {
		query  string
		header map[string]string
		want   []string
	}{
		{"", nil, []string{open("chat", 3, 1, 3)}},
		{"?from=now", nil, []string{open("chat", 3, 1, 3)}},
		{"?from=start", nil, []string{open("chat", 0, 1, 3), a, b, c}},
		{"?from=-2", nil, []string{open("chat", 1, 1, 3), b, c}},
		{"?from=-0", nil, []string{open("chat", 3, 1, 3)}},
		{"?from=-1000000", nil, []string{open("chat", 0, 1, 3), a, b, c}},
		{"?from=2000-01-01T00:00:00Z", nil, []string{open("chat", 0, 1, 3), a, b, c}},
		{"?from=2100-01-01T00:00:00.5%2B02:00", nil, []string{open("chat", 3, 1, 3)}},
		{"?lastEventId=2", nil, []string{open("chat", 2, 1, 3), c}},
		{"?lastEventID=2", nil, []string{open("chat", 2, 1, 3), c}},
		{"?last_event_id=2", nil, []string{open("chat", 2, 1, 3), c}},
		{"?last_event_id=0", nil, []string{open("chat", 0, 1, 3), a, b, c}},
		{"?lastEventId=&from=-1", nil, []string{open("chat", 2, 1, 3), c}},
		{"?from=start&lastEventId=2", nil, []string{open("chat", 2, 1, 3), c}},
		{"?lastEventId=0&from=start", header("2"), []string{open("chat", 2, 1, 3), c}},
		{"?lastEventId=2", header(""), []string{open("chat", 2, 1, 3), c}},
		{"?from=" + at, nil, nil}, // see below
		// A cursor that the feed has never reached: its store was replaced.
		{"", header("7"), []string{open("chat", 7, 1, 3),
			"event: feed.gap\ndata: {\"feed\":\"chat\",\"after\":\"7\",\"resumes\":4,\"reason\":\"ahead\"}\nid: 3\n"}},
	} {
		t.Run(test.query+test.header["Last-Event-ID"], func(t *testing.T) {
			f := n.follow(events+test.query, test.header)
			if test.want == nil {
				// The events may all have the same millisecond, but c is in any such
				// stream.
				for f.block() != c {
				}
				return
			}
			f.want(test.want...)
		})
	}
	// After a gap, a stream goes on with new events.
	f := n.follow(events, header("9"))
	n.publish("chat", "d", 4)
	f.want(open("chat", 9, 1, 3), "event: feed.gap\ndata: {\"feed\":\"chat\",\"after\":\"9\",\"resumes\":4,\"reason\":\"ahead\"}\nid: 3\n", event(4, "d"))
}

func TestFeedNeverWrittenTo(t *testing.T) {
	n := start(t, server.Options{}, nil)
	f := n.follow(events+"?from=start", nil)
	f.want(open("chat", 0, 1, 0))
	n.publish("chat", "a", 1)
	f.want(event(1, "a"))
}

// TestBadSubscribe: each of these has to stop a client, with a reason.
func TestBadSubscribe(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for _, test := range []struct {
		path, cursor string
		status       int
		detail       string
	}{
		{events, "abc", 400, "cursor"},
		{events, "-1", 400, "cursor"},
		{events, "+1", 400, "cursor"},
		{events, "007", 400, "cursor"},
		{events, "1 2", 400, "cursor"},
		{events, "9223372036854775808", 400, "cursor"},
		{events, "18446744073709551616", 400, "cursor"},
		{events, strings.Repeat("9", 20<<10), 400, "cursor"},
		{events, "٤٢", 400, "cursor"},
		{events + "?lastEventId=abc", "", 400, "cursor"},
		{events + "?last_event_id=%31%00", "", 400, "cursor"},
		{events + "?from=yesterday", "", 400, "from"},
		{events + "?from=--1", "", 400, "from"},
		{events + "?from=2026-01-31", "", 400, "from"},
		{events + "?heartbeat=often", "", 400, "heartbeat"},
		{events + "?heartbeat=-1s", "", 400, "heartbeat"},
		{events + "?from=%zz", "", 400, "query"},
		{"/v1/feeds/-chat/events", "", 400, "feed name"},
		{"/v1/feeds/a%2Fb/events", "", 400, "feed name"},
		{"/v1/feeds/%2541/events", "", 400, "feed name"}, // decoded once, it is "%41", not "A"
		{"/v1/feeds/" + strings.Repeat("x", 256) + "/events", "", 400, "feed name"},
		{events + "?types=a,,b", "", 400, "types"},
		{events + "?types=feed.open", "", 400, "types"},
		{events + "?types=a%0Ab", "", 400, "types"},
		{events + "?envelope=yes", "", 400, "envelope"},
		{events + "?control=life", "", 400, "control"},
		{events + "?gap=hide", "", 400, "gap"},
		{events + "?limit=10", "", 400, "limit"},
		{"/v1/events", "", 400, "feed"},
		{"/v1/events?feed=", "", 400, "feed name"},
		{"/v1/events?feed=a,-b", "", 400, "feed name"},
		{"/v1/events?feed=a", "42", 400, "chat=42,news=7"},
		{"/v1/events?feed=a", "a=042", 400, "for a"},
		{"/v1/events?feed=a", "a=1,a=2", 400, "twice"},
		{"/v1/events?feed=a", "a=1,", 400, "chat=42,news=7"},
		{"/v1/events?feed=a", "a=1," + strings.Repeat("b", 4096) + "=1", 400, "4096"},
		{"/v1/nothing", "", 404, "nothing"},
	} {
		t.Run(fmt.Sprintf("%.60s %.20s", test.path, test.cursor), func(t *testing.T) {
			r, body := n.do("GET", test.path, map[string]string{"Last-Event-ID": test.cursor}, "")
			wantProblem(t, r, body, test.status, test.detail)
		})
	}
	r, body := n.do("GET", events, map[string]string{"Accept": "application/json"}, "")
	if r.StatusCode != 200 {
		t.Error(r.Status, body)
	}
	r, body = n.do("GET", "/v1/events?feed=a", map[string]string{"Accept": "application/json"}, "")
	wantProblem(t, r, body, 406, "stream")
	r, body = n.do("PUT", events, nil, "")
	wantProblem(t, r, body, 405, "PUT")
	if diff := cmp.Diff([]string{"GET", "HEAD", "POST", "DELETE"}, r.Header.Values("Allow")); diff != "" {
		t.Error(diff)
	}
}

func TestNamesAreUnescapedOnce(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat%3A42", "a", 1)
	f := n.follow("/v1/feeds/chat:42/events?from=start", nil)
	f.want(open("chat:42", 0, 1, 1), event(1, "a"))
}

func TestHead(t *testing.T) {
	n := start(t, server.Options{}, nil)
	r, body := n.do("HEAD", events, nil, "")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" || body != "" {
		t.Errorf("%s %v %q", r.Status, r.Header, body)
	}
}

// TestHTTP10 is for old proxies: no chunks, the connection's end is the end.
func TestHTTP10(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "a", 1)
	conn := dial(t, n.url)
	fmt.Fprintf(conn, "GET %s?from=start HTTP/1.0\r\n\r\n", events)
	got := readUntil(t, conn, func(s string) bool { return strings.Contains(s, "data: a\nid: 1\n\n") })
	if !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") || strings.Contains(got, "chunked") {
		t.Errorf("got %q", got)
	}
}

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	_, address, _ := strings.Cut(url, "://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(url, "https:") {
		conn = tls.Client(conn, anyCertificate)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(prompt)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readUntil reads until what was read satisfies done.
func readUntil(t *testing.T, r io.Reader, done func(string) bool) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !done(string(got)) {
		n, err := r.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
	}
	return string(got)
}

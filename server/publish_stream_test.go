package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

const mediaSSE = "Content-Type: text/event-stream"

// streamAnswer is the answer to a published stream: that all is stored, or a problem.
type streamAnswer struct {
	Status                  int `json:"-"`
	ETag                    string
	Feed                    string
	First, Last             feed.ID
	Events, Replayed, Line  int
	Title, Detail, Stored   string
	HTTPStatus              int    `json:"status"`
	WWWAuthenticate, Header string `json:"-"`
}

// send begins to publish a stream over a connection of its own. The header lines come
// after those of a chunked request.
func (n *node) send(feedName, query string, header ...string) *sender {
	n.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	return newSender(n.t, conn, feedName, query, header...)
}

func newSender(t *testing.T, conn net.Conn, feedName, query string, header ...string) *sender {
	t.Helper()
	s := &sender{t, conn, bufio.NewReader(conn)}
	s.raw(fmt.Sprintf("POST /v1/feeds/%s/events%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n%s\r\n\r\n",
		feedName, query, strings.Join(append([]string{mediaSSE}, header...), "\r\n")))
	return s
}

// sender is a request whose body is sent bit by bit.
type sender struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (s *sender) raw(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.t.Fatal(err)
	}
}

// chunk sends a part of the body.
func (s *sender) chunk(text string) { s.raw(fmt.Sprintf("%x\r\n%s\r\n", len(text), text)) }

// end ends the body.
func (s *sender) end() streamAnswer { s.raw("0\r\n\r\n"); return s.answer() }

// answer reads the answer.
func (s *sender) answer() streamAnswer {
	s.t.Helper()
	r, err := http.ReadResponse(s.r, nil)
	if err != nil {
		s.t.Fatalf("no answer: %v", err)
	}
	defer r.Body.Close()
	return readStreamAnswer(s.t, r)
}

func readStreamAnswer(t *testing.T, r *http.Response) (a streamAnswer) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", r.Status, body, err)
	}
	a.Status, a.ETag, a.WWWAuthenticate = r.StatusCode, r.Header.Get("ETag"), r.Header.Get("WWW-Authenticate")
	return a
}

// kept returns the feed's events, as type and data with a colon.
func (n *node) kept(feedName string) (all []string, closed bool) {
	n.t.Helper()
	page, err := n.hub.Read(context.Background(), feedName, 0, feed.Limit{Events: 100_000, Bytes: 1 << 30})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range page.Events {
		all = append(all, e.Type+":"+e.Data)
	}
	return all, page.Closed
}

func (n *node) wantStored(feedName string, want ...string) {
	n.t.Helper()
	got, _ := n.kept(feedName)
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("feed %s: - want, + got: %s", feedName, diff)
	}
}

func (n *node) awaitStored(feedName string, events int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%d events in %s", events, feedName), func() bool {
		all, _ := n.kept(feedName)
		return len(all) >= events
	})
}

// TestPublishStreamBodies: what each body becomes.
func TestPublishStreamBodies(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{EventBytes: 100}, nil)
	const sse, lines = "text/event-stream", "application/x-ndjson"
	for i, test := range []struct {
		media, query, body string
		want               []string
		status, line       int
		detail             string
	}{
		{sse, "", "data: a\n\n", []string{":a"}, 201, 0, ""},
		{sse, "", "event: t\ndata: a\nid: 7\nretry: 5\ndata:  b\ndata\n\n: x\n\nid: 1\n\nevent: u\n\ndata:\n\n", []string{"t:a\n b\n", ":"}, 201, 0, ""},
		{sse, "", "data: a\r\n\r\ndata: b\r\rdata: c\n\r\ndata: d\r\n\ndata: e", []string{":a", ":b", ":c", ":d", ":e"}, 201, 0, ""},
		{sse, "", "\uFEFFdata: a\n\n\uFEFFdata: b\n\n", []string{":a"}, 201, 0, ""},
		{sse, "", "data: {\"a\":1}\n\nnothing: x\ndata: é\n\n", []string{":{\"a\":1}", ":é"}, 201, 0, ""},
		{sse, "?type=t", "data: a\n\nevent: u\ndata: b\n\nevent: message\ndata: c\n\nevent\ndata: d\n\n", []string{"t:a", "u:b", ":c", "t:d"}, 201, 0, ""},
		{sse, "", "", nil, 201, 0, ""},
		{sse, "", ": only a comment\n\n", nil, 201, 0, ""},
		{sse, "", "hello", nil, 400, 1, "data:"},
		{sse, "", "data: a\n\ndata: b\n\ndata: \xff\n\ndata: d\n\n", []string{":a", ":b"}, 400, 5, "UTF-8"},
		{sse, "", "data: a\n\ndata: b\n\nx\ndata: c\x00\n\ndata: d\n\n", []string{":a", ":b"}, 400, 6, "NUL"},
		{sse, "", "data: a\n\nevent: feed.x\ndata: b\n\n", []string{":a"}, 400, 3, "feed."},
		{sse, "", "data: a\n\ndata: " + strings.Repeat("x", 101) + "\n\n", []string{":a"}, 413, 3, "bytes"},
		{sse, "", "data: a\n\ndata: " + strings.Repeat("x", 60) + "\ndata: " + strings.Repeat("x", 60) + "\n\n", []string{":a"}, 413, 3, "100 bytes"},
		{sse, "", "data: a\n\n:" + strings.Repeat("x", 200), []string{":a"}, 413, 3, "bytes"},
		{sse, "?stream=true", "data: a\n\n", []string{":a"}, 201, 0, ""},
		{lines, "?stream=true", "{\"data\":\"a\"}\n\n{\"type\":\"t\",\"data\":{\"b\":1}}\r\n{\"data\":\"\\u00e9\"}", []string{":a", "t:{\"b\":1}", ":é"}, 201, 0, ""},
		{lines, "?stream=true&type=t", "{\"data\":1}\n{\"type\":\"u\",\"data\":2}\n", []string{"t:1", "u:2"}, 201, 0, ""},
		{lines, "?stream=true", "{\"data\":1}\n{\"data\":2,\"feed\":\"chat\"}\n{\"data\":3}\n", []string{":1"}, 400, 2, "address"},
		{lines, "?stream=true", "{\"data\":1}\n{\"data\":\"" + strings.Repeat("\\u0041", 300) + "\"}\n", []string{":1"}, 413, 2, ""},
		{lines, "?stream=true", "{\"data\":1}\n{\"data\"", []string{":1"}, 400, 2, "JSON"},
		{lines, "?stream=false", "{\"data\":1}\n{\"data\"", nil, 400, 0, "line 2"},
		{sse, "?ephemeral=true", "data: a\n\n", nil, 400, 0, "ephemeral"},
		{"text/plain", "?stream=true", "data: a\n\n", nil, 400, 0, "stream=true"},
	} {
		name := "body-" + strconv.Itoa(i)
		r := n.request("POST", "/v1/feeds/"+name+"/events"+test.query, map[string]string{"Content-Type": test.media}, test.body)
		got := readStreamAnswer(t, r)
		r.Body.Close()
		if got.Status != test.status || got.Line != test.line || !strings.Contains(got.Detail, test.detail) || got.Events != len(test.want) {
			t.Errorf("%q: got %+v, want %d and line %d", test.body, got, test.status, test.line)
		}
		if last := feed.ID(len(test.want)); test.status == 201 && (got.Last != last || last > 0 && (got.First != 1 || got.ETag != fmt.Sprintf("%q", last.String()))) {
			t.Errorf("%q: got %+v, want up to %d", test.body, got, last)
		}
		n.wantStored(name, test.want...)
	}
}

// TestPublishStreamRefusals: requests for streams that cannot be.
func TestPublishStreamRefusals(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	for _, test := range []struct {
		path, key string
		status    int
	}{
		{"/v1/feeds/chat/events", strings.Repeat("k", 241), 400},
		{"/v1/feeds/chat/events", strings.Repeat("k", 240), 201},
		{"/v1/events", "", 415},
		{"/v1/feeds/chat/events?stream=maybe", "", 400},
	} {
		header := map[string]string{"Content-Type": "text/event-stream"}
		if test.key != "" {
			header["Idempotency-Key"] = test.key
		}
		if r, body := n.do("POST", test.path, header, "data: a\n\n"); r.StatusCode != test.status {
			t.Errorf("%+v: %s %s", test, r.Status, body)
		}
	}
	// What came before an event that the publisher refuses is stored, and nothing after it.
	broken := n.send("breaks", "")
	broken.chunk("data: a\n\ndata: b\n\n" + strings.Repeat("data\n", 10_000) + "\ndata: d\n\n")
	if got := broken.answer(); got.Status != 413 || got.Events != 2 || got.Line != 5 {
		t.Errorf("too many line breaks: %+v", got)
	}
	n.wantStored("breaks", ":a", ":b")
	if r, body := n.do("POST", "/v1/events?stream=true", map[string]string{"Content-Type": "application/x-ndjson"}, `{"feed":"a","data":1}`); r.StatusCode != 400 {
		t.Errorf("a stream for many feeds: %s %s", r.Status, body)
	}
}

// TestPublishStreamArrives: an event is there as soon as its empty line is, and not
// before.
func TestPublishStreamArrives(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{PublishIdle: time.Hour}, nil)
	f := n.follow("/v1/feeds/chat/events", nil)
	f.want(open("chat", 0, 1, 0))
	s := n.send("chat", "")
	for i, part := range strings.SplitAfter("data: a\n\ndata: b\r\rdata: c\r\n\r\n", "") {
		s.chunk(part)
		if id := map[int]int{8: 1, 17: 2, 28: 3}[i]; id > 0 {
			f.want(event(id, string("abc"[id-1])))
		}
	}
	if got := s.end(); got.Status != 201 || got.Events != 3 {
		t.Errorf("%+v", got)
	}
}

// TestPublishStreamBreaksOff: at every byte of a stream, what is complete is stored, no
// part of an event is, and the feed stays open.
func TestPublishStreamBreaksOff(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	const body = "event: t\ndata: a\ndata: b\n\ndata: c\r\n\r\n"
	complete := func(cut int) (want []string) {
		if cut >= len("event: t\ndata: a\ndata: b\n\n") {
			want = append(want, "t:a\nb")
		}
		if cut >= len(body)-1 { // the CR ends the line
			want = append(want, ":c")
		}
		return want
	}
	for _, chunked := range []bool{true, false} {
		for cut := range len(body) + 1 {
			name := fmt.Sprintf("cut-%t-%d", chunked, cut)
			var s *sender
			if chunked {
				if s = n.send(name, "?close=true"); cut > 0 {
					s.chunk(body[:cut])
				}
			} else {
				if cut == len(body) {
					continue // it is whole
				}
				conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				s = &sender{t, conn, bufio.NewReader(conn)}
				s.raw(fmt.Sprintf("POST /v1/feeds/%s/events?close=true HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n%s", name, mediaSSE, len(body), body[:cut]))
			}
			_ = s.conn.(*net.TCPConn).CloseWrite()
			if got := s.answer(); got.Status != 400 || got.Events != len(complete(cut)) {
				t.Errorf("%s: %+v", name, got)
			}
			s.conn.Close()
			n.wantStored(name, complete(cut)...)
			if _, closed := n.kept(name); closed {
				t.Errorf("%s: the feed is closed", name)
			}
		}
	}
	whole := n.send("whole", "?close=true")
	whole.chunk(body)
	if got := whole.end(); got.Status != 201 || got.Events != 2 {
		t.Errorf("whole: %+v", got)
	}
	if _, closed := n.kept("whole"); !closed {
		t.Error("a body that has ended has not closed its feed")
	}
}

// TestPublishStreamHTTP2: a stream that the client resets, one that ends, and one that is
// stopped.
func TestPublishStreamHTTP2(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	secure := httptest.NewUnstartedServer(n.Server)
	secure.EnableHTTP2 = true
	secure.Config.ConnContext = server.WithConn
	secure.StartTLS()
	defer secure.Close()
	begin := func(ctx context.Context, name string) (*io.PipeWriter, <-chan *http.Response) {
		body, to := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, "POST", secure.URL+"/v1/feeds/"+name+"/events?close=true", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/event-stream")
		answers := make(chan *http.Response, 1)
		go func() {
			resp, err := secure.Client().Do(r)
			if err != nil {
				resp = nil
			}
			answers <- resp
		}()
		return to, answers
	}
	write := func(to io.Writer, text string) { // a refused body takes no more
		_, _ = io.WriteString(to, text)
	}

	ctx, cancel := context.WithCancel(t.Context())
	to, answers := begin(ctx, "reset")
	write(to, "data: a\n\ndata: b")
	n.awaitStored("reset", 1)
	cancel()
	<-answers
	eventually(t, "the request ends", func() bool { return n.publisher.Waiting() == 0 })
	n.wantStored("reset", ":a")
	if _, closed := n.kept("reset"); closed {
		t.Error("a reset has closed the feed")
	}

	to, answers = begin(t.Context(), "whole")
	write(to, "data: a\n\n")
	n.awaitStored("whole", 1)
	write(to, "data: b")
	to.Close()
	resp := <-answers
	if resp == nil || resp.ProtoMajor != 2 {
		t.Fatalf("got %v", resp)
	}
	if got := readStreamAnswer(t, resp); got.Status != 201 || got.Events != 2 {
		t.Errorf("whole: %+v", got)
	}
	resp.Body.Close()

	to, answers = begin(t.Context(), "stopped")
	write(to, "data: a\n\n")
	n.awaitStored("stopped", 1)
	n.do("POST", "/v1/feeds/stopped/close", nil, "")
	if resp = <-answers; resp == nil {
		t.Fatal("a stopped stream got no answer")
	}
	if got := readStreamAnswer(t, resp); got.Status != 409 || got.Events != 1 {
		t.Errorf("stopped: %+v", got)
	}
	resp.Body.Close()
	to.Close()
}

// TestPublishStreamSilence: a body that trickles goes on for as long as it likes, one
// that is silent is cut.
func TestPublishStreamSilence(t *testing.T) {
	t.Parallel()
	for idle := range longer(t, 500*time.Millisecond) {
		if trickle(t, idle) {
			break
		}
	}
}

// trickle reports false if the body that trickles was cut: the machine may have been
// silent for that long.
func trickle(t *testing.T, idle time.Duration) bool {
	n := start(t, server.Options{PublishIdle: idle}, nil)
	silent := n.send("silent", "")
	silent.chunk("data: a\n\ndata: b")
	trickle := n.send("trickle", "")
	for began, i := time.Now(), 0; time.Since(began) < 3*idle; i++ {
		if _, err := fmt.Fprintf(trickle.conn, "1\r\n%c\r\n", "data: a\n\n"[i%9]); err != nil {
			return false
		}
		time.Sleep(idle / 10)
	}
	if _, err := io.WriteString(trickle.conn, "0\r\n\r\n"); err != nil {
		return false
	}
	resp, err := http.ReadResponse(trickle.r, nil)
	if err != nil || resp.StatusCode == http.StatusRequestTimeout {
		return false
	}
	if got := readStreamAnswer(t, resp); got.Status != 201 {
		t.Errorf("the trickle: %+v", got)
	}
	if got := silent.answer(); got.Status != 408 || got.Events != 1 || !strings.Contains(got.Detail, idle.String()) {
		t.Errorf("the silent one: %+v", got)
	}
	if _, err := silent.r.ReadByte(); err == nil {
		t.Error("the connection of the silent one stays")
	}
	n.wantStored("silent", ":a")
	return true
}

// TestPublishStreamClosed: a close is answered in mid-body, while the producer says
// nothing.
func TestPublishStreamClosed(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{PublishIdle: time.Hour}, nil)
	post := func(path string) {
		if r, body := n.do("POST", path, nil, ""); r.StatusCode != 204 {
			t.Fatalf("%s %s", r.Status, body)
		}
	}
	s, keyed, unwritten := n.send("chat", ""), n.send("chat", "", "Idempotency-Key: k"), n.send("new", "", "Idempotency-Key: k")
	s.chunk("data: a\n\n")
	keyed.chunk("data: b\n\ndata: c")
	n.awaitStored("chat", 2)
	post("/v1/feeds/chat/close")
	began := time.Now()
	for _, one := range []*sender{s, keyed} {
		if got := one.answer(); got.Status != 409 || got.Events != 1 {
			t.Errorf("%+v", got)
		}
	}
	t.Logf("answered %v after the close", time.Since(began))
	post("/v1/feeds/new/close")
	if got := unwritten.answer(); got.Status != 409 || got.Events != 0 {
		t.Errorf("nothing sent: %+v", got)
	}
	if got := n.send("chat", "").answer(); got.Status != 409 {
		t.Errorf("closed before: %+v", got)
	}
	// What the closed feed has can be sent again.
	again := n.send("chat", "?close=true", "Idempotency-Key: k")
	again.chunk("data: b\n\n")
	if got := again.end(); got.Status != 201 || got.Events != 1 || got.Replayed != 1 {
		t.Errorf("repeated: %+v", got)
	}
	again = n.send("chat", "", "Idempotency-Key: k")
	again.chunk("data: b\n\ndata: more\n\n")
	if got := again.answer(); got.Status != 409 || got.Events != 1 || got.Line != 3 {
		t.Errorf("repeated, and more: %+v", got)
	}
}

// TestPublishStreamExclusive: with If-Match, nothing comes in between.
func TestPublishStreamExclusive(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	n.publish("chat", "0", 1)
	if got := n.send("chat", "", `If-Match: "1"`).end(); got.Status != 201 || got.Events != 0 {
		t.Errorf("nothing: %+v", got)
	}
	s := n.send("chat", "", `If-Match: "1"`)
	s.chunk("data: a\n\ndata: b\n\n")
	n.awaitStored("chat", 3)
	s.chunk("data: c\n\n")
	n.awaitStored("chat", 4)
	n.publish("chat", "other", 5)
	s.chunk("data: d\n\ndata: e\n\n")
	if got := s.answer(); got.Status != 412 || got.Events != 3 || got.Line != 7 || got.ETag != `"5"` {
		t.Errorf("%+v", got)
	}
	late := n.send("chat", "", `If-Match: "4"`)
	late.chunk("data: x\n\n")
	if got := late.answer(); got.Status != 412 || got.Events != 0 || got.Line != 1 {
		t.Errorf("%+v", got)
	}
	n.wantStored("chat", ":0", ":a", ":b", ":c", ":other")

	// With a key too, the chain goes on behind what is repeated.
	const body = "data: 1\n\ndata: 2\n\n"
	first := n.send("chat", "", `If-Match: "5"`, "Idempotency-Key: k")
	first.chunk(body)
	if got := first.end(); got.Status != 201 || got.Last != 7 {
		t.Fatalf("%+v", got)
	}
	second := n.send("chat", "?close=true", `If-Match: "5"`, "Idempotency-Key: k")
	second.chunk(body + "data: 3\n\n")
	if got := second.end(); got.Status != 201 || got.First != 6 || got.Last != 8 || got.Events != 3 || got.Replayed != 2 {
		t.Errorf("%+v", got)
	}
	n.wantStored("chat", ":0", ":a", ":b", ":c", ":other", ":1", ":2", ":3")
}

// TestPublishStreamRepeated: a stream that was cut behind each event, and sent again,
// stores what was missing.
func TestPublishStreamRepeated(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	const events = 5
	body := func(upTo int) (body string) {
		for i := range upTo {
			body += fmt.Sprintf("data: %d\n\n", i)
		}
		return body
	}
	for cut := range events + 1 {
		name := "chat-" + strconv.Itoa(cut)
		s := n.send(name, "?close=true", "Idempotency-Key: k")
		if cut > 0 {
			s.chunk(body(cut) + "data: part")
		}
		n.awaitStored(name, cut)
		s.conn.Close()
		for round := range 2 {
			s = n.send(name, "?close=true", "Idempotency-Key: k")
			s.chunk(body(events))
			replayed := []int{cut, events}[round]
			if got := s.end(); got.Status != 201 || got.First != 1 || got.Last != events || got.Events != events || got.Replayed != replayed {
				t.Errorf("cut behind %d, round %d: %+v", cut, round, got)
			}
		}
		n.wantStored(name, ":0", ":1", ":2", ":3", ":4")
		s = n.send(name, "", "Idempotency-Key: k")
		s.chunk("data: 0\n\ndata: other\n\ndata: 2\n\n")
		if got := s.answer(); got.Status != 422 || got.Events != 1 || got.Line != 3 {
			t.Errorf("another stream: %+v", got)
		}
	}
}

// TestPublishStreamAccess: a stream ends with its token, and a token that may only
// close does just that.
func TestPublishStreamAccess(t *testing.T) {
	t.Parallel()
	n := guarded(t, auth.Options{Key: secret}, server.Options{PublishIdle: time.Hour})
	for lifetime := range longer(t, 2*time.Second) {
		s := n.send("chat", "", "Authorization: "+bearerFor(t, lifetime)["Authorization"])
		s.chunk("data: a\n\ndata: b")
		got := s.answer()
		if got.Events == 0 && got.Status == 401 {
			continue // it has expired before the first event
		}
		if got.Status != 401 || got.Events != 1 || got.WWWAuthenticate != `Bearer error="invalid_token"` {
			t.Errorf("%+v", got)
		}
		break
	}
	n.wantStored("chat", ":a")

	stop := bearer(tokenFor(t, auth.Rights{Close: []string{"chat", "ai:*"}}))
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/v1/feeds/chat/events", 403},
		{"POST", "/v1/feeds/chat/events?close=true", 403},
		{"GET", "/v1/feeds/chat", 403},
		{"DELETE", "/v1/feeds/chat", 403},
		{"POST", "/v1/feeds/other/close", 403},
		{"POST", "/v1/feeds/chat/close", 204},
		{"POST", "/v1/feeds/ai:1/close", 204},
	} {
		if r, body := n.do(test.method, test.path, stop, ""); r.StatusCode != test.status {
			t.Errorf("%s %s: %s %s", test.method, test.path, r.Status, body)
		}
	}
}

// TestPublishStreamDrain: a node that stops ends its streams.
func TestPublishStreamDrain(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{PublishIdle: time.Hour}, nil)
	s := n.send("chat", "")
	s.chunk("data: a\n\ndata: b")
	n.awaitStored("chat", 1)
	n.Drain(t.Context(), 0)
	if got := s.answer(); got.Status != 503 || got.Events != 1 || got.Stored != "no" {
		t.Errorf("%+v", got)
	}
}

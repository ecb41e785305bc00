package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	client "github.com/tmaxmax/go-sse"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
)

// FuzzSubscribe asks for streams in any way. The answer is an error that names the
// mistake, or a stream for a parser other than ours: every id is a cursor to come
// back with, and no event is missing.
func FuzzSubscribe(f *testing.F) {
	for _, query := range []string{
		"", "from=start", "from=-3&control=live", "from=now&heartbeat=4s", "from=2026-01-31T09:30:00Z", "lastEventId=2", "last_event_id=99&gap=fail", "from=start&types=t,message",
		"from=start&types=u&control=heartbeat", "from=start&envelope=true", "from=%zz", "lastEventId=07", "lastEventId=9223372036854775807", "access_token=x&from=-999", "limit=3", "from=start&from=now",
	} {
		for _, accept := range []string{"", "text/event-stream", "application/x-ndjson", "application/json;q=0.5, application/x-ndjson"} {
			for _, name := range []string{"open", "closed", "never", "cl%6Fsed"} {
				f.Add("/v1/feeds/"+name+"/events?"+query, accept, "")
			}
			for _, name := range []string{"open", "closed", "never"} {
				f.Add("/v1/feeds/"+name+"/stream?"+query, accept, "")
			}
			f.Add("/v1/events?feed=open,closed&feed=never&"+query, accept, "")
		}
	}
	for _, query := range []string{"startIndex=3", "startIndex=-3", "startIndex=-99&types=t", "startIndex=07", "startIndex=5&closed=204", "closed=200&startIndex=12", "closed=204&control=live", "lastEv%65ntId=4&x=%0d%0ay"} {
		for _, name := range []string{"open", "closed", "never"} {
			f.Add("/v1/feeds/"+name+"/stream?"+query, "text/event-stream", "")
		}
	}
	f.Add("/v1/feeds/open/events", "*/*", "6")
	f.Add("/v1/feeds/closed/events", "", "12")
	f.Add("/v1/feeds/closed/events?gap=fail", "text/event-stream", "1")
	f.Add("/v1/events?feed=closed,open", "", "open=6,closed=12,other=7")
	f.Add("/v1/events?feed=closed", "application/x-ndjson", "closed=12")
	f.Add("/v1/events?feed=open", "application/json", "open=6")
	f.Add("/v1/feeds/..%2fopen/events", "text/event-stream;q=0, */*", "6\t")
	s := fuzzedServer(f)
	f.Fuzz(func(t *testing.T, target, accept, lastEventID string) {
		r := subscribeOf(target, accept, lastEventID)
		if r == nil || r.URL.Query().Has("wait") { // pages wait, and have a target of their own
			return
		}
		w := &watched{ResponseRecorder: httptest.NewRecorder(), atOnce: r.URL.Query().Get("heartbeat") != ""}
		ctx, cancel := context.WithTimeout(t.Context(), prompt)
		defer cancel()
		w.cancel = cancel
		serveFuzzed(t, s, w, r.WithContext(ctx))
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Fatalf("nothing more comes after %s", w.Body)
		}
		switch media, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";"); {
		case w.Code >= 500:
			t.Errorf("%d %s", w.Code, w.Body)
		case w.Code >= 400:
			if w.Code == http.StatusGone && r.URL.Query().Get("gap") == "" && !isBare(r) {
				t.Errorf("%q has a gap, and no stream announces it", target)
			}
			wantProblem(t, w.Result(), w.Body.String(), w.Code, "")
		case media == "text/event-stream" && isBare(r):
			checkAnyBare(t, r, w.Header(), w.Body.String())
		case media == "text/event-stream":
			checkAnyStream(t, target, r.URL.Query(), w.Body.String())
		case media == "application/x-ndjson":
			checkAnyLines(t, w.Body.Bytes())
		}
	})
}

// fuzzedServer serves the feeds open and closed, which have 4 to 12 of 12 events,
// every third of the type t.
func fuzzedServer(f *testing.F) *server.Server {
	store, bus := feedtest.NewStore(), memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	f.Cleanup(func() {
		publisher.Close()
		hub.Close()
	})
	for _, name := range []string{"open", "closed"} {
		drafts := make([]feed.Draft, 12)
		for i := range drafts {
			drafts[i] = feed.Draft{Feed: name, Data: fmt.Sprintf("x\n%d", i+1)}
			if i%3 == 0 {
				drafts[i].Type = "t"
			}
		}
		if _, err := publisher.PublishBatch(f.Context(), feed.Publication{Feed: name, Drafts: drafts, Close: name == "closed"}); err != nil {
			f.Fatal(err)
		}
		if err := store.Trim(f.Context(), name, 4); err != nil {
			f.Fatal(err)
		}
	}
	// The first keep-alive shows that there is nothing more, and ends the stream.
	return server.New(hub, publisher, server.Options{Heartbeat: time.Millisecond})
}

// subscribeOf returns a request as net/http would read it from a connection, or
// nil if it would not.
func subscribeOf(target, accept, lastEventID string) *http.Request {
	raw := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\nAccept: %s\r\nLast-Event-ID: %s\r\n\r\n", target, accept, lastEventID)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		return nil
	}
	return r
}

// watched cancels a request when its stream has sent everything.
type watched struct {
	*httptest.ResponseRecorder
	cancel func()
	atOnce bool // and not with the first keep-alive, which comes much later
}

func (w *watched) Write(b []byte) (int, error) {
	if w.atOnce || string(b) == ":\n" || string(b) == "\n" || bytes.Contains(b, []byte("feed.heartbeat")) || bytes.Contains(b, []byte("feed.cursor")) {
		defer w.cancel()
	}
	return w.ResponseRecorder.Write(b)
}

// serveFuzzed lets s answer, and ignores the one panic that net/http handles.
func serveFuzzed(t *testing.T, s http.Handler, w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // it is this value
			panic(v)
		}
	}()
	s.ServeHTTP(w, r)
}

func isBare(r *http.Request) bool { return strings.HasSuffix(r.URL.EscapedPath(), "/stream") }

// checkAnyBare holds a bare stream to what is true of each.
func checkAnyBare(t *testing.T, r *http.Request, head http.Header, body string) {
	t.Helper()
	body = keepAlives.ReplaceAllString(body, "")
	if !strings.HasPrefix(body, "retry: ") || strings.ContainsAny(body, "\r\x00\ufeff") || strings.Contains(body, "feed.") {
		t.Errorf("the stream is %q", body)
	}
	block := regexp.MustCompile(`^(retry: \d+\n)?(event: t\n)?((?:data: .*\n)*)id: (\d+)\n\n`)
	last, began := feed.ID(0), false
	for rest := body; rest != ""; {
		found := block.FindStringSubmatch(rest)
		if found == nil {
			t.Fatalf("the stream goes on with %q in %q", rest, body)
		}
		rest = rest[len(found[0]):]
		id, err := feed.ParseCursor(found[4])
		switch shown := found[3] != ""; {
		case err != nil:
			t.Error(err)
		case !began && (shown || found[1] == ""), began && found[1] != "", began && id <= last,
			began && r.URL.Query().Get("types") == "" && (!shown || id != last+1),
			shown && (id < 4 || id > 12 || !strings.Contains(found[3], fmt.Sprint(id))):
			t.Errorf("the block %q does not belong into %q", found[0], body)
		}
		last, began = id, true
	}
	location, err := url.Parse(head.Get("Location"))
	if err != nil || location.EscapedPath() != r.URL.EscapedPath() || location.Host != "" {
		t.Fatalf("the Location of %q is %q: %v", r.URL, location, err)
	}
	want := r.URL.Query()
	for _, name := range []string{"lastEventId", "lastEventID", "last_event_id", "access_token"} {
		delete(want, name)
	}
	if !strings.HasPrefix(want.Get("startIndex"), "-") {
		delete(want, "startIndex")
	}
	if got := location.Query().Encode(); len(r.URL.RawQuery) < 900 && got != want.Encode() {
		t.Errorf("the Location of %q is %q", r.URL, location)
	}
}

var keepAlives = regexp.MustCompile(`(?m)^:\n`)

// checkAnyStream checks what holds for every event stream.
func checkAnyStream(t *testing.T, target string, query url.Values, body string) {
	t.Helper()
	if !strings.HasSuffix(keepAlives.ReplaceAllString(body, ""), "\n\n") || strings.ContainsAny(body, "\r\x00\ufeff") || !strings.HasPrefix(body, "retry: ") {
		t.Errorf("the stream is %q", body)
	}
	var names []string
	last := make(map[string]feed.ID)
	for e, err := range client.Read(strings.NewReader(body), nil) {
		if err != nil {
			t.Fatalf("%v in %q", err, body)
		}
		if names == nil {
			names = opened(t, e, target)
		}
		at := cursorsOf(t, e.LastEventID, names, strings.HasPrefix(target, "/v1/events"))
		if strings.HasPrefix(e.Type, "feed.") {
			last = at
			continue
		}
		if e.Type != "" && e.Type != "t" || !strings.Contains(e.Data, "x") {
			t.Errorf("the event %+v was never published", e)
		}
		moved := 0
		for name, c := range at {
			if c < last[name] || query.Get("types") == "" && c > last[name]+1 {
				t.Errorf("%s goes from %d to %d in %q", name, last[name], c, body)
			}
			if c > last[name] {
				moved++
			}
		}
		if moved == 0 || moved > 1 && query.Get("types") == "" {
			t.Errorf("%d cursors move with %+v", moved, e)
		}
		last = at
	}
	if names == nil {
		t.Errorf("the stream is %q", body)
	}
}

// opened returns the feeds of a feed.open, which the request has to have named.
func opened(t *testing.T, e client.Event, target string) (names []string) {
	t.Helper()
	var data struct {
		Feed  string
		Feeds []struct{ Feed string }
	}
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil || e.Type != "feed.open" {
		t.Fatalf("the stream begins with %+v", e)
	}
	if data.Feed != "" {
		names = append(names, data.Feed)
	}
	for _, one := range data.Feeds {
		names = append(names, one.Feed)
	}
	asked, err := url.QueryUnescape(target)
	for _, name := range names {
		if err == nil && !strings.Contains(asked, name) && !strings.Contains(strings.ReplaceAll(asked, " ", "+"), name) {
			t.Errorf("%q got a stream of %q", target, name)
		}
	}
	return names
}

// cursorsOf returns the cursor of each feed, and demands that none is missing.
func cursorsOf(t *testing.T, id string, names []string, many bool) map[string]feed.ID {
	t.Helper()
	parts := []string{id}
	if many {
		parts = strings.Split(id, ",")
	}
	at := make(map[string]feed.ID)
	for i, part := range parts {
		name, number, named := strings.Cut(part, "=")
		if !named {
			number = part
		}
		c, err := feed.ParseCursor(number)
		if err != nil || named != many || i >= len(names) || named && name != names[i] {
			t.Fatalf("%q is no cursor of %q", id, names)
		}
		at[names[i]] = c
	}
	if len(at) != len(names) {
		t.Fatalf("%q is no cursor of %q", id, names)
	}
	return at
}

// checkAnyLines checks what holds for every stream of lines.
func checkAnyLines(t *testing.T, body []byte) {
	t.Helper()
	if !bytes.HasSuffix(body, []byte("\n")) {
		t.Errorf("the stream is %q", body)
	}
	last := make(map[string]feed.ID)
	for line := range bytes.Lines(body) {
		if len(line) == 1 {
			continue
		}
		var e struct {
			Feed, Type, Cursor string
			ID                 feed.ID
			Data               json.RawMessage
		}
		if err := json.Unmarshal(line, &e); err != nil || len(e.Data) == 0 {
			t.Fatalf("%v in %q", err, line)
		}
		switch {
		case strings.HasPrefix(e.Type, "feed."):
			if e.ID != 0 {
				t.Errorf("%s has an id", line)
			}
		case !slices.Contains([]string{"open", "closed"}, e.Feed), e.ID <= last[e.Feed], e.ID < 4, e.ID > 12:
			t.Errorf("%s does not belong into %q", line, body)
		}
		last[e.Feed] = max(last[e.Feed], e.ID)
	}
}

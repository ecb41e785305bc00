package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	client "github.com/tmaxmax/go-sse"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// hostile has strings that break lines, end strings or name other files in careless
// programs.
var hostile = []string{
	"\r\nid: 9", "\nid: 9", "\rid: 9", "\x00", "\u2028id: 9", "\u2029", "\u0085", "\ufeff", "\x7f", "\x1b[2J", "\t", " ", "\v", "\f", "\b",
	"\r\n\r\nHTTP/1.1 200 OK", "\nevent: feed.closed\n", "%0d%0aid: 9", "/", "/../", "..", "\\", "%2e", "%", "?", "#", "'", `"`, "<script>",
	"{", "}", "*", ",", "=", ";", "\xff", "\xc0\xae", "\xed\xa0\x80", "é", "а", "a\u0301", "ａ", "\u202e", "\u200b", "𝒶",
}

var (
	aName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@~-]*$`)
	aType = regexp.MustCompile(`^[A-Za-z0-9._:/-]*$`)
	aKey  = regexp.MustCompile(`^[!-~]+$`)
)

// TestInjectedFields: a line break in a type, a key or a name must not become a field
// of the stream or a header of the answer.
func TestInjectedFields(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const ndjson = "application/x-ndjson"
	for _, text := range hostile {
		value := "a" + text + "b"
		n.wantTaken(aType.MatchString(value), "POST", events+"?type="+escaped(value), "", "x")
		n.wantTaken(aType.MatchString(value), "POST", events, ndjson, `{"type":`+quoted(value)+`,"data":"x"}`)
		n.wantTaken(aName.MatchString(value), "POST", "/v1/events", ndjson, `{"feed":`+quoted(value)+`,"data":"x"}`)
		n.wantTaken(aName.MatchString(value), "POST", "/v1/feeds/"+escaped(value)+"/events", "", "x")
		n.wantTaken(aName.MatchString(value), "POST", "/v1/feeds/"+escaped(value)+"/close?x", "", "")
		n.wantTaken(aName.MatchString(value), "GET", "/v1/feeds/"+escaped(value)+"/events", "application/json", "")
		n.wantTaken(aName.MatchString(value), "HEAD", "/v1/feeds/"+escaped(value)+"/events", "", "")
		n.wantTaken(aName.MatchString(value), "GET", "/v1/feeds?prefix="+escaped(value), "", "")
		n.wantTaken(false, "GET", "/v1/feeds/chat/events/"+escaped("1"+text), "", "")
		for _, param := range []string{"lastEventId", "from", "envelope", "control", "gap", "heartbeat"} {
			n.wantTaken(false, "HEAD", events+"?"+param+"="+escaped(value), "", "")
			n.wantTaken(false, "HEAD", events+"?"+param+"="+escaped(text), "", "")
		}
		n.wantTaken(aName.MatchString(value) || text == ",", "HEAD", "/v1/events?feed="+escaped(value), "", "")
		n.wantTaken(false, "HEAD", "/v1/events?feed=a&lastEventId="+escaped(value), "", "")
	}
	r := n.request("GET", events+"?from=start", nil, "")
	defer r.Body.Close()
	_, body := n.do("GET", "/v1/feeds/chat", nil, "")
	var last int
	if _, err := fmt.Sscanf(body, `{"feed":"chat","first":1,"last":%d,`, &last); err != nil {
		t.Fatal(body)
	}
	for i, e := range readTo(t, r, last) {
		if e.LastEventID != fmt.Sprint(i+1) || e.Data != "x" || !aType.MatchString(e.Type) {
			t.Errorf("the event %d is %+v", i+1, e)
		}
	}
}

// escaped makes any bytes part of an address.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// quoted makes any bytes a string in JSON, unless they are not UTF-8.
func quoted(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\u%04x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

// wantTaken demands that a request succeeds, or is refused with 400 and a reason.
func (n *node) wantTaken(taken bool, method, path, media, body string) {
	n.t.Helper()
	r, answer := n.do(method, path, map[string]string{"Content-Type": media, "Accept": media}, body)
	switch {
	case taken && r.StatusCode >= 300, !taken && r.StatusCode != 400:
		n.t.Errorf("%s %s %q: %s %s", method, path, body, r.Status, answer)
	case !taken && method != "HEAD":
		wantProblem(n.t, r, answer, 400, "")
	}
}

// TestInjectedHeaders sends headers that no client library would send.
func TestInjectedHeaders(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for _, test := range []struct {
		name   string
		good   *regexp.Regexp
		status int
	}{
		{"Event-Type", aType, 400}, {"Idempotency-Key", aKey, 400}, {"If-Match", nil, 400}, {"Content-Encoding", nil, 415}, {"Last-Event-ID", nil, 400},
	} {
		for _, text := range hostile {
			if strings.Contains(text, "\n") {
				continue // see below
			}
			value := "a" + text + "b"
			method := "POST"
			if test.name == "Last-Event-ID" {
				method = "GET"
			}
			r := n.rawly(method+" "+events, test.name+": "+value)
			if good := test.good != nil && test.good.MatchString(value); (r.StatusCode == http.StatusCreated) != good || !good && r.StatusCode != 400 && r.StatusCode != test.status {
				t.Errorf("%s: %q: %s", test.name, value, r.Status)
			}
		}
	}
	// A line break begins another header, and adds nothing to the first: here, an
	// If-Match.
	if r := n.rawly("POST "+events, "Event-Type: a\r\nIf-Match: \"77\""); r.StatusCode != http.StatusPreconditionFailed {
		t.Error(r.Status)
	}
	// A line that is folded is one value, with a space in it.
	for _, folded := range []string{"Event-Type: a\r\n b", "Event-Type: a\r\n\tb", "Idempotency-Key: a\r\n b", "If-Match: \"7\r\n 7\"", "Event-Type:\r\n a,\r\n b"} {
		if r := n.rawly("POST "+events, folded); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", folded, r.Status)
		}
	}
	for _, twice := range []string{"Event-Type", "Idempotency-Key", "If-Match", "Content-Type"} {
		if r := n.rawly("POST "+events, twice+": a/a\r\n"+strings.ToLower(twice)+": a/a"); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s twice: %s", twice, r.Status)
		}
	}
	if r := n.rawly("GET "+events, "Last-Event-ID: 1\r\nLast-Event-ID:"); r.StatusCode != http.StatusOK {
		t.Errorf("one cursor and an empty one: %s", r.Status)
	}
	// If two cursors differ, one of them loses events or repeats them.
	if r := n.rawly("GET "+events, "Last-Event-ID: 0\r\nLast-Event-ID: 1"); r.StatusCode != http.StatusBadRequest {
		t.Errorf("two cursors: %s", r.Status)
	}
	if r := n.rawly("GET /v1/events?feed=a,b", "Last-Event-ID: a=0\r\nLast-Event-ID: a=1"); r.StatusCode != http.StatusBadRequest {
		t.Errorf("two cursors: %s", r.Status)
	}
}

// rawly sends a request with headers as they are.
func (n *node) rawly(request, headers string) *http.Response {
	n.t.Helper()
	conn := dial(n.t, n.url)
	defer conn.Close()
	body := "x"
	if strings.HasPrefix(request, "GET") {
		body = ""
	}
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", request, headers, len(body), body)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		n.t.Fatalf("%q: %v", headers, err)
	}
	return r
}

// TestForgedFields: data from a publisher must stay data, in every format of a
// stream, for a parser that is not ours.
func TestForgedFields(t *testing.T) {
	n := start(t, server.Options{}, nil)
	forged := []string{
		"\rid: 9", "x\r\rid: 9\r\r", "\nid: 9\n\nevent: feed.closed\ndata: {}\n\n", "\r\n\r\nretry: 1\r\n\r\n", "id: 9", "data: x", ": x", "\n", "\n\n", "\r\n",
		"x\u2028id: 9", "x\u2029\u2029id: 9", "x\u0085id: 9", "x\vid: 9\f", "\ufeffid: 9", "\ufeff", "x\n\ufeffid: 9", " x", "  x", "\tx", "x ", "event: feed.gap\nid: 9", "retry: 9999999",
		`{"id":9}`, `"},"id":9,"x":{"`, "\u202e", "</script>", "}\n\n{", "data", "\nid", "x\n\n\n",
	}
	for i, data := range forged {
		n.publish("chat", data, feed.ID(i)+1)
		if r, body := n.do("POST", events+"?ephemeral=true", nil, data); r.StatusCode != http.StatusAccepted {
			t.Error(r.Status, body)
		}
	}
	for _, path := range []string{events + "?from=start", events + "?from=start&envelope=true", "/v1/events?feed=chat&from=start"} {
		list := readStream(t, n.request("GET", path, nil, "").Body, lastOf(path, len(forged)))
		if len(list) != len(forged) {
			t.Fatalf("%s: %d events, want %d", path, len(list), len(forged))
		}
		for i, e := range list {
			data := strings.ReplaceAll(strings.ReplaceAll(forged[i], "\r\n", "\n"), "\r", "\n")
			if strings.Contains(path, "envelope") || strings.HasPrefix(path, "/v1/events") {
				e.Data = envelopeData(t, e.Data)
			}
			if e.LastEventID != lastOf(path, i+1) || e.Type != "" || e.Data != data {
				t.Errorf("%s: got %+v, want the id %s and %q", path, e, lastOf(path, i+1), data)
			}
		}
	}
	// A live ephemeral event must not move a cursor.
	f := n.follow(events, nil)
	f.block()
	for _, data := range forged {
		if r, body := n.do("POST", events+"?ephemeral=true", nil, data); r.StatusCode != http.StatusAccepted {
			t.Fatal(r.Status, body)
		}
		if block := f.block(); strings.Contains("\n"+block, "\nid:") || strings.Contains("\n"+block, "\nevent:") || strings.Contains("\n"+block, "\nretry") {
			t.Errorf("%q became %q", data, block)
		}
	}
	for _, forged := range []string{`{"data":"x","id":9}`, `{"data":"x","time":"2026-01-01T00:00:00Z"}`, `{"data":"x","type":"feed.gap"}`, `{"data":"x","feed":"other"}`, `{"data":"x","data":"y"}`, `{"data":"x","Type":"y"}`} {
		n.wantTaken(false, "POST", events, "application/x-ndjson", forged)
	}
}

func lastOf(path string, id int) string {
	if strings.HasPrefix(path, "/v1/events") {
		return fmt.Sprintf("chat=%d", id)
	}
	return fmt.Sprint(id)
}

// readStream reads a stream's events up to the cursor last.
func readStream(t *testing.T, body io.ReadCloser, last string) (list []client.Event) {
	t.Helper()
	defer body.Close()
	for e, err := range client.Read(body, nil) {
		if err != nil {
			t.Fatalf("%v after %d events", err, len(list))
		}
		if !strings.HasPrefix(e.Type, "feed.") {
			list = append(list, e)
		}
		if e.LastEventID == last {
			break
		}
	}
	return list
}

// TestForgedLogs: no request can forge a line of the log.
func TestForgedLogs(t *testing.T) {
	log := new(lockedBuffer)
	n := start(t, server.Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), AccessLog: true}, nil)
	n.LogEach()
	for _, text := range hostile {
		n.do("GET", "/v1/feeds/"+escaped("a"+text+"\ntime=2026 level=ERROR msg=forged")+"/events", nil, "")
	}
	for line := range strings.Lines(log.String()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, " level=ERROR ") && !strings.Contains(line, `path="`) || strings.ContainsAny(line, "\x1b\x00\r\u2028\u202e") {
			t.Errorf("the log has %q", line)
		}
	}
	if !strings.Contains(log.String(), escaped("forged")) {
		t.Error("the log has nothing of it")
	}
}

// envelopeData returns the text that an envelope has as data.
func envelopeData(t *testing.T, envelope string) string {
	t.Helper()
	var e struct{ Data string }
	if err := json.Unmarshal([]byte(envelope), &e); err != nil {
		t.Fatalf("%v in %s", err, envelope)
	}
	return e.Data
}

package server_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// access waits for the line about a request.
func (l *logbook) access(t *testing.T, r *http.Response) logLine {
	t.Helper()
	for deadline := time.Now().Add(prompt); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, line := range l.lines(t, "request") {
			if line.RequestID == r.Header.Get("X-Request-Id") {
				return line
			}
		}
	}
	t.Fatalf("the request %v has no line", r.Header)
	return logLine{}
}

// TestAccessLog: each request has a line, and a stream has it at its end.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	var book logbook
	n := guarded(t, auth.Options{Key: secret}, server.Options{Logger: book.logger(), AccessLog: true})
	header := bearer(tokenOf(t, "ann"))
	want := func(r *http.Response, want logLine) {
		t.Helper()
		got := book.access(t, r)
		if got.Duration <= 0 {
			t.Errorf("it took %d", got.Duration)
		}
		want.Level, want.Message, want.Subject, want.Address = "INFO", "request", got.Subject, "127.0.0.1"
		want.Duration, want.RequestID = got.Duration, r.Header.Get("X-Request-Id")
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got.Subject != "ann" && want.Status != http.StatusUnauthorized {
			t.Errorf("the subject is %q", got.Subject)
		}
	}
	r, body := n.do("POST", events+"?type=x", header, "hello")
	want(r, logLine{Method: "POST", Path: events, Status: 201, Feed: "chat", Bytes: int64(len(body))})
	r, body = n.do("GET", "/v1/feeds", header, "")
	want(r, logLine{Method: "GET", Path: "/v1/feeds", Status: 200, Bytes: int64(len(body))})
	r, body = n.do("GET", events, nil, "")
	want(r, logLine{Method: "GET", Path: events, Status: 401, Feed: "chat", Bytes: int64(len(body))})

	header["Accept"] = "text/event-stream"
	stream := n.request("GET", "/v1/events?feed=chat,news&from=start", header, "")
	read := make([]byte, 1)
	if _, err := io.ReadFull(stream.Body, read); err != nil {
		t.Fatal(err)
	}
	for _, line := range book.lines(t, "request") {
		if line.RequestID == stream.Header.Get("X-Request-Id") {
			t.Errorf("an open stream has the line %+v", line)
		}
	}
	for _, name := range []string{"chat", "news"} {
		n.do("POST", "/v1/feeds/"+name+"/close", header, "")
	}
	rest, err := io.ReadAll(stream.Body)
	if err != nil {
		t.Fatal(err)
	}
	whole := append(read, rest...)
	got := book.access(t, stream)
	if !*netHTTP {
		got.Bytes -= framing(whole, got.Bytes)
	}
	want(stream, logLine{Method: "GET", Path: "/v1/events", Status: 200, Feed: "chat,news", Reason: "closed", Bytes: book.access(t, stream).Bytes})
	if got.Bytes != int64(len(whole)) {
		t.Errorf("%d bytes, want %d", got.Bytes, len(whole))
	}
}

// framing returns the bytes of a chunked body that are not its own. It allows up to one
// chunk for each block and one at the end.
func framing(body []byte, written int64) int64 {
	most := int64(bytes.Count(body, []byte("\n\n"))+2) * int64(len("00000000\r\n\r\n"))
	if more := written - int64(len(body)); more > 0 && more <= most {
		return more
	}
	return 0
}

// tokenOf returns a token with a subject, for everything.
func tokenOf(t *testing.T, subject any) string {
	t.Helper()
	return tokenWith(t, "HS256", []byte(secret), func(claims jwt.MapClaims) {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
		claims["sub"] = subject
		claims["rejoin"] = everything
	})
}

// TestStrangeSubjects: a subject that is no text, or long, or has what a terminal obeys,
// does no harm.
func TestStrangeSubjects(t *testing.T) {
	t.Parallel()
	var book logbook
	n := guarded(t, auth.Options{Key: secret}, server.Options{Logger: book.logger(), AccessLog: true})
	for _, c := range []struct {
		subject any
		want    string
	}{
		{7, ""}, {[]string{"a"}, ""}, {nil, ""}, {strings.Repeat("é", 1000), strings.Repeat("é", 150) + "…"}, {"a\nlevel=ERROR", "a\nlevel=ERROR"},
	} {
		r, body := n.do("POST", events, bearer(tokenOf(t, c.subject)), "x")
		if r.StatusCode != http.StatusCreated {
			t.Fatalf("%v: %s %s", c.subject, r.Status, body)
		}
		if got := book.access(t, r); got.Subject != c.want {
			t.Errorf("%v: got %q", c.subject, got.Subject)
		}
	}
}

// TestChangesAreLogged: who deletes, trims or closes a feed is in the log.
func TestChangesAreLogged(t *testing.T) {
	t.Parallel()
	var book logbook
	n := guarded(t, auth.Options{Key: secret}, server.Options{Logger: book.logger()})
	header := bearer(tokenOf(t, "ann"))
	for i, c := range []struct{ method, path, contentType, message, feed string }{
		{"POST", "/v1/feeds/a/events?close=true", "", "feed closed", "a"},
		{"POST", "/v1/feeds/b/events?close=true", "text/event-stream", "feed closed", "b"},
		{"POST", "/v1/feeds/c/close", "", "feed closed", "c"},
		{"DELETE", "/v1/feeds/c/events?before=7", "", "feed trimmed", "c"},
		{"DELETE", "/v1/feeds/c", "", "feed deleted", "c"},
	} {
		header["Content-Type"] = c.contentType
		r, body := n.do(c.method, c.path, header, "data: x\n\n")
		if r.StatusCode >= 300 {
			t.Fatalf("%s: %s %s", c.path, r.Status, body)
		}
		lines := book.lines(t, c.message)
		if len(lines) == 0 {
			t.Errorf("%s %s is not logged", c.method, c.path)
			continue
		}
		line := lines[len(lines)-1]
		if line.Feed != c.feed || line.Subject != "ann" || line.Address != "127.0.0.1" || line.RequestID != r.Header.Get("X-Request-Id") || line.Level != "INFO" {
			t.Errorf("%d: %+v", i, line)
		}
		if c.message == "feed trimmed" && line.Before != 7 {
			t.Errorf("trimmed before %d", line.Before)
		}
	}
	if r, _ := n.do("DELETE", "/v1/feeds/c?before=7", header, ""); r.StatusCode != http.StatusBadRequest || len(book.lines(t, "feed deleted")) != 1 {
		t.Error("what was refused is logged as done")
	}
}

// TestProxiedClients: behind a trusted proxy, limits and the log are about its clients.
func TestProxiedClients(t *testing.T) {
	t.Parallel()
	var book logbook
	proxies, err := server.ParseProxies([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, server.Options{Logger: book.logger(), TrustedProxies: proxies, SubscribersPerAddress: 1, PublishesPerSecond: 1}, nil)
	from := func(address string) map[string]string {
		return map[string]string{"X-Forwarded-For": address, "Accept": "application/x-ndjson"}
	}
	n.follow(events, from("203.0.113.1"))
	n.follow(events, from("203.0.113.2"))
	n.follow(events, from("2001:db8::1"))
	for _, address := range []string{"203.0.113.1", "2001:db8::2"} {
		r, _ := n.do("GET", events, from(address), "")
		if line := book.refusalOf(t, r.Header.Get("X-Request-Id")); r.StatusCode != http.StatusTooManyRequests || address == "203.0.113.1" && line.Address != address {
			t.Errorf("%s: %s %+v", address, r.Status, line)
		}
		n.LogEach()
	}
	batch := strings.Repeat(`{"feed":"m","data":"x"}`+"\n", 20)
	header := from("203.0.113.1")
	header["Content-Type"] = "application/x-ndjson"
	if r, body := n.do("POST", batches, header, batch); r.StatusCode != http.StatusCreated {
		t.Fatal(r.Status, body)
	}
	if r, _ := n.do("POST", events, from("203.0.113.1"), "x"); r.StatusCode != http.StatusTooManyRequests || !regexp.MustCompile(`^1[456]$`).MatchString(r.Header.Get("Retry-After")) {
		t.Errorf("%s, Retry-After %s", r.Status, r.Header.Get("Retry-After"))
	}
	if r, body := n.do("POST", events, from("203.0.113.2"), "x"); r.StatusCode != http.StatusCreated {
		t.Error(r.Status, body)
	}
}

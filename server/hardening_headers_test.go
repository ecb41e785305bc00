package server_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answer returns the answer as a client sees it, without the parts that differ each
// time.
func (n *node) answer(method, path string, header map[string]string, body string) string {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	r.Host = header["Host"]
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	resp.Header.Del("Date")
	resp.Header.Del("X-Request-Id")
	var head bytes.Buffer
	_ = resp.Header.Write(&head)
	var said []byte
	if strings.Contains(path, "done") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		if said, err = io.ReadAll(resp.Body); err != nil {
			n.t.Fatal(err)
		}
	}
	return regexp.MustCompile(`retry: \d+`).ReplaceAllString(fmt.Sprintf("%s\n%s\n%s", resp.Status, head.String(), said), "retry")
}

// TestForeignHeaders: a client can send any header that a proxy adds. If answers
// depended on them, one client could make a cache give its answer to others, or send
// the others elsewhere.
func TestForeignHeaders(t *testing.T) {
	n := startFeeds(t, unhurried) // a keep-alive would be a difference
	json, lines := map[string]string{"Accept": "application/json"}, map[string]string{"Accept": "application/x-ndjson"}
	key := map[string]string{"Idempotency-Key": "k"} // which makes the answer the same each time
	n.do("POST", "/v1/feeds/other/events", key, "x")
	foreign := []map[string]string{
		{"Host": "evil.example"}, {"Host": "evil.example:99999"}, {"Host": "[::1]:80"}, {"Host": "localhost"}, {"Host": "chat"},
		{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "99"},
		{"Forwarded": "for=127.0.0.1;host=evil.example;proto=https"}, {"X-Original-URL": "/v1/feeds"}, {"X-Rewrite-URL": "/v1/feeds"},
		{"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"},
		{"Range": "bytes=0-1"}, {"Range": "bytes=-1"}, {"Range": "bytes=0-,0-,0-,0-,0-"}, {"Range": "events=1-2"}, {"Range": "bytes=0-1", "If-Range": `"x"`},
		{"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, {"If-Modified-Since": "garbage"}, {"If-Unmodified-Since": "Fri, 01 Jan 1990 00:00:00 GMT"},
		{"If-None-Match": "garbage"}, {"If-None-Match": `"`}, {"If-None-Match": `W/`}, {"If-None-Match": `"x", "y`}, {"If-None-Match": strings.Repeat(`"x",`, 10_000)},
		{"Accept-Encoding": "gzip, br"}, {"Accept-Language": "xx"}, {"Accept-Charset": "utf-16"}, {"TE": "trailers, gzip"}, {"Cache-Control": "only-if-cached"},
		{"User-Agent": strings.Repeat("x", 50_000)}, {"Cookie": strings.Repeat("a=b; ", 10_000)}, {"Cookie": "rejoin_token=x"}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"},
		{"Max-Forwards": "0"}, {"Via": "1.1 evil"}, {"Upgrade": "h2c"}, {"Prefer": "respond-async"}, {"X-Accel-Redirect": "/etc/passwd"}, {"Pragma": "\tx"},
	}
	for _, test := range []struct {
		method, path string
		header       map[string]string
	}{
		{"GET", "/v1/feeds/old/events?limit=1&after=3", json}, {"GET", "/v1/feeds/old/events/4", nil}, {"GET", "/v1/feeds/old", nil}, {"GET", "/v1/feeds", nil},
		{"GET", "/v1/feeds/done/events?from=start", nil}, {"GET", "/v1/feeds/done/events?from=start", lines}, {"GET", "/v1/events?feed=done&from=start", nil},
		{"GET", "/v1/feeds/chat/events", nil}, {"HEAD", "/v1/feeds/chat/events", nil}, {"GET", "/v1/feeds/chat/events?from=x", nil}, {"GET", "/healthz", nil},
		{"GET", "/v1/nothing", nil}, {"PUT", "/v1/feeds/chat/events", nil}, {"POST", "/v1/feeds/other/events", key}, {"POST", "/v1/feeds/done/events", nil},
	} {
		want := n.answer(test.method, test.path, test.header, "x")
		for _, more := range foreign {
			header := maps.Clone(more)
			maps.Copy(header, test.header)
			if diff := cmp.Diff(want, n.answer(test.method, test.path, header, "x")); diff != "" {
				t.Errorf("%s %s changes with %.100v: %s", test.method, test.path, more, diff)
			}
		}
	}
	if _, body := n.do("GET", "/v1/feeds/chat", nil, ""); !strings.Contains(body, `"first":1,"last":3`) {
		t.Errorf("something was deleted: %s", body)
	}
}

// TestLinksAreTheirs: text that a client sends must not come back in a header where
// it means something else.
func TestLinksAreTheirs(t *testing.T) {
	n := startSubscribed(t)
	for _, query := range []string{
		"access_token=secret", "x=%3E%3B%20rel=%22next%22", "x=%0D%0ASet-Cookie:%20a=b", "x=%3Chttps://evil.example%3E&x=%0D%0A", "gap=",
	} {
		r, _ := n.do("GET", "/v1/feeds/old/events?limit=1&after=3&"+query, map[string]string{"Accept": "application/json"}, "")
		link := r.Header.Get("Link")
		if r.StatusCode != 200 || !regexp.MustCompile(`^</v1/feeds/old/events\?after=4&limit=1>; rel="next", </v1/feeds/old/events\?before=4&limit=1>; rel="prev"$`).MatchString(link) {
			t.Errorf("%s: %s, Link: %s", query, r.Status, link)
		}
		if r.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", query, r.Header)
		}
	}
	r, _ := n.do("POST", "/v1/feeds/a:b@c~d/events?type=x%2F..%2F..&x=%0D%0A", map[string]string{"Idempotency-Key": "https://evil.example/"}, "x")
	if got := r.Header.Get("Location"); got != "/v1/feeds/a:b@c~d/events/1" {
		t.Errorf("Location: %s", got)
	}
}

// TestBodiesOfGET: a body changes nothing where there should be none, and the
// rest of it is not taken for the next request.
func TestBodiesOfGET(t *testing.T) {
	n := startSubscribed(t)
	conn := dial(t, n.url)
	next := "GET /v1/feeds/old/events/3 HTTP/1.1\r\nHost: x\r\n\r\n"
	fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%sGET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", len(next), next)
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(all); strings.Count(got, "HTTP/1.1 ") != 2 || strings.Contains(got, `"data"`) || !strings.Contains(got, "there is nothing at /v1/nothing") {
		t.Errorf("got %s", got)
	}
	f := n.follow("/v1/feeds/old/events?from=start", nil) // the client of the tests sends none
	f.block()
	conn = dial(t, n.url)
	fmt.Fprintf(conn, "GET /v1/feeds/old/events?lastEventId=4 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
	readUntil(t, conn, func(s string) bool { return strings.Contains(s, "data: 5\nid: 5\n\n") })
	n.Drain(t.Context(), 0)
}

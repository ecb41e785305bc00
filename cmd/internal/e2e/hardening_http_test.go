package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// smuggled is a second request in the bytes of a first.
const smuggled = "POST /v1/feeds/smuggled/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"

// TestSmuggling: a proxy in front sends the requests of many clients over one
// connection. If the two do not agree on where one ends, an attacker's next
// request is taken for somebody else's, with their rights.
func TestSmuggling(t *testing.T) {
	s := attack(t, false)
	post := func(headers ...string) string {
		return "POST /v1/feeds/chat/events HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
	}
	const length, chunked, chunks = "Content-Length: 5", "Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"
	for _, test := range []struct {
		name, request string
		statuses      []int
	}{
		{"two lengths", post(length, "Content-Length: 6") + "hello", []int{400}},
		{"two lengths in one", post("Content-Length: 5, 6") + "hello", []int{400}},
		{"one length twice in one", post("Content-Length: 5, 5") + "hello", []int{400}},
		{"a length with a sign", post("Content-Length: +5") + "hello", []int{400}},
		{"a negative length", post("Content-Length: -5") + "hello", []int{400}},
		{"a hexadecimal length", post("Content-Length: 0x5") + "hello", []int{400}},
		{"an empty length", post("Content-Length:") + "hello", []int{400}},
		{"a length in two words", post("Content-Length: 5 0") + "hello", []int{400}},
		{"a length beyond all", post("Content-Length: 18446744073709551621") + "hello", []int{400}},
		{"a space before the colon", post("Content-Length : 5") + "hello", []int{400}},
		{"another space before the colon", post("Transfer-Encoding : chunked", length) + "hello", []int{400}},
		{"a name with a tab", post("Content\t-Length: 5") + "hello", []int{400}},
		{"a header without a colon", post("Content-Length 5") + "hello", []int{400}},
		{"a folded first header", "POST / HTTP/1.1\r\n Content-Length: 5\r\nHost: localhost\r\n\r\nhello", []int{400}},
		{"NUL in a header", post("A: b\x00c", length) + "hello", []int{400}},
		{"CR in a header", post("A: b\rContent-Length: 50", length) + "hello", []int{400}},
		// net/http goes by the chunks and does not tell of the length. The
		// connection ends, so what a proxy saw in the rest does not matter.
		{"chunks and a length", post(chunked, "Content-Length: 50") + chunks, []int{201}},
		{"a length and chunks", post("Content-Length: 50", chunked) + chunks, []int{201}},
		{"folded chunks and a length", post("Transfer-Encoding:\r\n chunked", "Content-Length: 50") + chunks, []int{201}},
		{"chunks, refused before they are read", post(chunked, "Content-Length: 50", "If-Match: x") + chunks, []int{400}},
		{"chunks nowhere", strings.Replace(post(chunked, "Content-Length: 50"), "/v1/feeds/chat", "/v2", 1) + chunks, []int{404, 405}},
		{"chunks of a GET", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + chunked + "\r\n\r\n" + chunks, []int{200}},
		{"chunks twice", post(chunked, chunked) + chunks, []int{400, 501}},
		{"chunks in chunks", post("Transfer-Encoding: chunked, chunked") + chunks, []int{501}},
		{"chunks and themselves", post("Transfer-Encoding: chunked, identity", length) + "hello", []int{501}},
		{"compressed chunks", post("Transfer-Encoding: gzip, chunked") + chunks, []int{501}},
		{"what is not chunks", post("Transfer-Encoding: xchunked", length) + "hello", []int{501}},
		{"chunks with a vertical tab", post("Transfer-Encoding: \x0bchunked", length) + "hello", []int{400, 501}},
		{"no coding", post("Transfer-Encoding: ", length) + "hello", []int{400, 501}},
		{"a bare LF in a chunk's head", post(chunked) + "5\nhello\r\n0\r\n\r\n", []int{400}},
		{"a bare LF after a chunk", post(chunked) + "5\r\nhello\n0\r\n\r\n", []int{400}},
		{"a hexadecimal prefix", post(chunked) + "0x5\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"a negative chunk", post(chunked) + "-5\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"a chunk beyond all", post(chunked) + "10000000000000005\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"an endless extension", post(chunked) + "5;" + strings.Repeat("x", 1<<20) + "\r\nhello\r\n0\r\n\r\n", []int{400}},
		{"many extensions", post(chunked) + strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\nx\r\n", 100) + "0\r\n\r\n", []int{400}},
		{"chunks of HTTP/1.0", strings.Replace(post(chunked, "Connection: keep-alive"), "/1.1", "/1.0", 1) + chunks, []int{201, 400}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			resp, r := s.raw(test.request + smuggled)
			wantOneOf(t, resp, test.statuses)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
			// What is no request may be said to be none.
			if rest, err := io.ReadAll(r); len(rest) > 0 && !strings.HasPrefix(string(rest), "HTTP/1.1 400 ") || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection went on: %q, %v", rest, err)
			}
			if resp, err := s.client.Get(s.url + "/v1/feeds/smuggled"); err != nil || resp.StatusCode != http.StatusNotFound {
				t.Fatalf("the second request got through: %v, %v", resp, err)
			}
		})
	}
}

func wantOneOf(t *testing.T, resp *http.Response, statuses []int) {
	t.Helper()
	for _, status := range statuses {
		if resp.StatusCode == status {
			return
		}
	}
	t.Errorf("%s, want one of %v", resp.Status, statuses)
}

// TestRequestTargets: a target in a form of its own must not reach what the
// usual one does not, and a server that is no proxy must not become one.
func TestRequestTargets(t *testing.T) {
	s := attack(t, false)
	if _, err := publish(s.client, s.url, "chat", "x"); err != nil {
		t.Fatal(err)
	}
	const head = " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Secret: hunter2\r\n\r\n"
	for _, test := range []struct {
		request  string
		statuses []int
		body     string
	}{
		{"GET /v1/feeds/chat/events/1" + head, []int{200}, `"data":"x"`},
		{"GET http://localhost/v1/feeds/chat/events/1" + head, []int{200}, `"data":"x"`},
		{"GET http://evil.example/v1/feeds/chat/events/1" + head, []int{421}, "evil.example"},
		{"GET http://169.254.169.254/latest" + head, []int{421}, "169.254.169.254"},
		{"GET https://u:p@evil.example:99/v1/feeds/chat/events/1" + head, []int{421, 400}, ""},
		{"GET file:///etc/passwd" + head, []int{404}, "nothing at /etc/passwd"},
		{"GET //evil.example/v1/feeds/chat/events/1" + head, []int{404}, ""},
		{"GET /v1//feeds/chat/events/1" + head, []int{404}, ""},
		{"GET /v1/feeds/../feeds/chat/events/1" + head, []int{404}, ""},
		{"GET /../v1/feeds/chat/events/1" + head, []int{404}, ""},
		{"GET /v1/feeds/chat/events/1/" + head, []int{404}, ""},
		{"GET /v1/feeds/chat/events;x/1" + head, []int{404}, ""},
		{"GET /V1/feeds/chat/events/1" + head, []int{404}, ""},
		{"GET rejoin:80" + head, []int{400, 404}, ""},
		{"GET *" + head, []int{400, 404}, ""},
		{"GET v1/feeds/chat/events/1" + head, []int{400}, ""},
		{"OPTIONS *" + head, []int{404, 405}, ""},
		{"CONNECT rejoin:80" + head, []int{421}, ""},
		{"CONNECT /v1/feeds/chat/events/1" + head, []int{404, 405}, ""},
		{"TRACE /v1/feeds/chat/events" + head, []int{405}, ""},
		{"TRACE /" + head, []int{405}, ""},
		{"get /v1/feeds/chat/events/1" + head, []int{405}, ""},
		{"DELETE /healthz" + head, []int{405}, ""},
		{"P\x00ST /" + head, []int{400}, ""},
		{"GET  /healthz" + head, []int{400}, ""},
		{"GET /health z" + head, []int{400}, ""},
		{"GET /health\x00z" + head, []int{400}, ""},
		{"GET /health\x7fz" + head, []int{400}, ""},
		{"GET /%zz" + head, []int{400}, ""},
		{"GET /%00" + head, []int{404}, ""},
		{"GET /" + strings.Repeat("%01", 10_000) + head, []int{404}, ""}, // an answer six times as long would hit whom it is sent to
		{strings.Repeat("X", 10_000) + " / " + head[1:], []int{405}, ""},
		{"GET /healthz\r\n\r\n", []int{400}, ""},
		{"GET /healthz HTTP/0.9\r\n\r\n", []int{505}, ""},
		{"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", []int{505}, ""},
		{"GET /healthz HTTP/3.0\r\nHost: localhost\r\n\r\n", []int{505}, ""},
		{"GET /healthz HTTP/11\r\nHost: localhost\r\n\r\n", []int{400}, ""},
		{"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", []int{400, 405, 505}, ""}, // with SM, it is HTTP/2
		{"\x16\x03\x01\x02\x00\x01\r\n\r\n", []int{400}, ""},
		{"GET /healthz HTTP/1.1\r\n\r\n", []int{400}, ""},
		{"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", []int{400}, ""},
		{"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", []int{400}, ""},
		{"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: the spanish inquisition\r\n\r\n", []int{417}, ""},
	} {
		t.Run(fmt.Sprintf("%.60q", test.request), func(t *testing.T) {
			s.t = t
			resp, _ := s.raw(test.request)
			wantOneOf(t, resp, test.statuses)
			body, _ := io.ReadAll(resp.Body)
			if len(body) > 1000 || !strings.Contains(string(body), test.body) || strings.Contains(string(body), "hunter2") || resp.Header.Get("Location") != "" {
				t.Errorf("%v %s", resp.Header, body)
			}
		})
	}
}

// TestHugeHeads: what is not an end has to be held in memory until it comes.
func TestHugeHeads(t *testing.T) {
	t.Parallel()
	const k = 1 << 10
	const start = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
	servers := map[bool]*target{false: attack(t, false), true: attack(t, true)}
	for name, request := range map[string]string{
		"a header":         start + "A: " + strings.Repeat("x", 100*k) + "\r\n\r\n",
		"a name":           start + strings.Repeat("x", 100*k) + ": a\r\n\r\n",
		"many headers":     start + strings.Repeat("A: b\r\n", 20*k) + "\r\n",
		"folded headers":   start + "A: b\r\n" + strings.Repeat(" c\r\n", 30*k) + "\r\n",
		"an address":       "GET /" + strings.Repeat("x", 100*k) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a query":          "GET /v1/events?" + strings.Repeat("feed=a&", 15*k) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a method":         strings.Repeat("X", 100*k) + " / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"a head, no end":   start + "A: " + strings.Repeat("x", 10<<20),
		"an address, none": "GET /" + strings.Repeat("x", 10<<20),
	} {
		for secure, s := range servers {
			t.Run(fmt.Sprintf("%s, TLS is %t", name, secure), func(t *testing.T) {
				s.t = t
				resp, r := s.raw(request)
				wantOneOf(t, resp, []int{http.StatusRequestHeaderFieldsTooLarge})
				if _, err := io.Copy(io.Discard, r); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("the connection goes on: %v", err)
				}
			})
		}
	}
	s := servers[false]
	s.t = t
	if resp, _ := s.raw(start + "A: " + strings.Repeat("x", 60*k) + "\r\n\r\n"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// TestUpgrades: HTTP/2 without TLS has limits of its own, which nobody has set,
// and proxies that let an upgrade pass do not look at what follows.
func TestUpgrades(t *testing.T) {
	t.Parallel()
	for _, upgrade := range []string{"h2c", "websocket", "TLS/1.3", "h2c, websocket"} {
		s := attack(t, false)
		resp, r := s.raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade +
			"\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" +
			"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Upgrade") != "" {
			t.Errorf("%s: %s %v", upgrade, resp.Status, resp.Header)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp, err := http.ReadResponse(bufio.NewReader(r), nil); err != nil || resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/1.1" {
			t.Errorf("%s: then %v, %v", upgrade, resp, err)
		}
	}
}

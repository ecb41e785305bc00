package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// aRequestID matches the ids that the server makes.
var aRequestID = regexp.MustCompile(`^[a-z2-7]{12}-[1-9][0-9]*$`)

// TestRequestIDs: every answer has the id of its request.
func TestRequestIDs(t *testing.T) {
	console := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "console") })
	n := start(t, server.Options{Console: console, Origins: []string{"https://a.example"}, Subscribers: 5}, nil)
	n.publish("chat", "x", 1)
	n.publish("done", "x", 1)
	n.closeFeed("done")
	onlyHosts := httptest.NewServer(server.OnlyHosts([]string{"a.example"}, nil, n.Server))
	t.Cleanup(onlyHosts.Close)
	waiting := httptest.NewServer(server.Waiting(server.Options{Console: console, Origins: []string{"https://a.example"}}))
	t.Cleanup(waiting.Close)
	seen := map[string]bool{}
	for _, c := range []struct {
		url, method, path string
		header            map[string]string
		status            int
	}{
		{n.url, "GET", "/", nil, 200},
		{n.url, "GET", "/healthz", nil, 200},
		{n.url, "HEAD", "/readyz", nil, 200},
		{n.url, "GET", "/openapi.yaml", map[string]string{"If-None-Match": "*"}, 304},
		{n.url, "POST", events, nil, 201},
		{n.url, "POST", events + "?ephemeral=true", nil, 202},
		{n.url, "POST", "/v1/feeds/x/events", map[string]string{"Content-Type": "text/event-stream"}, 201},
		{n.url, "POST", events + "?type=feed.x", nil, 400},
		{n.url, "DELETE", "/v1/feeds/chat", nil, 204},
		{n.url, "PUT", events, nil, 405},
		{n.url, "OPTIONS", events, map[string]string{"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}, 200},
		{n.url, "GET", events, nil, 200},
		{n.url, "GET", events, map[string]string{"Accept": "text/event-stream"}, 200},
		{n.url, "GET", events, map[string]string{"Accept": "application/json"}, 200},
		{n.url, "HEAD", events, nil, 200},
		{n.url, "GET", "/v1/feeds/done/events?lastEventId=1", nil, 204},
		{onlyHosts.URL, "GET", events, map[string]string{"Host": "evil.example"}, 421},
		{onlyHosts.URL, "GET", "/healthz", nil, 200},
		{waiting.URL, "GET", "/healthz", nil, 200},
		{waiting.URL, "GET", "/readyz", nil, 503},
		{waiting.URL, "GET", "/", nil, 200},
		{waiting.URL, "POST", events, nil, 503},
		{waiting.URL, "GET", events, map[string]string{"Accept": "text/event-stream"}, 200},
		{waiting.URL, "GET", events, nil, 503},
		{waiting.URL, "OPTIONS", events, map[string]string{"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}, 200},
	} {
		for _, own := range []string{"", "the.Client's", "Client_1.a-Z"} {
			r, err := http.NewRequestWithContext(t.Context(), c.method, c.url+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			r.Host = c.header["Host"]
			if own != "" {
				r.Header.Set("X-Request-Id", own)
			}
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			ids := resp.Header["X-Request-Id"]
			kept := own == "Client_1.a-Z" && len(ids) == 1 && ids[0] == own
			made := own != "Client_1.a-Z" && len(ids) == 1 && aRequestID.MatchString(ids[0]) && !seen[ids[0]]
			if resp.StatusCode != c.status || !kept && !made {
				t.Errorf("%s %s%s %v: %s %q for %q", c.method, c.url, c.path, c.header, resp.Status, ids, own)
			}
			if made {
				seen[ids[0]] = true
			}
		}
	}
}

// TestWhichRequestIDs: what can be an id is kept as it is.
func TestWhichRequestIDs(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for _, good := range []string{"a", "0", ".", "-", "_", strings.Repeat("x", 128)} {
		if r, _ := n.do("GET", "/healthz", map[string]string{"X-Request-Id": good}, ""); r.Header.Get("X-Request-Id") != good {
			t.Errorf("%q became %q", good, r.Header.Get("X-Request-Id"))
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "a:b", "é", `a"`, "a,b", strings.Repeat("x", 129), "a\r\nX-Request-Id: b"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %s\r\n\r\n", bad)
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if ids := r.Header["X-Request-Id"]; len(ids) != 1 || !aRequestID.MatchString(ids[0]) {
			t.Errorf("%q became %q", bad, ids)
		}
		r.Body.Close()
		conn.Close()
	}
}

// TestRequestIDInTheHead: the head of a stream begins with its type, which is what an
// EventSource cannot do without, and ends with what may be long.
func TestRequestIDInTheHead(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\n\r\n", events)
		r := bufio.NewReader(conn)
		var names []string
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == "\r\n" {
				break
			}
			name, _, _ := strings.Cut(line, ":")
			names = append(names, name)
		}
		conn.Close()
		if head := strings.Join(names, " "); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n Content-Type ") || !strings.HasSuffix(head, " Location") || strings.Count(head, "X-Request-Id") != 1 {
			t.Fatalf("the head is %s", head)
		}
	}
}

package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

func TestParseBasePath(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "/": "", "/rejoin": "/rejoin", "/rejoin/": "/rejoin", "/a/b-c/d.e_f~": "/a/b-c/d.e_f~", "/v2": "/v2", "/@x:y": "/@x:y",
	} {
		if got, err := server.ParseBasePath(text); got != want || err != nil {
			t.Errorf("%q is read as %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"rejoin", "rejoin/", "//", "//rejoin", "/a//b", "/rejoin//", "/..", "/a/../b", "/./a", "/a/.", "/a?b", "/a?", "/a#b", "/a b", "/%61",
		"/ä", "/a\n", "http://a.example/b", "/<a>", `/a"`, "/v1", "/v1/x", "/feeds", "/console/", "/demo", "/healthz", "/readyz", "/openapi.yaml",
		"/" + strings.Repeat("a", 255),
	} {
		if got, err := server.ParseBasePath(text); err == nil {
			t.Errorf("%q is accepted as %q", text, got)
		}
	}
}

// pages stands for the console: it answers with the path that it is asked for.
var pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page ", r.URL.EscapedPath()) })

// TestBasePath: the addresses in all answers begin with the base path, whether the proxy
// in front passes it on or removes it, and whichever router the server is mounted in.
func TestBasePath(t *testing.T) {
	n := start(t, server.Options{BasePath: "/in/rejoin/", Console: pages}, nil)
	n.publish("chat", "one", 1)
	n.publish("chat", "two", 2)
	mux, router := http.NewServeMux(), chi.NewRouter()
	mux.Handle("/in/rejoin/", n.Server)
	router.Use(func(next http.Handler) http.Handler { return next })
	router.Route("/in", func(r chi.Router) { r.Mount("/rejoin", n.Server) })
	for name, test := range map[string]struct {
		handler http.Handler
		prefix  string // of the requests
	}{
		"passed on":        {n.Server, "/in/rejoin"},
		"removed":          {n.Server, ""},
		"http.StripPrefix": {http.StripPrefix("/in/rejoin", n.Server), "/in/rejoin"},
		"http.ServeMux":    {mux, "/in/rejoin"},
		"chi":              {router, "/in/rejoin"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(test.handler)
			s.Config.ConnContext = overBoth
			s.Start()
			defer s.Close()
			defer s.CloseClientConnections() // the streams
			checkBasePath(t, s.URL+test.prefix)
		})
	}
}

// checkBasePath checks what a server with two events answers at the address.
func checkBasePath(t *testing.T, url string) {
	t.Helper()
	const text, page = "text/event-stream", "application/json"
	for _, test := range []struct {
		method, path, accept string
		status               int
		header, want         string
		body                 string
	}{
		{"POST", "/v1/feeds/other/events", "", 201, "Location", "/in/rejoin/v1/feeds/other/events/", `{"feed":"other","id":`},
		{"POST", "/v1/feeds/c%68at/events?type=feed.x", "", 400, "Location", "", `{"title"`},
		{"GET", "/v1/feeds/chat/events?from=start&lastEventId=0", text, 200, "Location", "/in/rejoin/v1/feeds/chat/events?from=start", "retry: "},
		{"GET", "/v1/feeds/c%68at/stream?a=b&lastEventId=0", text, 200, "Location", "/in/rejoin/v1/feeds/c%68at/stream?a=b", "retry: "},
		{"GET", "/v1/events?feed=chat,other", text, 200, "Location", "", "retry: "},
		{"GET", "/v1/feeds/chat/events?after=0&limit=1", page, 200, "Link", `</in/rejoin/v1/feeds/chat/events?after=1&limit=1>; rel="next"`, `{"feed":"chat"`},
		{"GET", "/v1/feeds/chat/events?before=3&limit=1", page, 200, "Link", `</in/rejoin/v1/feeds/chat/events?before=2&limit=1>; rel="prev"`, `{"feed":"chat"`},
		{"PUT", "/v1/feeds/chat", "", 405, "Allow", "GET, HEAD, DELETE", `{"title"`},
		{"GET", "/v1/feeds/chat/events/2", "", 200, "ETag", "", `{"feed":"chat","id":2`},
		{"GET", "/in/rejoin/v1/feeds/chat/events/2", "", 200, "ETag", "", `{"feed":"chat","id":2`},
		{"GET", "/readyz", "", 200, "Location", "", `{"ready":true`},
		{"GET", "/openapi.yaml", "", 200, "Location", "", "openapi: 3"},
		{"GET", "/feeds/a%2Fb", "", 200, "Location", "", "page /feeds/a%2Fb"},
		{"GET", "/in/rejoinder", "", 200, "Location", "", "page /in/rejoinder"},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			resp := answerTo(t, test.method, url+test.path, test.accept)
			head := make([]byte, len(test.body))
			_, err := io.ReadFull(resp.Body, head)
			if resp.StatusCode != test.status || string(head) != test.body {
				t.Errorf("%s with %q (%v), want %d with %q", resp.Status, head, err, test.status, test.body)
			}
			got := strings.Join(resp.Header.Values(test.header), ", ")
			if test.header != "ETag" && (test.want == "") != (got == "") || !strings.HasPrefix(got, test.want) {
				t.Errorf("%s is %q, want %q", test.header, got, test.want)
			}
		})
	}
}

// answerTo sends a request, follows no redirect, and leaves the body to the caller.
func answerTo(t *testing.T, method, url, accept string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("text"))
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestBasePathItself: without the slash, the links of a page would lead elsewhere.
func TestBasePathItself(t *testing.T) {
	n := start(t, server.Options{BasePath: "/rejoin", Console: pages}, nil)
	for path, want := range map[string]string{
		"/rejoin": "308 /rejoin/", "/rejoin/": "200 page /", "/": "200 page /", "/rejoin//": "200 page //", "/%72ejoin/": "200 page /%72ejoin/",
	} {
		resp, body := n.do("GET", path, nil, "")
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"), body); got != want {
			t.Errorf("GET %s: %s, want %s", path, got, want)
		}
	}
	if _, got := n.do("GET", "/rejoin/openapi.yaml", nil, ""); !strings.Contains(got, "\nservers:\n  - url: /rejoin\n") {
		t.Error("the description of the interface does not name the base path")
	}
	n.Reconfigure(server.Options{Console: pages})
	if resp, body := n.do("GET", "/rejoin", nil, ""); resp.StatusCode != 200 || body != "page /rejoin" {
		t.Errorf("without a base path: %s, %q", resp.Status, body)
	}
}

func TestBasePathWhileWaiting(t *testing.T) {
	s := httptest.NewServer(server.Waiting(server.Options{BasePath: "/rejoin", Console: pages}))
	defer s.Close()
	for path, want := range map[string]string{
		"/rejoin": "308", "/rejoin/": "200", "/rejoin/feeds/chat": "200", "/feeds/chat": "200",
		"/rejoin/healthz": "200", "/healthz": "200", "/rejoin/readyz": "503", "/rejoin/openapi.yaml": "200", "/rejoin/v1/feeds/chat": "503",
	} {
		if resp := answerTo(t, "GET", s.URL+path, ""); !strings.HasPrefix(resp.Status, want) || want == "308" && resp.Header.Get("Location") != "/rejoin/" {
			t.Errorf("GET %s: %s to %q, want %s", path, resp.Status, resp.Header.Get("Location"), want)
		}
	}
	if got := answerTo(t, "GET", s.URL+"/v1/feeds/chat/events", "text/event-stream").Header.Get("Location"); got != "/rejoin/v1/feeds/chat/events" {
		t.Errorf("the Location of a stream is %q", got)
	}
}

// TestBasePathAsked: the application is asked about what its client asked for.
func TestBasePathAsked(t *testing.T) {
	n, app := asking(t, auth.ForwardOptions{}, server.Options{BasePath: "/rejoin"})
	var uris []string
	app.set(func(_ http.ResponseWriter, r *http.Request) { uris = append(uris, r.Header.Get("X-Forwarded-Uri")) })
	for _, path := range []string{"/rejoin/v1/feeds/a?access_token=x", "/v1/feeds/b"} {
		n.do("GET", path, map[string]string{"Authorization": "Bearer x"}, "")
	}
	if got := strings.Join(uris, " "); got != "/rejoin/v1/feeds/a /rejoin/v1/feeds/b" {
		t.Errorf("it is asked about %q", got)
	}
}

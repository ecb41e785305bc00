package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exchange is a request and the status that it has to be answered with.
type exchange struct {
	request string // method and path
	status  int
	header  string // lines; {admin} stands for a token that may everything
	body    string
}

// reply is what a client sees of an answer, and how it ended.
type reply struct {
	Status int
	Header http.Header
	Body   string
	End    string // clean, broken; of HTTP/1.0, where both look alike, close
}

// protocol is a way to ask.
type protocol struct {
	name string
	ask  func(s *target, x exchange) reply
}

var protocols = []protocol{
	{"HTTP/1.0", func(s *target, x exchange) reply { return s.askRaw("HTTP/1.0", x) }},
	{"HTTP/1.1", func(s *target, x exchange) reply { return s.askRaw("HTTP/1.1", x) }},
	{"HTTP/2.0", (*target).askHTTP2},
}

// begin sends the request as text and returns the head of the answer, and the
// bytes that follow as they come.
func (s *target) begin(proto string, x exchange) (resp *http.Response, rest *bytes.Buffer) {
	s.t.Helper()
	conn := s.dial("http/1.1")
	method, path, _ := strings.Cut(x.request, " ")
	head := fmt.Sprintf("%s %s %s\r\nHost: localhost\r\nConnection: close\r\n", method, path, proto)
	for line := range strings.Lines(x.header) {
		head += strings.TrimSuffix(line, "\n") + "\r\n"
	}
	if method == http.MethodPost {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(x.body))
	}
	go func() { _, _ = io.WriteString(conn, head+"\r\n"+x.body) }() // who refuses does not read to the end
	rest = new(bytes.Buffer)
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, rest)), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s: %v", x.request, err)
	}
	if resp.Proto != proto {
		s.t.Errorf("%s %s is answered with %s", x.request, proto, resp.Proto)
	}
	return resp, rest
}

func (s *target) askRaw(proto string, x exchange) reply {
	s.t.Helper()
	resp, rest := s.begin(proto, x)
	return s.finish(resp, func(err error) string {
		last := bytes.HasSuffix(rest.Bytes(), []byte("\r\n0\r\n\r\n"))
		chunked := len(resp.TransferEncoding) > 0
		switch {
		case proto == "HTTP/1.0":
			return "close"
		case err == nil && last == chunked:
			return "clean"
		case errors.Is(err, io.ErrUnexpectedEOF) && chunked && !last:
			return "broken"
		}
		return fmt.Sprintf("%v, the last chunk is there: %t", err, last)
	})
}

func (s *target) beginHTTP2(x exchange) *http.Response {
	s.t.Helper()
	method, path, _ := strings.Cut(x.request, " ")
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(x.body))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(x.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		r.Header.Add(name, value)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatalf("%s: %v", x.request, err)
	}
	if resp.ProtoMajor != 2 {
		s.t.Errorf("%s is answered with %s", x.request, resp.Proto)
	}
	return resp
}

func (s *target) askHTTP2(x exchange) reply {
	s.t.Helper()
	return s.finish(s.beginHTTP2(x), endOfHTTP2)
}

// endOfHTTP2 tells RST_STREAM from END_STREAM.
func endOfHTTP2(err error) string {
	switch {
	case err == nil:
		return "clean"
	case strings.Contains(err.Error(), "INTERNAL_ERROR; received from peer"):
		return "broken"
	}
	return err.Error()
}

var changing = regexp.MustCompile(`retry: \d+|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|"bytes":\d+`)

// finish reads an answer to its end, and takes out what is different each time.
func (s *target) finish(resp *http.Response, end func(error) string) reply {
	s.t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, name := range []string{"Date", "Connection", "Content-Length", "Transfer-Encoding", "X-Request-Id"} {
		resp.Header.Del(name)
	}
	if len(resp.Header.Get("ETag")) > 10 { // made of the store and its times
		resp.Header.Set("ETag", "changing")
	}
	// Keep-alives come when they come.
	text := strings.ReplaceAll("\n"+string(body), "\n:\n", "\n")[1:]
	return reply{resp.StatusCode, resp.Header, changing.ReplaceAllString(text, "changing"), end(err)}
}

// TestProtocols: whichever version of HTTP a client or a proxy speaks, it gets
// the same answers.
func TestProtocols(t *testing.T) {
	t.Parallel()
	replies := make(map[string][]reply)
	for _, p := range protocols {
		s := attack(t, true, "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret)
		tokens := strings.NewReplacer("{admin}", s.token("--admin", "--subscribe", "*", "--publish", "*"), "{reader}", s.token("--subscribe", "chat"))
		for _, x := range wholeTable {
			x.header = tokens.Replace(x.header)
			got := p.ask(s, x)
			if got.Status != x.status || got.End == "broken" {
				t.Errorf("%s %s: %+v, want %d", p.name, x.request, got, x.status)
			}
			if p.name == "HTTP/1.0" {
				got.End = "clean"
			}
			replies[p.name] = append(replies[p.name], got)
		}
		s.stop()
	}
	for _, p := range protocols {
		for i, x := range wholeTable {
			if diff := cmp.Diff(replies["HTTP/1.1"][i], replies[p.name][i]); diff != "" {
				t.Errorf("%s over %s (+) is not what it is over HTTP/1.1 (-): %s", x.request, p.name, diff)
			}
		}
	}
	for _, got := range replies["HTTP/1.1"] {
		if got.Status >= 400 && got.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%+v is no problem", got)
		}
	}
}

// token makes a token, as users do.
func (s *target) token(rights ...string) string {
	s.t.Helper()
	return makeTokenWith(s.t, built(s.t, false), rights...)
}

// TestHowStreamsEnd: some clients never come back after a clean end, and the
// others would come back for ever after a break.
func TestHowStreamsEnd(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"text/event-stream", "application/x-ndjson"} {
		t.Run(form, func(t *testing.T) {
			s := attack(t, true)
			publishAll(t, s, "chat", "x")
			open := exchange{"GET /v1/feeds/chat/events?from=start", 200, "Accept: " + form, ""}
			http11, rest := s.begin("HTTP/1.1", open)
			http2 := s.beginHTTP2(open)
			for _, resp := range []*http.Response{http11, http2} { // until they have said what there is
				r := bufio.NewReader(resp.Body)
				for line := ""; !strings.Contains(line, `"x"`) && line != "data: x\n"; {
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				resp.Body = struct {
					io.Reader
					io.Closer
				}{r, resp.Body}
			}
			if _, err := s.client.Post(s.url+"/v1/feeds/done/events?close=true", "text/plain", strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
			closed := exchange{"GET /v1/feeds/done/events?from=start", 200, "Accept: " + form, ""}
			for _, p := range protocols[1:] {
				if got := p.ask(s, closed); got.End != "clean" || !strings.Contains(got.Body, "feed.closed") {
					t.Errorf("%s: a closed feed ends with %+v", p.name, got)
				}
			}
			s.stop()
			got := s.finish(http11, func(err error) string {
				if !errors.Is(err, io.ErrUnexpectedEOF) || bytes.HasSuffix(rest.Bytes(), []byte("\r\n0\r\n\r\n")) {
					return "clean"
				}
				return "broken"
			})
			for name, got := range map[string]reply{"HTTP/1.1": got, "HTTP/2.0": s.finish(http2, endOfHTTP2)} {
				if got.End != "broken" || !strings.Contains(got.Body, "feed.cursor") || form == "text/event-stream" && !strings.Contains(got.Body, "changing\nevent: feed.cursor\n") {
					t.Errorf("%s: a drain ends with %+v", name, got)
				}
			}
		})
	}
}

func publishAll(t *testing.T, s *target, feed string, data ...string) {
	t.Helper()
	for _, text := range data {
		if _, err := publish(s.client, s.url, feed, text); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShedOverEachVersion: over every version, who is told to come back must come back.
func TestShedOverEachVersion(t *testing.T) {
	s := attack(t, true, "REJOIN_LIMITS_SUBSCRIBERS=1")
	first := s.beginHTTP2(exchange{"GET /v1/feeds/chat/events", 200, "", ""})
	defer first.Body.Close()
	for _, p := range protocols {
		got := p.ask(s, exchange{"GET /v1/feeds/chat/events", 200, "Accept: text/event-stream", ""})
		if got.Status != 200 || got.Body != "changing\n" || got.End != "broken" && p.name != "HTTP/1.0" {
			t.Errorf("%s: %+v", p.name, got)
		}
		if got := p.ask(s, exchange{"GET /v1/feeds/chat/events", 503, "", ""}); got.Status != 503 || got.Header.Get("Retry-After") == "" || got.End == "broken" {
			t.Errorf("%s: %+v", p.name, got)
		}
	}
}

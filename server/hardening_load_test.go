package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server"
)

// TestNames: no other spelling of a name passes the check. It would reach another feed
// than the token names, or a file.
func TestNames(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "x", 1)
	for _, name := range []string{
		".", "..", "../chat", "%2e", "%2e%2e", "%2e%2e%2fchat", "%2E%2E/chat", "..%2Fchat", "x%2F..%2Fchat", "..%5Cchat", "%252e%252e", "%252Fchat", "chat%252F",
		"chat%2F", "chat%00", "%00chat", "chat%2500", "chat;", "chat;x=y", ";chat", "chat%3B", "/chat", "//chat", "chat/", "chat//", "%2Fchat", "chat%20", "%20chat",
		"chat%09", "chat%0A", "chat%0D%0A", "chat%3F", "chat%23", "chat%25", "chat%2563", "chat+", "chat*", "chat,news", "chat%2Cnews", "",
		"%63%68%61%74%2F", "%c0%ae%c0%ae", "%c0%af", "%e0%80%af", "%ff", "сhat", "cha%74%CC%81", "chat%E2%80%8B", "%EF%BD%83hat", "chat%C2%AD", "chat%EF%BC%8Fx", "$(chat)", "`chat`", "'chat'", "-chat", "_chat", ".chat", "~chat", ":chat", "@chat",
		strings.Repeat("x", 256), strings.Repeat("x", 30_000), strings.Repeat("%78", 256), strings.Repeat("%C3%A9", 200), strings.Repeat("../", 1000) + "chat",
	} {
		for _, test := range []struct{ method, path string }{
			{"GET", "/v1/feeds/" + name + "/events?from=start"}, {"POST", "/v1/feeds/" + name + "/events"}, {"GET", "/v1/feeds/" + name + "/events/1"},
			{"GET", "/v1/feeds/" + name}, {"DELETE", "/v1/feeds/" + name}, {"DELETE", "/v1/feeds/" + name + "/events?before=9"}, {"POST", "/v1/feeds/" + name + "/close"},
		} {
			if name == "" && test.path == "/v1/feeds/" {
				continue
			}
			r, body := n.do(test.method, test.path, map[string]string{"Accept": "application/json"}, "y")
			// 405 means that the name has become part of another address.
			if r.StatusCode != 400 && r.StatusCode != 404 && r.StatusCode != 405 {
				t.Errorf("%s %.80s: %s %.200s", test.method, test.path, r.Status, body)
				continue
			}
			wantProblem(t, r, body, r.StatusCode, "")
			if r.Header.Get("Location") != "" {
				t.Errorf("%s %.80s is sent to %s", test.method, test.path, r.Header.Get("Location"))
			}
		}
	}
	if _, body := n.do("GET", "/v1/feeds", nil, ""); strings.Count(body, `"feed":`) != 1 || !strings.Contains(body, `{"feed":"chat","first":1,"last":1,"closed":false`) {
		t.Errorf("the feeds are %s", body)
	}
	// There is one other spelling of the same name: a needless escape.
	if _, body := n.do("GET", "/v1/feeds/%63h%61t/events/1", nil, ""); !strings.Contains(body, `"data":"x"`) {
		t.Error(body)
	}
}

// cost returns how many allocations a request takes, and the status.
func (n *node) cost(t *testing.T, r *http.Request) (allocations float64, status int) {
	t.Helper()
	allocations = testing.AllocsPerRun(1, func() {
		w := httptest.NewRecorder()
		n.ServeHTTP(w, r)
		status = w.Code
		if w.Body.Len() > 1000 {
			t.Errorf("the answer has %d bytes", w.Body.Len())
		}
	})
	return allocations, status
}

// TestHugeQuestions: if a request is cheap to send and expensive to read, one client
// can take the processor from all others.
func TestHugeQuestions(t *testing.T) {
	n := start(t, server.Options{}, nil)
	many := func(item string) string { return strings.Repeat(item, 60_000/len(item)) }
	for _, accept := range []string{
		"a/b,", "a/b;q=0.1,", ",", "text/event-strea,", `a/b;x="\",",`, "a/b;a*0*=x;a*1*=y;a*2*=z,", "application/jso;q=1,", "*/*,", ";", "/", "\t,", "q=",
	} {
		r := httptest.NewRequest("GET", events+"?from=x", nil)
		r.Header.Set("Accept", many(accept))
		if got, status := n.cost(t, r); got > 1000 || status != 400 {
			t.Errorf("%q: %v allocations, %d", accept, got, status)
		}
		r.Header = http.Header{"If-None-Match": {many(accept)}, "Accept": {"application/json"}}
		r.URL.RawQuery = ""
		if got, status := n.cost(t, r); got > 1000 || status != 200 {
			t.Errorf("If-None-Match: %q: %v allocations, %d", accept, got, status)
		}
	}
	var names strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&names, "f%d,", i)
	}
	for query, want := range map[string]int{
		strings.Repeat("x=y&", 10_000):                       400, // more than net/url takes
		strings.Repeat("feed=a&", 9000):                      200,
		"feed=" + strings.Repeat("a,", 30_000) + "a":         200,
		"feed=" + names.String() + "a":                       400,
		strings.ReplaceAll("feed="+names.String(), ",", "&"): 400,
		"feed=a&types=" + names.String() + "a":               400, // each event is compared with all of them
		"feed=a&types=" + strings.Repeat("x", 60_000):        400,
		"feed=a&control=" + strings.Repeat("live,", 10_000):  400,
		"feed=a&lastEventId=" + strings.Repeat("a=1,", 1000): 400,
		"feed=a&" + strings.Repeat("types=a&", 7000):         400,
		"feed=a&" + strings.Repeat("types=a&", 1000):         200,
		"feed=a&" + strings.Repeat("limit=1&", 7000):         400,
		"feed=a&from=" + strings.Repeat("1", 60_000):         400,
		"feed=a&heartbeat=" + strings.Repeat("1s", 30_000):   200,
		strings.Repeat("%", 60_000):                          400,
		strings.Repeat("&", 60_000):                          400,
		strings.Repeat(";", 60_000):                          400,
	} {
		begin := processorTime(t)
		_, status := n.cost(t, httptest.NewRequest("HEAD", "/v1/events?"+query, nil))
		if took := processorTime(t) - begin; status != want || took > time.Second {
			t.Errorf("%.30q: %d after %v of the processor, want %d", query, status, took, want)
		}
	}
}

// processorTime returns how long this process has run on processors.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestDeepJSON: a recursive parser can use up its stack. A client's parser with a
// limit may refuse an event that this server has taken, with the whole page that has
// the event.
func TestDeepJSON(t *testing.T) {
	n := start(t, server.Options{}, nil)
	nested := func(open, end string, depth int) string {
		return strings.Repeat(open, depth) + "1" + strings.Repeat(end, depth)
	}
	taken := 0
	for _, test := range []struct {
		name, value string
		status      int
	}{
		{"500 arrays", nested("[", "]", 500), 201},
		{"501 arrays", nested("[", "]", 501), 400},
		{"10,000 arrays", nested("[", "]", 10_000), 400},
		{"20,000 arrays", nested("[", "]", 20_000), 400},
		{"100,000 arrays", nested("[", "]", 100_000), 413},
		{"100,000 arrays without an end", strings.Repeat("[", 100_000), 400},
		{"500 objects", nested(`{"a":`, "}", 500), 201},
		{"501 objects", nested(`{"a":`, "}", 501), 400},
		{"brackets in a string", `["` + strings.Repeat(`[{\"`, 5000) + `"]`, 201},
		{"20,000 arrays beside each other", "[" + strings.Repeat("[],", 19_000) + "[]]", 201},
		{"a number of 50,000 digits", strings.Repeat("1", 50_000), 201},
		{"a number of 1 MiB", strings.Repeat("1", 1<<20), 413},
		{"a fraction of 50,000 digits", "0." + strings.Repeat("1", 50_000) + "e999999999", 201},
		{"a string of 1 MiB", `"` + strings.Repeat("x", 1<<20) + `"`, 413},
		{"escapes", `"` + strings.Repeat(`\u0041`, 9000) + `"`, 201},
	} {
		begin := processorTime(t)
		r, body := n.do("POST", events, map[string]string{"Content-Type": "application/json"}, test.value)
		if r.StatusCode != test.status {
			t.Errorf("%s: %s %s", test.name, r.Status, body)
		}
		line := `{"feed":"lines","data":` + test.value + "}"
		r, body = n.do("POST", "/v1/events", map[string]string{"Content-Type": "application/x-ndjson"}, line)
		if r.StatusCode != test.status && r.StatusCode != 400 || test.status == 201 && r.StatusCode != 201 {
			t.Errorf("%s as a line: %s %s", test.name, r.Status, body)
		}
		if took := processorTime(t) - begin; took > 5*time.Second {
			t.Errorf("%s took %v of the processor", test.name, took)
		}
		if test.status == 201 {
			taken++
		}
	}
	for _, feedName := range []string{"chat", "lines"} {
		_, body := n.do("GET", "/v1/feeds/"+feedName+"/events", map[string]string{"Accept": "application/json"}, "")
		var p struct{ Events []any }
		decoder := json.NewDecoder(strings.NewReader(body))
		decoder.UseNumber()
		if err := decoder.Decode(&p); err != nil || len(p.Events) != taken {
			t.Errorf("%s: %d events of %d, %v", feedName, len(p.Events), taken, err)
		}
	}
}

// TestBombs: a few bytes that become gigabytes.
func TestBombs(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	if _, err := io.Copy(w, io.LimitReader(zeros{}, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, coding := range []string{"gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip", "aes128gcm"} {
		for path, media := range map[string]string{events: "application/json", "/v1/events": "application/x-ndjson", events + "?ephemeral=true": "text/plain"} {
			r, body := n.do("POST", path, map[string]string{"Content-Encoding": coding, "Content-Type": media}, bomb.String())
			wantProblem(t, r, body, http.StatusUnsupportedMediaType, "content coding")
		}
	}
	if r, body := n.do("GET", "/v1/feeds/chat", nil, ""); r.StatusCode != http.StatusNotFound {
		t.Error(r.Status, body)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

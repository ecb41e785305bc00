package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// publishArgs runs rejoin publish against a server on a socket.
func publishArgs(t *testing.T, handler http.Handler, stdin io.Reader, args ...string) (code int, stdout, stderr string, conns int32) {
	t.Helper()
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	var out, notes bytes.Buffer
	code = run(t.Context(), append([]string{"publish", "--url", srv.URL}, args...), stdin, &out, &notes)
	return code, out.String(), notes.String(), opened.Load()
}

func TestPublishOneEvent(t *testing.T) {
	const text = "text/plain; charset=utf-8"
	for _, test := range []struct {
		args []string
		want clienttest.Stored
	}{
		{[]string{"--feed", "log", "hi"}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text, Data: "hi"}},
		{[]string{"log", "hi"}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text, Data: "hi"}},
		{[]string{"log", "--type", "t", "--", "--help"}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text, EventType: "t", Data: "--help"}},
		{[]string{"--feed", "log", ""}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text}},
		{[]string{"--feed", "a:b@c~d", "--type", "x.y/z", "a\nb\r\n"}, clienttest.Stored{Path: "/v1/feeds/a:b@c~d/events", ContentType: text, EventType: "x.y/z", Data: "a\nb\r\n"}},
		{[]string{"--feed", "log", "--json", `{"a":1}`}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: "application/json", Data: `{"a":1}`}},
		{[]string{"--feed", "log", "--mend", "--", "-\xff\x00"}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text, Data: "-\uFFFD\uFFFD"}},
	} {
		k := &clienttest.Keeper{}
		code, stdout, stderr, _ := publishArgs(t, k, nil, test.args...)
		if code != exitOK || stdout != "1\n" || stderr != "" {
			t.Errorf("%q: exit %d, %q, %q", test.args, code, stdout, stderr)
		}
		if diff := cmp.Diff([]clienttest.Stored{test.want}, k.Events); diff != "" {
			t.Errorf("%q: %s", test.args, diff)
		}
	}
}

func TestPublishUsage(t *testing.T) {
	for words, args := range map[string][]string{
		"which feed? Name it,":  {},
		"which feed? ":          {"--type", "t"},
		"character 2":           {"a b", "x"},
		"quotes around DATA":    {"log", "x", "y"},
		"character 1":           {"--feed", "../x", "x"},
		"--type: ":              {"--feed", "log", "--type", "feed.open", "x"},
		"\"y\" follows it":      {"--feed", "log", "x", "y"},
		"unknown flag":          {"--feed", "log", "--fed", "x"},
		"is not an address":     {"--feed", "log", "--url", "localhost:8080", "x"},
		"takes neither":         {"--feed", "log", "--url", "http://localhost/?a=b", "x"},
		"--key is for a single": {"--feed", "log", "--key", "k"},
		"1 to 255 characters":   {"--feed", "log", "--key", "", "x"},
		"--key: invalid":        {"--feed", "log", "--key", "a b", "x"},
		"is not an address su":  {"--feed", "log", "--url", "http://u:hunter2@[", "x"},
	} {
		k := &clienttest.Keeper{}
		code, stdout, stderr, _ := publishArgs(t, k, strings.NewReader("x\n"), args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, words) || strings.Contains(stderr, "hunter2") || k.Asked != 0 {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestPublishLines(t *testing.T) {
	long := strings.Repeat("x", 60_000)
	k := &clienttest.Keeper{}
	code, stdout, stderr, conns := publishArgs(t, k, strings.NewReader(" a \n\nb\r\nc\rd\n"+long+"\r\nlast"), "log", "--type", "line")
	if code != exitOK || stdout != "" || stderr != "rejoin: published 6 events to log, ids 1 to 6\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if diff := cmp.Diff([]string{" a ", "", "b", "c\rd", long, "last"}, k.Data()); diff != "" {
		t.Error(diff)
	}
	if conns != 1 {
		t.Errorf("%d connections for one pipe", conns)
	}
}

// TestPublishStops: publish reports the events that were stored before the bad line,
// and sends nothing after it.
func TestPublishStops(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		second string
		words  string
	}{
		{"too long", nil, strings.Repeat("x", 60_001), "line 2: it has more than the 60000 bytes"},
		{"far too long", nil, strings.Repeat("x", 1<<20), "line 2: it has more than the 60000 bytes"},
		{"not UTF-8", nil, "a\xff", "line 2: it is not UTF-8"},
		{"NUL", nil, "a\x00", "line 2: it is not UTF-8 text, or holds NUL"},
		{"refused", fails(413, nil), "x", "line 2: the detail of 413 (status 413)"},
		{"not in this version", fails(501, nil), "x", "line 2: the detail of 501"},
		{"another server", func(w http.ResponseWriter, _ *http.Request) {}, "x", "line 2: OK (status 200)"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "x", "points to"},
		{"an answer that is none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, "x", "line 2: it was stored, but the answer with its id cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &clienttest.Keeper{Answers: []http.HandlerFunc{nil, test.answer}}
			code, _, stderr, _ := publishArgs(t, k, strings.NewReader("first\n"+test.second+"\nthird\n"), "--feed", "log")
			if code != exitFailed || !strings.Contains(stderr, test.words) || !strings.HasPrefix(stderr, "rejoin: published 1 event to log, id 1\n") {
				t.Errorf("exit %d, %q", code, stderr)
			}
			if diff := cmp.Diff([]string{"first"}, k.Data()); diff != "" || k.Asked > 2 {
				t.Errorf("asked %d times\n%s", k.Asked, diff)
			}
		})
	}
}

func TestPublishMends(t *testing.T) {
	k := &clienttest.Keeper{}
	code, _, stderr, _ := publishArgs(t, k, strings.NewReader("a\xff\xfeb\nfine\n\x00\n"), "--feed", "log", "--mend")
	if diff := cmp.Diff([]string{"a\uFFFDb", "fine", "\uFFFD"}, k.Data()); diff != "" || code != exitOK ||
		stderr != "rejoin: published 3 events to log, ids 1 to 3; 2 of them mended\n" {
		t.Errorf("exit %d, %q\n%s", code, stderr, diff)
	}
}

// TestPublishAtOnce: a line must not wait for the next one, or a quiet log
// would be a line behind.
func TestPublishAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &clienttest.Keeper{}
		p, _, _ := newScriptPublisher(t, k, client.Options{})
		reader, writer := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- publishLines(t.Context(), p, reader) }()
		for n := range 3 {
			fmt.Fprintf(writer, "line %d\n", n)
			synctest.Wait()
			if len(k.Events) != n+1 {
				t.Fatalf("%d events after %d lines", len(k.Events), n+1)
			}
		}
		writer.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// newScriptPublisher returns a publisher to a server in the same bubble.
func newScriptPublisher(t *testing.T, handler http.Handler, o client.Options) (*linePublisher, *bytes.Buffer, *clienttest.Network) {
	t.Helper()
	network := clienttest.Serve(t, handler)
	var notes bytes.Buffer
	p := &linePublisher{feed: "log", notes: &notes}
	o.Retrying = p.noteWaiting
	p.client = newNetworkClient(t, network, o)
	return p, &notes, network
}

// TestPublishTriesAgain: an event that is certainly not stored is sent again until it
// is, once.
func TestPublishTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := clienttest.Away("no")
		many := slices.Repeat([]http.HandlerFunc{away}, 100) // hours
		k := &clienttest.Keeper{Answers: append([]http.HandlerFunc{nil, away, fails(429, map[string]string{"Retry-After": "20"}), away, nil}, many...)}
		p, notes, network := newScriptPublisher(t, k, client.Options{})
		network.Refuse.Store(3)
		begin := time.Now()
		if err := publishLines(t.Context(), p, strings.NewReader("a\nb\nc\nd\n")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a", "b", "c", "d"}, k.Data()); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(begin); took < 20*time.Second+100*7*time.Second {
			t.Errorf("103 refusals took no more than %v", took)
		}
		if n := strings.Count(notes.String(), "\n"); n != 7 {
			t.Errorf("%d notes on three waits, their ends and the summary:\n%s", n, notes)
		}
		if !strings.Contains(notes.String(), "cannot publish yet (connection refused), trying again\n") {
			t.Errorf("%q does not say why", notes)
		}
	})
}

// TestPublishPatience: publish of a single event reports a server that is away, and
// one that does not answer.
func TestPublishPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, network := newScriptPublisher(t, &clienttest.Keeper{}, client.Options{Patience: oneEventPatience})
		network.Refuse.Store(1000)
		begin := time.Now()
		var stdout bytes.Buffer
		err := publishOne(t.Context(), p, "x", &stdout)
		if err == nil || errors.Is(err, feed.ErrUncertain) || !strings.Contains(err.Error(), "connection refused") || stdout.Len() > 0 {
			t.Errorf("%v, %q", err, stdout.String())
		}
		if took := time.Since(begin); took < 10*time.Second || took > 30*time.Second {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := newScriptPublisher(t, &clienttest.Keeper{Answers: []http.HandlerFunc{clienttest.Hangs}}, client.Options{Patience: oneEventPatience})
		p.key = "a-key"
		begin := time.Now()
		err := publishOne(t.Context(), p, "x", io.Discard)
		if !errors.Is(err, feed.ErrUncertain) || time.Since(begin) != 30*time.Second ||
			err.Error() != "publish: its outcome is unknown: context deadline exceeded; sent with --key a-key, it is stored once in any case" {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// TestPublishInterrupted: if the server is about to answer a request, an interrupt
// does not make its outcome unknown.
func TestPublishInterrupted(t *testing.T) {
	const summary = "rejoin: published 1 event to log, id 1\n"
	for _, test := range []struct {
		name   string
		second http.HandlerFunc
		lines  string
		err    error
		notes  string
		took   time.Duration
	}{
		{"between lines", nil, "first\n", nil, summary, time.Second},
		{"before the answer", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(3 * time.Second):
			case <-r.Context().Done():
			}
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id":2}`)
		}, "first\nsecond\n", nil, "rejoin: published 2 events to log, ids 1 to 2\n", 3 * time.Second},
		{"before an answer that does not come", clienttest.Hangs,
			"first\nsecond\n", feed.ErrUncertain, summary, time.Second + 5*time.Second},
		{"while waiting, with an unknown outcome", fails(504, map[string]string{"Retry-After": "9"}), "first\nsecond\n", feed.ErrUncertain, "", time.Second},
		{"while waiting to try again", fails(429, map[string]string{"Retry-After": "9"}), "first\nsecond\n", errInterrupted, "", time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, notes, _ := newScriptPublisher(t, &clienttest.Keeper{Answers: []http.HandlerFunc{nil, test.second}}, client.Options{})
				ctx, interrupt := context.WithTimeout(t.Context(), time.Second)
				defer interrupt()
				reader, writer := io.Pipe()
				defer writer.Close()
				go func() { _, _ = io.WriteString(writer, test.lines) }()
				begin := time.Now()
				err := publishLines(ctx, p, reader)
				if !errors.Is(err, test.err) || !strings.HasSuffix(notes.String(), test.notes) {
					t.Errorf("%v, %q", err, notes)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
}

func TestPublishReadFails(t *testing.T) {
	k := &clienttest.Keeper{}
	stdin := io.MultiReader(strings.NewReader("a\nhalf a li"), lostDisk{})
	code, _, stderr, _ := publishArgs(t, k, stdin, "--feed", "log")
	if diff := cmp.Diff([]string{"a"}, k.Data()); diff != "" || code != exitFailed || !strings.Contains(stderr, "line 2: read standard input: the disk is gone") {
		t.Errorf("exit %d, %q\n%s", code, stderr, diff)
	}
}

type lostDisk struct{}

func (lostDisk) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

package verify

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// startServer serves a store of its own until the end of the test.
func startServer(t *testing.T) *url.URL {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "rejoin.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bus := memory.NewBus()
	node, err := feed.Open(store, bus, feed.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	handler := server.New(node.Hub, node.Publisher, server.Options{Logger: quiet})
	front := httptest.NewServer(handler)
	t.Cleanup(func() {
		handler.Drain(context.Background(), 0)
		front.Close()
		node.Close()
		handler.Close()
		bus.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// options are those of a short run.
func options(notes io.Writer, server string) Options {
	return Options{
		Servers: []string{server}, Prefix: "rejoin-verify", Feeds: 5, Subscribers: 12, Rate: 100,
		Duration: 1500 * time.Millisecond, Patience: time.Minute, Notes: notes,
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	var notes, table bytes.Buffer
	o := options(&notes, startServer(t).String())
	report, err := Run(t.Context(), o)
	for ; err == nil && report.Acknowledged < 20 && o.Duration < time.Minute; report, err = Run(t.Context(), o) {
		o.Duration *= 2 // a slow machine needs more time for as much
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, notes.String())
	}
	if err := report.Err(); err != nil || len(report.Findings) > 0 || report.Left != "" || report.Acknowledged < 20 {
		t.Errorf("%v, %+v\n%s", err, report, notes.String())
	}
	if err := report.Print(&table, false); err != nil || !strings.Contains(table.String(), "violations     0\n") {
		t.Errorf("%v, %s", err, table.String())
	}
}

// TestNothingIsProven: a report without a delivery proves nothing.
func TestNothingIsProven(t *testing.T) {
	for _, r := range []Report{{}, {Acknowledged: 1}, {Deliveries: 1}, {Acknowledged: 1, Deliveries: 1, Violations: 1}} {
		if r.Err() == nil {
			t.Errorf("%+v counts as a proof", r)
		}
	}
	if err := (&Report{Acknowledged: 1, Deliveries: 1}).Err(); err != nil {
		t.Error(err)
	}
}

// liars are servers that break their promise, each in its own way.
var liars = []struct {
	name     string
	findings []string                           // one of these has to be found
	event    func(n int64, block string) string // changes the block of an event
	answer   func(n int64, body string) string  // changes an acknowledgement
	forgets  bool                               // idempotency keys
}{
	{name: "loses", findings: []string{feedtest.Skipped}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return ""
		}
		return block
	}},
	{name: "repeats", findings: []string{feedtest.Repeated}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return block + block
		}
		return block
	}},
	{name: "garbles", findings: []string{feedtest.WrongBytes}, event: func(n int64, block string) string {
		if n%20 == 0 {
			return strings.ReplaceAll(block, "publisher-", "publisher_")
		}
		return block
	}},
	// The acknowledged event may exist, or not.
	{name: "acknowledges the wrong event", findings: []string{feedtest.WrongBytes, feedtest.LostAcknowledged}, answer: func(n int64, body string) string {
		if n%20 == 0 {
			return strings.Replace(body, `"id":`, `"id":1`, 1)
		}
		return body
	}},
	{name: "forgets keys", findings: []string{feedtest.KeyTwice}, forgets: true},
}

// TestRunFindsLiars puts each of them in front of a correct server.
func TestRunFindsLiars(t *testing.T) {
	u := startServer(t)
	for _, liar := range liars {
		t.Run(liar.name, func(t *testing.T) {
			t.Parallel() // they wait for events that do not come
			var events, answers atomic.Int64
			proxy := &httputil.ReverseProxy{
				FlushInterval: -1,
				ErrorLog:      log.New(io.Discard, "", 0), // subscribers cut their connections
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(u)
					if liar.forgets {
						r.Out.Header.Del("Idempotency-Key")
					}
				},
				ModifyResponse: func(resp *http.Response) error {
					stream := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
					switch {
					case stream && liar.event != nil:
						resp.Body = lieInStream(resp.Body, func(block string) string { return liar.event(events.Add(1), block) })
					case resp.StatusCode == http.StatusCreated && liar.answer != nil:
						body, err := io.ReadAll(resp.Body)
						if err != nil {
							return err
						}
						lie := liar.answer(answers.Add(1), string(body))
						resp.Header.Del("Content-Length")
						resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(lie)), int64(len(lie))
					}
					return nil
				},
			}
			front := httptest.NewServer(proxy)
			defer front.Close()
			kinds := make(map[string]int)
			found := func() bool {
				return slices.ContainsFunc(liar.findings, func(kind string) bool { return kinds[kind] > 0 })
			}
			// A slow machine needs more time for as many lies.
			for long := 4 * time.Second; !found() && long < time.Minute; long *= 2 {
				var notes bytes.Buffer
				o := options(&notes, front.URL)
				o.Duration, o.Patience = long, 2*time.Second
				v, err := Run(t.Context(), o)
				if err != nil {
					t.Fatalf("%v\n%s", err, notes.String())
				}
				for _, f := range v.Findings {
					kinds[f.Kind]++
				}
				if err := v.Err(); found() && (v.Violations == 0 || err == nil || !strings.Contains(err.Error(), "violations")) {
					t.Errorf("%v, %+v\n%s", err, v, notes.String())
				}
			}
			if !found() {
				t.Errorf("%v is not found, but %v", liar.findings, kinds)
			}
		})
	}
}

// lieInStream passes a stream on, block by block, and lets lie have the events.
func lieInStream(body io.ReadCloser, lie func(string) string) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		block := ""
		buf := make([]byte, 4096)
		for {
			n, err := body.Read(buf)
			block += string(buf[:n])
			for {
				whole, rest, ok := strings.Cut(block, "\n\n")
				if !ok {
					break
				}
				if whole += "\n\n"; !strings.Contains(whole, "event: feed.") {
					whole = lie(whole)
				}
				if _, err := io.WriteString(in, whole); err != nil {
					return
				}
				block = rest
			}
			if err != nil {
				in.CloseWithError(err)
				return
			}
		}
	}()
	return closesBoth{out, body}
}

type closesBoth struct {
	io.Reader
	body io.Closer
}

func (c closesBoth) Close() error {
	c.Reader.(*io.PipeReader).Close()
	return c.body.Close()
}

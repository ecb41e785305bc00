package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// TestPublishStreamMemory: a body of 100 MB takes no more memory than its share, also
// if its events do not end.
func TestPublishStreamMemory(t *testing.T) {
	n := startOn(t, discarding{newKeeper(t)}, server.Options{})
	large := strings.Repeat("x", 50_000)
	for _, kind := range []struct {
		name, block  string
		size, status int
	}{
		{"small events", strings.Repeat("data: "+large[:90]+"\n\n", 100), 10 << 20, 201},
		{"large events", "data: " + large + "\n\n", 100 << 20, 201},
		{"a line without end", large, 100 << 20, 413},
		{"a block without end", strings.Repeat("id: 1\n", 1000), 4 << 20, 400},
	} {
		before := heap()
		body := &endless{piece: []byte(kind.block), left: kind.size}
		var most int64
		stop, watched := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			for {
				most = max(most, heap()-before)
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		}()
		r, err := http.NewRequestWithContext(t.Context(), "POST", n.url+events, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/event-stream")
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", kind.name, err)
		}
		got := readStreamAnswer(t, resp)
		resp.Body.Close()
		close(stop)
		<-watched
		t.Logf("%s: %d bytes at the most, %d events", kind.name, most, got.Events)
		if got.Status != kind.status {
			t.Errorf("%s: %+v", kind.name, got)
		}
		if most > 32<<20 {
			t.Errorf("%s: the body takes %d bytes", kind.name, most)
		}
		eventually(t, "its memory is given back", func() bool { return n.hub.Memory().Used(feed.HoldPublishes) == 0 })
	}
}

// discarding numbers events and forgets them, as a store that is not here would.
type discarding struct{ feed.Store }

func (d discarding) Append(_ context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		for _, draft := range b.Drafts {
			results[i].Events = append(results[i].Events, feed.Event{Feed: draft.Feed, ID: 1, Time: time.UnixMilli(0).UTC()})
		}
	}
	return results, nil
}

// endless is a body that repeats a piece.
type endless struct {
	piece []byte
	at    int
	left  int
}

func (e *endless) Read(b []byte) (n int, err error) {
	if e.left <= 0 && e.at == 0 {
		return 0, io.EOF
	}
	n = copy(b, e.piece[e.at:])
	e.at = (e.at + n) % len(e.piece)
	e.left -= n
	return n, nil
}

// stuckStore has appends that stand still.
type stuckStore struct {
	feed.Store
	stuck   atomic.Bool
	release chan struct{}
}

func (s *stuckStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	if s.stuck.Load() {
		<-s.release
		return nil, feed.ErrUnavailable
	}
	return s.Store.Append(ctx, batches)
}

// TestPublishStreamStandstill: a store that stands still for 10 s ends a stream.
func TestPublishStreamStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store *stuckStore
		conn := dialBubble(t, func(hub *feed.Hub, publisher *feed.Publisher) http.Handler { return newServer(hub, publisher) }, func(s feed.Store) feed.Store {
			store = &stuckStore{Store: s, release: make(chan struct{})}
			return store
		})
		defer close(store.release)
		s := newSender(t, conn, "chat", "")
		s.chunk("data: a\n\n")
		time.Sleep(time.Second)
		store.stuck.Store(true)
		s.chunk("data: b\n\n")
		began := time.Now()
		if got := s.answer(); got.Status != 503 || got.Events != 1 || got.Stored != "unknown" {
			t.Errorf("%+v", got)
		}
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestPublishStreamFull: while the share of publishes is full, a stream waits.
func TestPublishStreamFull(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	memory := n.hub.Memory()
	s := n.send("chat", "")
	s.chunk("data: a\n\n")
	n.awaitStored("chat", 1)
	full := 0
	for range 50 { // meanwhile, the first event gives its share back
		time.Sleep(time.Millisecond)
		for size := int(memory.Limit(feed.HoldPublishes)); size > 0; size /= 2 {
			if memory.Take(feed.HoldPublishes, size) {
				full += size
			}
		}
	}
	s.chunk("data: b\n\n")
	time.Sleep(100 * time.Millisecond)
	n.wantStored("chat", ":a")
	memory.Give(feed.HoldPublishes, full)
	n.awaitStored("chat", 2)
	if got := s.end(); got.Status != 201 || got.Events != 2 {
		t.Errorf("%+v", got)
	}
}

// streamClients are producers that go on sending whatever happens: each prints the
// status of the answer that it sees. They get the URL, and the seconds between events.
var streamClients = []struct {
	name    string
	command []string
	install string // the command that installs it
	source  string
}{
	{"curl", []string{"bash"}, "apt-get install curl", `
(while printf 'data: x\n\n' 2>/dev/null; do sleep "$2"; done) |
curl -sS -o /dev/null -w '%{http_code}' -X POST -H 'Content-Type: text/event-stream' -H "$3" -T - "$1"`},
	{"Python", []string{"python3"}, "apt-get install python3", `
import http.client, sys, time, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
def body():
    while True:
        yield b"data: x\n\n"
        time.sleep(float(sys.argv[2]))
c = http.client.HTTPConnection(url.netloc, timeout=60)
name, value = sys.argv[3].split(": ")
try:
    c.request("POST", url.path + "?" + url.query, body(), {"Content-Type": "text/event-stream", name: value}, encode_chunked=True)
except BrokenPipeError:
    pass  # as urllib3 does
print(c.getresponse().status)`},
	{"Node", []string{"node"}, "apt-get install nodejs", `
const [url, seconds, header] = process.argv.slice(2)
const [name, value] = header.split(": ")
async function* body() {
  for (;;) {
    yield Buffer.from("data: x\n\n")
    await new Promise(done => setTimeout(done, seconds * 1000))
  }
}
const r = await fetch(url, {method: "POST", duplex: "half", headers: {"Content-Type": "text/event-stream", [name]: value}, body: ReadableStream.from ? ReadableStream.from(body()) : body()})
console.log(r.status)
process.exit(0)`},
}

// TestPublishStreamClients: the clients that producers use see an answer in mid-body
// over HTTP/1.1, whether they send slowly or as fast as they can.
func TestPublishStreamClients(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{EventBytes: 1000}, nil)
	n.publish("grown", "x", 1)
	if _, err := n.publisher.PublishBatch(t.Context(), feed.Publication{Feed: "done", Close: true}); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		status            int
		feed, header, gap string
	}{
		{409, "done", "X-Nothing: 0", "0.05"},
		{409, "done", "X-Nothing: 0", "0"},
		{412, "grown", `If-Match: "0"`, "0.05"},
		{422, "reused", "Idempotency-Key: k", "0.05"},
	}
	if r, body := n.do("POST", "/v1/feeds/reused/events", map[string]string{"Idempotency-Key": "k/3"}, "other"); r.StatusCode != 201 {
		t.Fatal(body)
	}
	dir := t.TempDir()
	var work sync.WaitGroup
	for _, c := range streamClients {
		if _, err := exec.LookPath(c.command[0]); err != nil {
			t.Fatalf("this test needs %s: %s (%v)", c.name, c.install, err)
		}
		script := filepath.Join(dir, c.name+".mjs")
		if err := os.WriteFile(script, []byte(c.source), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, test := range cases {
			work.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				cmd := exec.CommandContext(ctx, c.command[0], append(c.command[1:], script, n.url+"/v1/feeds/"+test.feed+"/events?x=1", test.gap, test.header)...)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				cancel()
				if got := strings.TrimSpace(string(out)); got != fmt.Sprint(test.status) {
					t.Errorf("%s, %s, every %s s: got %q, want %d (%v)\n%s", c.name, test.header, test.gap, got, test.status, err, stderr.Bytes())
				}
			})
		}
	}
	for _, test := range cases {
		work.Go(func() {
			gap, _ := time.ParseDuration(test.gap + "s")
			body, to := io.Pipe()
			go func() {
				for {
					if _, err := io.WriteString(to, "data: x\n\n"); err != nil {
						return
					}
					time.Sleep(gap)
				}
			}()
			r, err := http.NewRequestWithContext(t.Context(), "POST", n.url+"/v1/feeds/"+test.feed+"/events", body)
			if err != nil {
				t.Error(err)
				return
			}
			name, value, _ := strings.Cut(test.header, ": ")
			r.Header.Set("Content-Type", "text/event-stream")
			r.Header.Set(name, value)
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Errorf("Go, %s: %v", test.header, err)
				return
			}
			if resp.Body.Close(); resp.StatusCode != test.status {
				t.Errorf("Go, %s: %s, want %d", test.header, resp.Status, test.status)
			}
			body.Close()
		})
	}
	// 413 in mid-body.
	s := n.send("large", "")
	s.chunk("data: a\n\ndata: " + strings.Repeat("x", 2000))
	for range 20 {
		s.chunk(strings.Repeat("x", 2000))
	}
	if got := s.answer(); got.Status != 413 || got.Events != 1 || got.Line != 3 {
		t.Errorf("%+v", got)
	}
	work.Wait()
}

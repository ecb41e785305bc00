package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/rejoin/rejoin/storage/testserver"
)

// clientsDir returns a directory with the clients of testdata/clients, and with what
// they need from npm, as the lock file has it.
var clientsDir = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "clients")
	if err := os.CopyFS(dir, os.DirFS("testdata/clients")); err != nil {
		return "", err
	}
	installed, err := npmInstalled(dir)
	if err != nil {
		return "", err
	}
	return dir, os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules"))
})

// npmInstalled returns a directory with what the lock file in dir names. Like what Go
// builds, it stays in the user's cache: installing takes ten seconds.
func npmInstalled(dir string) (string, error) {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = dir
	}
	cache = filepath.Join(cache, "rejoin-tests")
	installed := filepath.Join(cache, fmt.Sprintf("npm-%.8x", sha256.Sum256(lock)))
	if _, err := os.Stat(installed); err == nil {
		return installed, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	under, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(under)
	if err := os.CopyFS(under, os.DirFS(dir)); err != nil {
		return "", err
	}
	npm := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts")
	npm.Dir = under
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(under, installed); err != nil {
		if _, missing := os.Stat(installed); missing != nil { // another run was not faster
			return "", err
		}
	}
	return installed, nil
}

// nodeDir is clientsDir for a test.
func nodeDir(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("this test needs Node: apt-get install nodejs npm (%v)", err)
		}
	}
	dir, err := clientsDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// nodeCommand returns the command that runs one of the clients.
func nodeCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir := nodeDir(t)
	cmd := exec.Command("node", args...)
	cmd.Dir = dir
	return cmd
}

// heard is a line that follow.mjs prints.
type heard struct {
	Who    string
	ID     int
	Data   string
	Closed bool
	End    string // error, clean
	Error  string
}

// nodeFollowers is follow.mjs, and what it has printed.
type nodeFollowers struct {
	t *testing.T
	p *process

	mu   sync.Mutex
	more *sync.Cond
	by   map[string]*nodeFollower
}

type nodeFollower struct {
	events []string
	ends   []string
}

func followWithNode(t *testing.T, direct, proxied string) *nodeFollowers {
	t.Helper()
	return listenTo(t, nodeCommand(t, "follow.mjs", direct, proxied))
}

// listenTo runs a command that prints what it follows, as follow.mjs does.
func listenTo(t *testing.T, cmd *exec.Cmd) *nodeFollowers {
	t.Helper()
	f := &nodeFollowers{t: t, by: make(map[string]*nodeFollower)}
	f.more = sync.NewCond(&f.mu)
	out, in := io.Pipe()
	cmd.Stdout = in
	f.p = launch(t, cmd)
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f.hear(lines.Bytes())
		}
	})
	t.Cleanup(func() { f.p.kill(); in.Close(); reading.Wait() })
	return f
}

func (f *nodeFollowers) hear(line []byte) {
	var h heard
	if err := json.Unmarshal(line, &h); err != nil {
		f.t.Errorf("%v in %q", err, line)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	who := f.by[h.Who]
	if who == nil {
		who = &nodeFollower{}
		f.by[h.Who] = who
	}
	switch {
	case h.ID > 0:
		if who.events = append(who.events, h.Data); h.ID != len(who.events) {
			f.t.Errorf("%s: event %d is shown as number %d", h.Who, h.ID, len(who.events))
		}
	case h.End != "":
		who.ends = append(who.ends, h.End)
	}
	f.more.Broadcast()
}

// await waits until each of the followers is as it should be.
func (f *nodeFollowers) await(what string, is func(*nodeFollower) bool, names ...string) {
	f.t.Helper()
	timeout := time.AfterFunc(time.Minute, func() { f.mu.Lock(); defer f.mu.Unlock(); f.more.Broadcast() })
	defer timeout.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for begin := time.Now(); ; f.more.Wait() {
		missing := ""
		for _, name := range names {
			if who := f.by[name]; who == nil || !is(who) {
				missing += fmt.Sprintf("\n%s: %+v", name, who)
			}
		}
		if missing == "" {
			return
		}
		if time.Since(begin) >= time.Minute {
			f.t.Fatalf("not within a minute: %s%s\n%s", what, missing, f.p.log)
		}
	}
}

var nodeNames = []string{"direct", "proxied", "fetch"}

func (f *nodeFollowers) awaitEvents(n int) {
	f.t.Helper()
	f.await(fmt.Sprint(n, " events"), func(who *nodeFollower) bool { return len(who.events) >= n }, nodeNames...)
}

// awaitBreaks waits until so many streams of each have broken, or more: who finds
// nobody to connect to counts that, too.
func (f *nodeFollowers) awaitBreaks(n int, names ...string) {
	f.t.Helper()
	f.await(fmt.Sprint(n, " breaks"), func(who *nodeFollower) bool { return len(who.ends) >= n }, names...)
}

// TestNodeClients: Node's fetch sees every stream that breaks as an error, and a stream
// that ends cleanly as one that has ended, so that fetch-event-source comes back each
// time, and then stops; and they miss nothing.
func TestNodeClients(t *testing.T) {
	t.Parallel()
	binary, db := built(t, true), filepath.Join(t.TempDir(), "rejoin.db")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	start := func() *process {
		return serveAt(t, binary, address, "sqlite:"+db, "memory", "REJOIN_SUBSCRIBE_RETRY=50ms", "REJOIN_DRAIN_WINDOW=0s")
	}
	server := start()
	proxy := newCutter(t, server.url)
	f := followWithNode(t, server.url+"/v1/feeds/chat/events", proxy.URL(server.url)+"/v1/feeds/chat/events")
	total := 0
	publishSome := func() {
		t.Helper()
		for range 5 {
			if _, err := publish(http.DefaultClient, server.url, "chat", fmt.Sprint("event ", total+1)); err != nil {
				t.Fatal(err)
			}
			total++
		}
		f.awaitEvents(total)
	}
	publishSome()
	for i, end := range []testserver.End{testserver.Reset, testserver.Close} {
		proxy.Cut(end)
		f.awaitBreaks(i+1, "proxied")
		publishSome()
	}
	breaks := func(name string) int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.by[name].ends) }
	for _, end := range []func(){func() { _ = server.terminate() }, func() { server.kill() }} {
		direct, fetch, proxied := breaks("direct"), breaks("fetch"), breaks("proxied")
		end()
		f.awaitBreaks(direct+1, "direct")
		f.awaitBreaks(fetch+1, "fetch")
		f.awaitBreaks(proxied+1, "proxied")
		server = start()
		publishSome()
	}
	resp, err := http.Post(server.url+"/v1/feeds/chat/close", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case <-f.p.done:
		if f.p.err != nil {
			t.Errorf("%v\n%s", f.p.err, f.p.log)
		}
	case <-time.After(15 * time.Second):
		for _, name := range nodeNames {
			t.Logf("%s: %d events, ends %v", name, len(f.by[name].events), f.by[name].ends)
		}
		t.Fatalf("they do not end\n%s", f.p.log)
	}
	f.await("the last line", func(*nodeFollower) bool { return true }, "all")
	for _, name := range nodeNames {
		who := f.by[name]
		for i, data := range who.events {
			if want := fmt.Sprint("event ", i+1); data != want {
				t.Errorf("%s: %q, want %q", name, data, want)
			}
		}
		last := len(who.ends) - 1
		if len(who.events) != total || who.ends[last] != "clean" || strings.Contains(strings.Join(who.ends[:last], " "), "clean") {
			t.Errorf("%s: %d events of %d; the streams ended with %v", name, len(who.events), total, who.ends)
		}
	}
}

// TestBareWithEventSourceParser: what AI clients read with, from a bare stream through a
// network that cuts it. It passes all blocks with data on, so no other may have any.
func TestBareWithEventSourceParser(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	var batch, want strings.Builder
	for i := range 300 {
		data := fmt.Sprintf(`{"delta":%q,"n":%d}`, strings.Repeat("x", i), i)
		fmt.Fprintf(&batch, "{\"type\":\"part.%d\",\"data\":%s}\n", i%3, data)
		want.WriteString(data)
	}
	resp, err := http.Post(p.url+"/v1/feeds/chat/events?close=true", "application/x-ndjson", strings.NewReader(batch.String()))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	proxy := newCutter(t, p.url)
	cutShort(t, proxy, shortLived(proxy))
	cmd := nodeCommand(t, "bare.mjs", proxy.URL(p.url)+"/v1/feeds/chat/stream?types=part.0,part.1,part.2")
	var failures strings.Builder
	cmd.Stderr = &failures
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, failures.String())
	}
	var got struct {
		Data   []json.RawMessage
		Breaks int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	var whole strings.Builder
	for _, data := range got.Data {
		whole.Write(data)
	}
	if whole.String() != want.String() || got.Breaks == 0 {
		t.Errorf("after %d breaks, it has %d events: %s", got.Breaks, len(got.Data), whole.String())
	}
	t.Logf("%d breaks", got.Breaks)
}

// TestClientsReuseConnections: clients with a pool send what must not be lost on the
// connection of a stream, as soon as that has ended.
func TestClientsReuseConnections(t *testing.T) {
	t.Parallel()
	const rounds = 40
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	resp, err := http.Post(p.url+"/v1/feeds/done/events?close=true", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(p.url, "http://"))
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("this test needs Python: apt-get install python3 (%v)", err)
	}
	for _, cmd := range []*exec.Cmd{
		nodeCommand(t, "reuse.mjs", p.url, "done", fmt.Sprint(rounds)),
		exec.Command(python, "testdata/clients/reuse.py", host, port, "done", fmt.Sprint(rounds)),
	} {
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", cmd.Args, err, out)
			continue
		}
		for line := range strings.Lines(string(out)) {
			var done struct {
				Who                 string
				Rounds, Connections int
			}
			if err := json.Unmarshal([]byte(line), &done); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			// Node's fetch may open a second one while the first is being put back.
			if done.Rounds != rounds || done.Connections > 2 {
				t.Errorf("%+v, want one connection for all, or two", done)
			}
		}
	}
	testBrowserReuses(t, p, rounds)
}

// testBrowserReuses does the same in a page.
func testBrowserReuses(t *testing.T, p *process, rounds int) {
	t.Helper()
	ctx := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(p.url+"/healthz")); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`(async () => {
		performance.setResourceTimingBufferSize(1000)
		for (let round = 1; round <= %d; round++) {
			const stream = await fetch("/v1/feeds/done/events?from=start")
			if (!(await stream.text()).includes("event: feed.closed\n")) return "the stream"
			const published = await fetch("/v1/feeds/browser/events", { method: "POST", body: "browser " + round })
			if (published.status !== 201 || (await published.json()).id !== round) return "the publish " + published.status
		}
		return performance.getEntriesByType("resource").filter(e => e.connectEnd > e.connectStart).length + " new"
	})()`, rounds), chromedp.EvalAwaitPromise))
	// The first may have come on the connection of the page itself.
	if err != nil || text != "0 new" && text != "1 new" {
		t.Errorf("a page: %q, %v", text, err)
	}
}

// TestNextRequestOfEach: over TLS, where net/http carries streams, and without, a
// connection serves the next request after a clean end, and a node that stops does not
// wait for those that are idle.
func TestNextRequestOfEach(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{true, false} {
		s := attack(t, secure)
		publishAll(t, s, "news", "x")
		if _, err := s.client.Post(s.url+"/v1/feeds/done/events?close=true", "text/plain", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		conn := s.dial("http/1.1")
		r := bufio.NewReader(conn)
		for id := 2; id < 5; id++ {
			for _, x := range []struct{ request, words string }{
				{"GET /v1/feeds/done/events?from=start HTTP/1.1\r\nHost: localhost\r\n\r\n", "event: feed.closed\n"},
				{"POST /v1/feeds/news/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", fmt.Sprintf(`"id":%d,`, id)},
				{"GET /v1/feeds/done/events?from=start HTTP/1.1\r\nHost: localhost\r\n\r\n", "event: feed.closed\n"},
			} {
				if _, err := io.WriteString(conn, x.request); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("TLS %t: %.20q: %v", secure, x.request, err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || !strings.Contains(string(body), x.words) {
					t.Errorf("TLS %t: %.20q: %q, %v", secure, x.request, body, err)
				}
			}
		}
		began := time.Now()
		s.stop()
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("TLS %t: then %q, %v", secure, rest, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("TLS %t: it stopped after %v", secure, took)
		}
	}
}

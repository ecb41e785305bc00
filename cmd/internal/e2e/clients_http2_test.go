package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// http2Program is a client that is run once for each connection: it ends when that breaks.
type http2Program struct {
	name string
	// command returns the command that follows the feed chat from a cursor, and does more
	// on the same connection. Its standard output has the stream.
	command func(url, cursor string) *exec.Cmd
	// visited is what it prints when it has done more.
	visited string
}

// TestHTTP2Clients: clients of many kinds follow a feed over HTTP/2 that the engine
// carries, through cuts and the death of the node. They miss nothing, and publish and read
// pages on the same connection. Go's own client is in the torture, Chromium in
// TestBrowserHTTP2.
func TestHTTP2Clients(t *testing.T) {
	t.Parallel()
	needHTTP2Clients(t)
	files := newCertificateFiles(t)
	binary, db := built(t, false), filepath.Join(t.TempDir(), "rejoin.db")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	start := func() *process {
		env := append(files.env(), "REJOIN_SERVER_HTTP2=engine", "REJOIN_DRAIN_WINDOW=0s")
		return serveAt(t, binary, address, "sqlite:"+db, "memory", env...)
	}
	server := start()
	proxy := testserver.StartProxy(t, address)
	c := followOverHTTP2(t, files, "https://"+proxy.Addr())
	c.publishSome(server)
	for _, end := range []func(){
		func() { proxy.Cut(testserver.Reset) }, func() { proxy.Cut(testserver.Close) },
		func() { server.kill(); server = start() }, func() { _ = server.terminate(); server = start() },
	} {
		end()
		c.client.CloseIdleConnections()
		c.publishSome(server)
	}
	resp, err := c.client.Post(server.url+"/v1/feeds/chat/close", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	c.finish()
	testH2load(t, server.url)
}

func needHTTP2Clients(t *testing.T) {
	t.Helper()
	for name, from := range map[string]string{"curl": "curl", "nghttp": "nghttp2-client", "/usr/bin/python3": "python3"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("this test needs %s: apt-get install %s (%v)", name, from, err)
		}
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import httpx, h2").CombinedOutput(); err != nil {
		t.Fatalf("this test needs httpx with HTTP/2: apt-get install python3-httpx python3-h2 (%s)", out)
	}
}

// http2Clients are all the clients of the test.
type http2Clients struct {
	t         *testing.T
	ctx       context.Context
	client    *http.Client              // that publishes
	followers map[string]*nodeFollowers // by the name of a client
	runs      []*http2Run
	running   sync.WaitGroup
	total     int // events
}

func followOverHTTP2(t *testing.T, files certificateFiles, url string) *http2Clients {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	node := nodeCommand(t, "http2.mjs", url, "chat")
	node.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+files.cert)
	inNode := listenTo(t, node)
	python := listenTo(t, exec.Command("/usr/bin/python3", "testdata/clients/http2.py", url, "chat", files.cert))
	c := &http2Clients{t: t, ctx: ctx, client: files.client(t), followers: map[string]*nodeFollowers{"http2": inNode, "undici": inNode, "httpx": python}}
	t.Cleanup(c.running.Wait)
	t.Cleanup(cancel)
	for _, p := range http2Programs(files.cert) {
		run := &http2Run{http2Program: p}
		c.runs = append(c.runs, run)
		c.running.Go(func() { run.follow(ctx, url) })
	}
	return c
}

// publishSome publishes, and waits until all clients follow.
func (c *http2Clients) publishSome(server *process) {
	c.t.Helper()
	for range 20 {
		c.total++
		if _, err := publish(c.client, server.url, "chat", fmt.Sprint("event ", c.total)); err != nil {
			c.t.Fatal(err)
		}
	}
	for name, f := range c.followers {
		f.await(fmt.Sprint(c.total, " events"), func(who *nodeFollower) bool { return len(who.events) >= c.total }, name)
	}
	for (&target{process: server, client: c.client}).subscribers() < len(c.followers)+len(c.runs) {
		if sleep(c.ctx, 10*time.Millisecond) != nil {
			c.t.Fatal("a client does not come back")
		}
	}
}

// finish waits until all clients have ended, as they do when the feed is closed.
func (c *http2Clients) finish() {
	c.t.Helper()
	for name, f := range c.followers {
		select {
		case <-f.p.done:
		case <-c.ctx.Done():
			c.t.Fatalf("%s does not end\n%s", name, f.p.log)
		}
		f.await("a clean end", func(who *nodeFollower) bool { return strings.HasSuffix(strings.Join(who.ends, " "), "clean") }, name)
		if f.p.err != nil {
			c.t.Errorf("%s: %v\n%s", name, f.p.err, f.p.log)
		}
		if who := f.by[name]; len(who.events) != c.total || len(who.ends) < 5 {
			c.t.Errorf("%s: %d events of %d; the streams ended with %v", name, len(who.events), c.total, who.ends)
		}
	}
	c.running.Wait()
	for _, run := range c.runs {
		if run.err != nil || run.last != c.total || run.connections < 2 || run.visits == 0 {
			c.t.Errorf("%s: event %d of %d over %d connections, %d of which did more: %v", run.name, run.last, c.total, run.connections, run.visits, run.err)
		}
	}
}

// http2Programs are curl, which publishes and reads a page as well, and nghttp, which reads
// a page.
func http2Programs(cert string) []http2Program {
	return []http2Program{
		{"curl", func(url, cursor string) *exec.Cmd {
			return exec.Command("curl", "--parallel", "--no-buffer", "--silent", "--cacert", cert, "--http2",
				"--header", "Last-Event-ID: "+cursor, url+"/v1/feeds/chat/events",
				"--next", "--silent", "--cacert", cert, "--http2", "--output", os.DevNull, "--data", "x", "--write-out", "\n: visited %{response_code} %{http_version} %{num_connects}\n", url+"/v1/feeds/by-curl/events",
				"--next", "--silent", "--cacert", cert, "--http2", "--output", os.DevNull, "--header", "Accept: application/json", "--write-out", "\n: visited %{response_code} %{http_version} %{num_connects}\n", url+"/v1/feeds/by-curl/events",
			)
		}, ": visited 201 2 0\n"},
		{"nghttp", func(url, cursor string) *exec.Cmd {
			return exec.Command("nghttp", "--header", "last-event-id: "+cursor, url+"/v1/feeds/chat/events", url+"/v1/feeds/chat")
		}, `{"feed":"chat","first":1`},
	}
}

// http2Run is what such a client has come to.
type http2Run struct {
	http2Program
	last, connections, visits int
	err                       error
}

var streamEvent = regexp.MustCompile(`(?m)^data: event (\d+)\nid: (\d+)\n\n`)

// follow runs the program until the feed is closed.
func (r *http2Run) follow(ctx context.Context, url string) {
	for closed := false; !closed; {
		var out bytes.Buffer
		cmd := r.command(url, strconv.Itoa(r.last))
		cmd.Stdout = &out
		if r.err = cmd.Start(); r.err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		stop()
		if r.err = ctx.Err(); r.err != nil {
			return
		}
		text := out.String()
		r.connections += strings.Count(text, "event: feed.open\n")
		r.visits += strings.Count(text, r.visited)
		for _, event := range streamEvent.FindAllStringSubmatch(text, -1) {
			r.last++
			if want := strconv.Itoa(r.last); event[1] != want || event[2] != want {
				r.err = fmt.Errorf("event %s has the text %s, want %s", event[2], event[1], want)
				return
			}
		}
		if closed = strings.Contains(text, "event: feed.closed\n"); !closed {
			time.Sleep(30 * time.Millisecond) // as a client waits before it comes back
		} else if r.name == "curl" && err != nil {
			r.err = err
		}
	}
}

// testH2load runs many streams to their ends on a few connections.
func testH2load(t *testing.T, url string) {
	t.Helper()
	const streams = 1000
	out, err := exec.Command("h2load", "-n", fmt.Sprint(streams), "-c", "5", "-m", "50", url+"/v1/feeds/chat/events?from=start").CombinedOutput()
	if want := fmt.Sprintf("%d succeeded, 0 failed, 0 errored, 0 timeout", streams); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("h2load: %v\n%s", err, out)
	}
}

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
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
	for name, from := range map[string]string{"curl": "curl", "nghttp": "nghttp2-client", "/usr/bin/python3": "python3-httpx python3-h2"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("this test needs %s: apt-get install %s (%v)", name, from, err)
		}
	}
	if out, err := exec.Command("/usr/bin/python3", "-c", "import httpx, h2").CombinedOutput(); err != nil {
		t.Fatalf("this test needs httpx with HTTP/2: apt-get install python3-httpx python3-h2 (%s)", out)
	}
	files := newCertificateFiles(t)
	binary, db := built(t, false), filepath.Join(t.TempDir(), "rejoin.db")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	start := func() *process {
		env := append(files.env(), "REJOIN_SERVER_HTTP2=engine", "REJOIN_DRAIN_WINDOW=0s")
		return serveAt(t, binary, address, "sqlite:"+db, "memory", env...)
	}
	server := start()
	proxy := testserver.StartProxy(t, address)
	url := "https://" + proxy.Addr()
	node := nodeCommand(t, "http2.mjs", url, "chat")
	node.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+files.cert)
	python := exec.Command("/usr/bin/python3", "testdata/clients/http2.py", url, "chat", files.cert)
	followers := map[string]*nodeFollowers{"httpx": listenTo(t, python)}
	followers["http2"] = listenTo(t, node)
	followers["undici"] = followers["http2"]
	var programs sync.WaitGroup
	defer programs.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	curled := make(map[string]*http2Run)
	for _, p := range http2Programs(files.cert) {
		curled[p.name] = &http2Run{http2Program: p}
		programs.Go(func() { curled[p.name].follow(ctx, url) })
	}
	client, total := files.client(t), 0
	publishSome := func() {
		t.Helper()
		for range 20 {
			total++
			if _, err := publish(client, server.url, "chat", fmt.Sprint("event ", total)); err != nil {
				t.Fatal(err)
			}
		}
		for name, f := range followers {
			f.await(fmt.Sprint(total, " events"), func(who *nodeFollower) bool { return len(who.events) >= total }, name)
		}
		// The next cut has to meet all of them.
		for (&target{process: server, client: client}).subscribers() < len(followers)+len(curled) {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatal("a client does not come back")
			}
		}
	}
	publishSome()
	for _, end := range []func(){
		func() { proxy.Cut(testserver.Reset) }, func() { proxy.Cut(testserver.Close) },
		func() { server.kill(); server = start() }, func() { _ = server.terminate(); server = start() },
	} {
		end()
		client.CloseIdleConnections()
		publishSome()
	}
	resp, err := client.Post(server.url+"/v1/feeds/chat/close", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, f := range followers {
		select {
		case <-f.p.done:
		case <-ctx.Done():
			t.Fatalf("%s does not end\n%s", name, f.p.log)
		}
		if f.p.err != nil {
			t.Errorf("%s: %v\n%s", name, f.p.err, f.p.log)
		}
		who := f.by[name]
		if last := len(who.ends) - 1; len(who.events) != total || len(who.ends) < 5 || who.ends[last] != "clean" {
			t.Errorf("%s: %d events of %d; the streams ended with %v", name, len(who.events), total, who.ends)
		}
	}
	programs.Wait()
	for name, run := range curled {
		if run.err != nil || run.last != total || run.connections < 2 || run.visits == 0 {
			t.Errorf("%s: event %d of %d over %d connections, %d of which did more: %v", name, run.last, total, run.connections, run.visits, run.err)
		}
	}
	testH2load(t, server.url)
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

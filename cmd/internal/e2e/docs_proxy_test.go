package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// nginxFrame is what a configuration of a page is a part of.
const nginxFrame = `daemon off;
pid %[1]s/nginx.pid;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/client;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	%[2]s
}
`

// TestDocsNginx runs the configurations for nginx that the pages have.
func TestDocsNginx(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*testing.T, *process, string){"docs/proxy.md": testNginx, "docs/ai.md": testNginxRewrite}
	for _, page := range documentation(t) {
		for _, b := range page.Blocks {
			if b.Mark != "run: TestDocsNginx" {
				continue
			}
			test := tests[page.Name]
			if test == nil {
				t.Fatalf("%s: there is no test of a configuration of this page", b)
			}
			delete(tests, page.Name)
			t.Run(page.Name, func(t *testing.T) {
				t.Parallel()
				node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
				test(t, node, startDocsNginx(t, node, b.Text))
			})
		}
	}
	for name := range tests {
		t.Errorf("%s has no configuration for nginx", name)
	}
}

// startDocsNginx runs nginx with a configuration that leads to 127.0.0.1:8080, before node.
func startDocsNginx(t *testing.T, node *process, config string) (url string) {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	config = strings.ReplaceAll(config, "127.0.0.1:8080", strings.TrimPrefix(node.url, "http://"))
	if !strings.Contains(config, "server {") {
		config = "server {\nlisten 80;\n" + config + "}"
	}
	config = strings.ReplaceAll(config, "listen 80;", "listen "+address+";")
	file := filepath.Join(t.TempDir(), "nginx.conf")
	writeFile(t, file, fmt.Sprintf(nginxFrame, filepath.Dir(file), config))
	launchProxy(t, address, "nginx", "nginx-light", "-e", "stderr", "-c", file)
	return "http://" + address
}

// launchProxy runs a proxy, which comes with a package of Debian, until it listens.
func launchProxy(t *testing.T, address, command, pkg string, args ...string) {
	t.Helper()
	p := launch(t, exec.Command(find(t, command, pkg), args...))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended with %v:\n%s", command, p.err, p.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v\n%s", command, err, p.log)
		}
	}
}

// TestDocsHAProxy runs the configuration for HAProxy.
func TestDocsHAProxy(t *testing.T) {
	t.Parallel()
	var config string
	for _, page := range documentation(t) {
		for _, b := range page.Blocks {
			if b.Mark == "run: TestDocsHAProxy" {
				config = b.Text
			}
		}
	}
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	for from, to := range map[string]string{"bind :80\n": "bind " + address + "\n", "127.0.0.1:8080": strings.TrimPrefix(node.url, "http://")} {
		if strings.Count(config, from) != 1 {
			t.Fatalf("the configuration does not have %q:\n%s", from, config)
		}
		config = strings.Replace(config, from, to, 1)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, file, config)
	launchProxy(t, address, "haproxy", "haproxy", "-db", "-f", file)
	testProxy(t, node, "http://"+address, "No server is available to handle this request.", http.StatusServiceUnavailable)
}

// openStream opens an event stream as a browser does.
func openStream(t *testing.T, url string) (*http.Response, *bufio.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("%s: %s, %q", url, resp.Status, resp.Header.Get("Content-Type"))
	}
	return resp, bufio.NewReader(resp.Body)
}

// readUntil reads lines until one of them is line.
func readUntil(t *testing.T, r *bufio.Reader, line string) {
	t.Helper()
	for {
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("no %q: %v", line, err)
		}
		if got == line+"\n" {
			return
		}
	}
}

func testNginx(t *testing.T, node *process, url string) {
	testProxy(t, node, url, "retry: 3000", http.StatusBadGateway)
}

// testProxy has events pass at once, in both directions. A stream that breaks has to be
// one that breaks for clients, too, and none may be stopped while the node is away: it
// then gets a stream with line, and other requests get status.
func testProxy(t *testing.T, node *process, url, line string, status int) {
	_, stream := openStream(t, url+"/v1/feeds/chat/events")
	readUntil(t, stream, "id: 0")
	if _, err := publish(http.DefaultClient, url, "chat", "one"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, stream, "data: one")

	body, producer := io.Pipe()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Post(url+"/v1/feeds/chat/events", "text/event-stream", body)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				err = errors.New(resp.Status)
			}
		}
		answered <- err
	}()
	for _, data := range []string{"two", "three"} { // each arrives before the next one is sent
		fmt.Fprintf(producer, "data: %s\n\n", data)
		readUntil(t, stream, "data: "+data)
	}
	producer.Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}

	node.kill()
	if rest, err := io.ReadAll(stream); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ends with %v after %q, want a broken connection", err, rest)
	}
	_, away := openStream(t, url+"/v1/feeds/chat/events")
	readUntil(t, away, line)
	if _, err := publish(http.DefaultClient, url, "chat", "four"); err == nil {
		t.Error("a publish is answered while the node is away")
	}
	resp, err := http.Get(url + "/v1/feeds/chat")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != status {
		t.Errorf("while the node is away, the feed is answered with %s, want %d", resp.Status, status)
	}
}

// testNginxRewrite joins a run of LangGraph.
func testNginxRewrite(t *testing.T, node *process, url string) {
	if _, err := publish(http.DefaultClient, node.url, "chat:t1:r1", "part"); err != nil {
		t.Fatal(err)
	}
	_, stream := openStream(t, url+"/threads/t1/runs/r1/stream")
	readUntil(t, stream, "data: part")
}

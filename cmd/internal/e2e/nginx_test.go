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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// nginxConfig is what docs/running.md recommends, and little else.
const nginxConfig = `daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 65536;
pid %[1]s/nginx.pid;
events { worker_connections 32768; }
http {
	access_log off;
	client_body_temp_path %[1]s/client;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream rejoin {
		include %[1]s/ready;
		keepalive 16;
	}
	server {
		listen %[2]s backlog=4096;
		location / {
			proxy_pass http://rejoin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_read_timeout 60s;
		}
	}
}
`

// ingress is an nginx before nodes, and what an ingress controller does for it: it asks
// the nodes whether they are ready, and reloads nginx with those that are.
type ingress struct {
	*process
	dir   string
	nodes []string // addresses

	list    string // of the nodes, as nginx has it
	reloads atomic.Int64
}

// find returns the path of a command, which comes with a package of Debian.
func find(t *testing.T, command, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		path = "/usr/sbin/" + command // where Debian keeps it from the PATH of users
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("this test needs %s: apt-get install %s (%v)", command, pkg, err)
	}
	return path
}

// startIngress returns when nginx sends requests to all nodes. The controller looks at
// them every so often.
func startIngress(t *testing.T, every time.Duration, nodes ...string) *ingress {
	t.Helper()
	nginx := find(t, "nginx", "nginx-light")
	i := &ingress{dir: t.TempDir(), nodes: nodes}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
	config := filepath.Join(i.dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, i.dir, address), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.write(i.ready(t.Context())); err != nil {
		t.Fatal(err)
	}
	i.process = launch(t, exec.Command(nginx, "-e", "stderr", "-c", config))
	i.url = "http://" + address
	i.awaitReady()
	ctx, cancel := context.WithCancel(context.Background())
	var control sync.WaitGroup
	control.Go(func() { i.control(ctx, every) })
	t.Cleanup(func() { cancel(); control.Wait() })
	return i
}

func (i *ingress) control(ctx context.Context, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		list := i.ready(ctx)
		if list == "" || list == i.list || ctx.Err() != nil {
			continue // the nodes of a test that is over have ended
		}
		if err := i.write(list); err != nil {
			i.t.Error(err)
		}
		i.reloads.Add(1)
		if err := i.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			i.t.Error(err)
		}
	}
}

// ready returns the nodes that are ready, as nginx wants them to be listed.
func (i *ingress) ready(ctx context.Context) string {
	var list strings.Builder
	for _, node := range i.nodes {
		if probe(ctx, "http://"+node+"/readyz") {
			fmt.Fprintf(&list, "server %s max_fails=0;\n", node)
		}
	}
	return list.String()
}

func (i *ingress) write(list string) error {
	if list == "" {
		return fmt.Errorf("none of the nodes %v is ready", i.nodes)
	}
	i.list = list
	return os.WriteFile(filepath.Join(i.dir, "ready"), []byte(list), 0o600)
}

// probes are asked over connections of their own.
var probes = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}

func probe(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := probes.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// await waits until nginx has so many nodes.
func (i *ingress) await(n int) {
	i.t.Helper()
	file := filepath.Join(i.dir, "ready")
	for deadline := time.Now().Add(30 * time.Second); ; {
		list, err := os.ReadFile(file)
		if err != nil {
			i.t.Fatal(err)
		}
		if bytes.Count(list, []byte("server ")) == n {
			return
		}
		if time.Now().After(deadline) {
			i.t.Fatalf("nginx has %q, want %d nodes\n%s", list, n, i.log)
		}
		time.Sleep(5 * time.Millisecond) // until the controller has looked
	}
}

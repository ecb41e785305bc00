package e2e

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// tortureWorld is what the torture breaks: nodes over Postgres and Redis or over
// Postgres alone, or one node over SQLite.
type tortureWorld struct {
	t        *testing.T
	nodes    []*tortureNode
	postgres *testserver.Postgres // nil for SQLite
	database string               // its URL, with no proxy in between
	redis    []*testserver.Redis  // the first is the one that counts; none without Redis
	disk     string               // of SQLite; empty if it cannot be filled
	ran      int                  // schedules
	seed     uint64               // of the first
	now      *schedule            // that is carried out

	partitions, lost atomic.Int64 // of networks, and the packets in them
}

// tortureNode is a node, which may be dead.
type tortureNode struct {
	world   *tortureWorld
	net     *tortureNet // nil without namespaces
	address string
	url     *url.URL
	store   string
	bus     string
	env     []string
	// The ways to its servers; nil if it has none.
	toPostgres, toRedis, toListener *testserver.Proxy

	mu      sync.Mutex
	process *process // the newest one
}

const tortureNodes = 3

// tortureBinary returns the command, which the process outside has built.
func tortureBinary(t testing.TB) string {
	if path := os.Getenv(insideTorture); path != "" {
		return path
	}
	return built(t, false)
}

// tortureWorldKind is a kind of worlds.
type tortureWorldKind struct {
	name string
	make func(t *testing.T) *tortureWorld
}

// tortureWorldKinds are taken in turn by the seeds of the schedules.
var tortureWorldKinds = []tortureWorldKind{
	{"sqlite", newTortureAlone},
	{"redis", func(t *testing.T) *tortureWorld { return newTortureCluster(t, true) }},
	{"postgres", func(t *testing.T) *tortureWorld { return newTortureCluster(t, false) }},
	{"redis", func(t *testing.T) *tortureWorld { return newTortureCluster(t, true) }},
}

// newTortureCluster starts three nodes, all but the first with TLS, where the engine
// carries HTTP/2. Without Redis, they listen to Postgres by a way of its own.
func newTortureCluster(t *testing.T, redis bool) *tortureWorld {
	t.Helper()
	w := &tortureWorld{t: t, postgres: testserver.StartPostgres(t)}
	for range 2 {
		if redis {
			w.redis = append(w.redis, testserver.StartRedis(t, "--repl-diskless-sync-delay", "0"))
		}
	}
	w.database = w.postgres.NewDatabase(t)
	files := newCertificateFiles(t)
	for i := range tortureNodes {
		n := w.newNode()
		at := net.JoinHostPort("127.0.0.1", "0")
		if n.net != nil {
			at = net.JoinHostPort(bridgeAddress, "0")
		}
		n.toPostgres = testserver.StartProxyAt(t, at, w.postgres.Addr())
		n.store = n.toPostgres.URL(w.database)
		if redis {
			n.toRedis = testserver.StartProxyAt(t, at, w.redis[0].Addr())
			n.bus = "redis://" + n.toRedis.Addr() + "/0"
		} else {
			n.toListener = testserver.StartProxyAt(t, at, w.postgres.Addr())
			n.bus = n.toListener.URL(w.database)
		}
		if i > 0 {
			n.env = append(append(n.env, files.env()...), "REJOIN_SERVER_HTTP2=engine")
			n.url.Scheme = "https"
		}
	}
	w.start()
	return w
}

// newTortureAlone starts one node with a store of its own, on a small disk where
// such a one can be made.
func newTortureAlone(t *testing.T) *tortureWorld {
	t.Helper()
	w := &tortureWorld{t: t}
	dir := t.TempDir()
	if os.Getenv(insideTorture) != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		w.disk = dir
	}
	n := w.newNode()
	n.store, n.bus = "sqlite:"+filepath.Join(dir, "rejoin.db"), "memory"
	w.start()
	return w
}

// newNode makes a node that does not run yet.
func (w *tortureWorld) newNode() *tortureNode {
	w.t.Helper()
	n := &tortureNode{world: w, env: []string{
		"REJOIN_AUTH_MODE=none", "REJOIN_SUBSCRIBE_WRITE_TIMEOUT=3s", "REJOIN_SUBSCRIBE_HEARTBEAT=2s", "REJOIN_DRAIN_WINDOW=500ms",
	}}
	n.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(w.t)))
	if os.Getenv(insideTorture) != "" {
		n.net = newTortureNet(w.t)
		n.address = net.JoinHostPort(n.net.address, "8080")
	}
	n.url = &url.URL{Scheme: "http", Host: n.address}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *tortureWorld) start() {
	for _, n := range w.nodes {
		n.start()
	}
	for _, n := range w.nodes {
		if !n.ready(30 * time.Second) {
			w.t.Fatalf("a node does not become ready:\n%s", n.running().log)
		}
	}
}

// running returns the node's process, which may have ended.
func (n *tortureNode) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// start starts a node, unless it runs.
func (n *tortureNode) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && !ended(n.process) {
		return
	}
	words := []string{tortureBinary(n.world.t), "serve", "--listen", n.address, "--store", n.store, "--bus", n.bus}
	if n.net != nil {
		words = append(n.net.enter(), words...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), append(n.env, "REJOIN_LOG_FORMAT=json")...)
	n.process = launch(n.world.t, cmd)
}

func ended(p *process) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop kills a node, or has it end in order.
func (n *tortureNode) stop(signal syscall.Signal) {
	p := n.running()
	n.signal(signal)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		n.world.t.Errorf("a node does not end after %v:\n%s", signal, p.log)
		p.kill()
	}
}

func (n *tortureNode) signal(s syscall.Signal) {
	_ = syscall.Kill(-n.running().cmd.Process.Pid, s) // it may have ended, which is noticed elsewhere
}

// ready waits until a node is ready for traffic.
func (n *tortureNode) ready(within time.Duration) bool {
	client := tortureClient(clientHTTP1)
	defer client.CloseIdleConnections()
	client.Timeout = time.Second
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		resp, err := client.Get(n.url.JoinPath("readyz").String())
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		time.Sleep(20 * time.Millisecond) // until it has found its servers
	}
	return false
}

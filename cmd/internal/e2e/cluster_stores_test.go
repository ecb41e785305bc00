package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// TestClusterKillBeforeTold kills a node that has committed and acknowledged an
// event. With Redis, it has told nobody, nothing follows that would make the others
// look, and they have to find the event by themselves. With Postgres, the
// notification is in the commit, and the others have nothing else: they do not look.
func TestClusterKillBeforeTold(t *testing.T) {
	t.Parallel()
	onEachBus(t, testKillBeforeTold)
}

func testKillBeforeTold(t *testing.T, c *cluster) {
	var env []string
	if c.redis == nil {
		env = append(env, "REJOIN_BUS_VERIFY=1m")
	}
	c.start(2, env...)
	staying := c.nodes[:2:2]
	c.follow("chat", 2, staying...)
	for round := range 3 {
		bus, network := c.bus(), (*testserver.Proxy)(nil)
		if c.redis != nil {
			network = testserver.StartProxy(t, c.redis.Addr())
			bus = network.URL(bus)
		}
		doomed := c.startNode(bus)
		c.mustPublish(doomed, "chat", fmt.Sprintf("told, in round %d", round))
		if network != nil {
			network.Set(blackHole)
		} else {
			time.Sleep(20 * time.Millisecond) // a commit right behind another does not notify
		}
		c.mustPublish(doomed, "chat", fmt.Sprintf("the last word, in round %d", round))
		doomed.kill()
		c.awaitAll("chat", promptly)
	}
	f := c.verdict("chat")
	t.Log(f)
	if f.events != 6 || f.worst > promptly || f.reconnects > 0 {
		t.Errorf("want 6 events, each delivered within %v", promptly)
	}
}

// TestClusterKill kills nodes in the middle of publishing, while another goes
// on: what was acknowledged is there, and what was not is there at most once.
func TestClusterKill(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterKill)
}

func testClusterKill(t *testing.T, c *cluster) {
	c.start(2)
	staying := c.nodes[:2:2]
	c.follow("chat", 2, staying...)
	stop := c.publish(traffic{feed: "chat", publishers: 2, pause: 5 * time.Millisecond}, staying[0])
	for range 4 {
		doomed := c.startNode(c.bus())
		stopDoomed := c.publish(traffic{feed: "chat", publishers: 8, dies: true}, doomed)
		lasts(150 * time.Millisecond)
		doomed.kill()
		stopDoomed()
	}
	stop()
	f := c.verdict("chat")
	t.Log(f)
	if f.worst > promptly || f.reconnects > 0 {
		t.Errorf("an event was not delivered within %v, or a node that lives cut a stream", promptly)
	}
}

// TestClusterApart has two stores with feeds of the same names share a Redis,
// and nothing else.
func TestClusterApart(t *testing.T) {
	t.Parallel()
	one := newCluster(t)
	other := newClusterOn(t, testserver.SharedPostgres(t).NewDatabase(t))
	other.redis = one.redis
	var stops []func()
	for _, c := range []*cluster{one, other} {
		c.start(2)
		c.follow("chat", 2, c.nodes...)
		stops = append(stops, c.publish(traffic{feed: "chat", publishers: 2, events: 50}, c.nodes...))
	}
	for i, c := range []*cluster{one, other} {
		stops[i]()
		if f := c.verdict("chat"); f.events != 200 || f.deliveries != 4*200 {
			t.Errorf("want 200 events for 4 subscribers: %v", f)
		}
	}
	if keys := one.keys("rejoin:*:feed:chat"); len(keys) != 2 {
		t.Errorf("the streams of two stores are %q", keys)
	}
}

// TestClusterStoreReplaced deletes a store and makes it anew, on a Redis that
// has the old one's streams, if there is a Redis: nobody may get anything old. It does
// so on SQLite with one node, which Redis serves as well, and on Postgres.
func TestClusterStoreReplaced(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rejoin.db")
		testReplaced(t, "sqlite:"+path, testserver.StartRedis(t), 1, func() {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		})
	})
	onEachBus(t, func(t *testing.T, c *cluster) {
		testReplaced(t, c.store, c.redis, 2, func() {
			u, err := url.Parse(c.store)
			if err != nil {
				t.Fatal(err)
			}
			server, name := testserver.SharedPostgres(t), strings.TrimPrefix(u.Path, "/")
			server.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
			server.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE template0")
		})
	})
}

func testReplaced(t *testing.T, store string, redis *testserver.Redis, nodes int, replace func()) {
	for generation := range 2 {
		if generation > 0 {
			replace()
		}
		c := newClusterOn(t, store)
		c.redis = redis
		c.start(nodes)
		c.follow("chat", 2, c.nodes...)
		// The second time fewer: what is left of the first lies ahead.
		events := 40 / (1 + generation)
		c.publish(traffic{feed: "chat", publishers: 1, events: events, size: generation}, c.nodes...)()
		if f := c.verdict("chat"); f.events != nodes*events || f.deliveries != 2*nodes*f.events {
			t.Errorf("generation %d: want %d events: %v", generation, nodes*events, f)
		}
		for _, n := range c.nodes {
			n.awaitBus("up", 30*time.Second)
			n.kill()
		}
	}
}

// TestClusterPassword: a Redis that refuses the password is a mistake that
// waiting does not cure. The error has no secret in it.
func TestClusterPassword(t *testing.T) {
	redis := testserver.StartRedis(t, "--requirepass", "the-right-one")
	for name, password := range map[string]string{"wrong": "a-wrong-one", "none": ""} {
		t.Run(name, func(t *testing.T) {
			u := url.URL{Scheme: "redis", Host: redis.Addr()}
			if password != "" {
				u.User = url.UserPassword("default", password)
			}
			cmd := exec.Command(built(t, false), "serve", "--listen", "127.0.0.1:0", "--store", testserver.SharedPostgres(t).NewDatabase(t), "--bus", u.String())
			p := launch(t, cmd)
			select {
			case <-p.done:
			case <-time.After(20 * time.Second):
				t.Fatalf("the node does not end:\n%s", p.log)
			}
			if p.err == nil || !strings.Contains(p.log.String(), "redis") {
				t.Errorf("the node ended with %v:\n%s", p.err, p.log)
			}
			for _, secret := range []string{"the-right-one", "a-wrong-one"} {
				if strings.Contains(p.log.String(), secret) {
					t.Errorf("the error has a password in it:\n%s", p.log)
				}
			}
		})
	}
}

// TestClusterStoreAbsent starts a node before its Postgres: it lives, says that
// it is not ready, refuses publishes, and does not let a browser's EventSource
// give up. When Postgres is there, it serves.
func TestClusterStoreAbsent(t *testing.T) {
	t.Parallel()
	onEachServer(t, testStoreAbsent)
}

func testStoreAbsent(t *testing.T, c *cluster, postgres *testserver.Postgres) {
	postgres.Kill(t)
	n := serveNode(t, built(t, false), c.store, c.bus(), "REJOIN_ADMIN_LISTEN=127.0.0.1:0")
	c.nodes = append(c.nodes, n)
	events := n.url + "/v1/feeds/chat/events"
	for _, q := range []struct {
		method, url, accept string
		want                int
	}{
		{http.MethodGet, n.url + "/healthz", "", http.StatusOK},
		{http.MethodGet, n.url + "/readyz", "", http.StatusServiceUnavailable},
		{http.MethodPost, events, "", http.StatusServiceUnavailable},
		{http.MethodGet, events, "", http.StatusServiceUnavailable},
		{http.MethodGet, events, "text/event-stream", http.StatusOK},
	} {
		if got := askFor(t, q.method, q.url, q.accept); got != q.want {
			t.Errorf("%s %s (%s): %d, want %d", q.method, q.url, q.accept, got, q.want)
		}
	}
	postgres.Start(t)
	n.awaitReady()
	c.follow("chat", 2, n)
	c.publish(traffic{feed: "chat", publishers: 2, events: 10}, n)()
	if f := c.verdict("chat"); f.events != 20 || f.deliveries != 40 {
		t.Errorf("want 20 events for 2 subscribers: %v", f)
	}
	if lines := len(n.log.lines()); lines > mostLines {
		t.Errorf("%d lines were logged:\n%s", lines, n.log)
	}
}

// askFor returns the status of an answer.
func askFor(t *testing.T, method, url, accept string) int {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("hello")
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "text/plain")
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

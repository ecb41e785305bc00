package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/testserver"
)

// cluster is some nodes over one store, with clients whose every event is
// accounted for. Its files are cluster_*_test.go.
type cluster struct {
	t       testing.TB
	store   string            // the URL of the database
	redis   *testserver.Redis // nil without one
	nodes   []*process
	checker *feedtest.Checker // judges what subscribers see

	mu          sync.Mutex
	acked       map[string]map[feed.ID]time.Time // when, by feed and id
	took        []time.Duration                  // from request to acknowledgement
	failed      []error                          // of publishes
	subscribers []*subscriber
}

// promptly is how soon after the acknowledgement an event has to be delivered
// under any fault of Redis, on any machine. Nodes notice within a second or two what
// the bus has lost; otherwise it would not come at all, or only after a minute
// where they are told to look that seldom. BenchmarkClusterFaults measures how
// soon it comes.
const promptly = 20 * time.Second

// newCluster returns a cluster without nodes, on a database and a Redis of its
// own.
func newCluster(t testing.TB, redisArgs ...string) *cluster {
	t.Helper()
	c := newClusterOn(t, newDatabase(t))
	c.redis = testserver.StartRedis(t, redisArgs...)
	return c
}

// newClusterWithoutRedis returns a cluster without nodes, on a database of its own
// that is its bus as well.
func newClusterWithoutRedis(t testing.TB) *cluster {
	t.Helper()
	return newClusterOn(t, newDatabase(t))
}

// newDatabase makes a database with the tables of an empty store.
func newDatabase(t testing.TB) string {
	t.Helper()
	return testserver.SharedPostgres(t).NewPrepared(t, func(empty string) error {
		store, err := postgres.Open(t.Context(), empty, postgres.Options{})
		if err != nil {
			return err
		}
		return store.Close()
	})
}

// onEachBus runs a test of a cluster with Redis and without.
func onEachBus(t *testing.T, test func(t *testing.T, c *cluster)) {
	withEachBus(t, func(t *testing.T, redis *testserver.Redis) {
		c := newClusterWithoutRedis(t)
		c.redis = redis
		test(t, c)
	})
}

// onEachServer does the same on a Postgres server of its own each time.
func onEachServer(t *testing.T, test func(t *testing.T, c *cluster, p *testserver.Postgres)) {
	withEachBus(t, func(t *testing.T, redis *testserver.Redis) {
		p := testserver.StartPostgres(t)
		c := newClusterOn(t, p.NewDatabase(t))
		c.redis = redis
		test(t, c, p)
	})
}

// withEachBus runs a test with a Redis and, side by side, with nil.
func withEachBus(t *testing.T, test func(t *testing.T, redis *testserver.Redis)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(t, testserver.StartRedis(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, nil)
	})
}

// bus returns the URL of the cluster's bus.
func (c *cluster) bus() string {
	if c.redis == nil {
		return "postgres"
	}
	return c.redis.URL()
}

// newClusterOn returns a cluster without nodes and without Redis, with the
// store that the URL names.
func newClusterOn(t testing.TB, store string) *cluster {
	return &cluster{t: t, store: store, checker: feedtest.NewChecker(), acked: make(map[string]map[feed.ID]time.Time)}
}

// start starts n nodes on the cluster's bus.
func (c *cluster) start(n int, env ...string) {
	c.t.Helper()
	for range n {
		c.startNode(c.bus(), env...)
	}
}

// startNode starts a node with the bus that the URL names, waits until it is
// ready, and returns it.
func (c *cluster) startNode(bus string, env ...string) *process {
	c.t.Helper()
	p := serveNode(c.t, built(c.t, false), c.store, bus, append(env, "REJOIN_ADMIN_LISTEN=127.0.0.1:0")...)
	p.awaitReady()
	c.nodes = append(c.nodes, p)
	return p
}

// verdict waits until all subscribers have everything, and then demands of
// each: exactly 1 to N, in order, the same bytes as the others, and everything
// that was acknowledged. It returns the figures of the run.
func (c *cluster) verdict(feeds ...string) figures {
	c.t.Helper()
	for _, name := range feeds {
		page := c.readFeed(name)
		c.await(name, page.Last, time.Minute)
		c.checker.End(name, page)
	}
	c.stopSubscribers()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range c.failed {
		c.t.Errorf("a publish failed: %v", err)
	}
	if err := c.checker.Err(); err != nil {
		c.t.Error(err)
	}
	if c.t.Failed() {
		for i, n := range c.nodes {
			c.t.Logf("node %d:\n%s", i, n.log)
		}
	}
	return c.figures()
}

// readFeed reads all of a feed, as the first node that runs serves it.
func (c *cluster) readFeed(name string) feed.Page {
	c.t.Helper()
	for _, n := range c.nodes {
		select {
		case <-n.done:
			continue
		default:
		}
		page, err := readFeed(clientOf(c.t, n.url), name)
		if err != nil {
			c.t.Fatalf("read %s: %v\n%s", name, err, n.log)
		}
		return page
	}
	c.t.Fatal("no node runs")
	return feed.Page{}
}

// awaitAll waits until all subscribers have all that is acknowledged.
func (c *cluster) awaitAll(name string, within time.Duration) {
	c.t.Helper()
	c.mu.Lock()
	last := slices.Max(slices.Collect(maps.Keys(c.acked[name])))
	c.mu.Unlock()
	c.await(name, last, within)
}

func (c *cluster) await(name string, last feed.ID, within time.Duration) {
	c.t.Helper()
	for deadline := time.Now().Add(within); !c.reached(name, last); {
		if time.Now().After(deadline) {
			c.t.Errorf("event %d of %s has not reached everybody within %v", last, name, within)
			return
		}
		time.Sleep(5 * time.Millisecond) // until what was published last has arrived
	}
}

func (c *cluster) reached(name string, last feed.ID) bool {
	for _, s := range c.subscribers {
		if s.feed == name && s.seen.Cursor() < last {
			return false
		}
	}
	return true
}

// figures is what a run amounted to.
type figures struct {
	events     int           // acknowledged
	deliveries int           // of those, over all subscribers
	publish99  time.Duration // from request to acknowledgement
	deliver50  time.Duration // from acknowledgement to delivery
	deliver99  time.Duration // the same
	worst      time.Duration // the same
	reconnects int           // of subscribers
}

func (f figures) String() string {
	return fmt.Sprintf("%d events, %d deliveries, publish p99 %v, delivery p99 %v and %v at worst, %d reconnects",
		f.events, f.deliveries, f.publish99.Round(time.Millisecond/10), f.deliver99.Round(time.Millisecond/10), f.worst.Round(time.Millisecond/10), f.reconnects)
}

// figures needs c.mu, and the subscribers stopped.
func (c *cluster) figures() figures {
	f := figures{events: len(c.took), publish99: p99(c.took)}
	var delays []time.Duration
	for _, s := range c.subscribers {
		f.reconnects += s.reconnects
		for id, at := range s.arrived {
			if acked, ok := c.acked[s.feed][id]; ok {
				delays = append(delays, max(0, at.Sub(acked)))
			}
		}
	}
	f.deliveries, f.deliver50, f.deliver99 = len(delays), median(delays), p99(delays)
	if len(delays) > 0 {
		f.worst = slices.Max(delays)
	}
	return f
}

func p99(all []time.Duration) time.Duration { return quantile(slices.Sorted(slices.Values(all)), 0.99) }

func median(all []time.Duration) time.Duration {
	return quantile(slices.Sorted(slices.Values(all)), 0.5)
}

// adminURL returns the address for operators that a node logs.
func (p *process) adminURL() string {
	p.t.Helper()
	return "http://" + p.logged("listening for operators").Address
}

// metric returns the value of a metric, named with its labels, or without them
// for the sum over all.
func (p *process) metric(name string) (sum float64) {
	p.t.Helper()
	resp, err := http.Get(p.adminURL() + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	found := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		full, value, _ := strings.Cut(lines.Text(), " ")
		if bare, _, _ := strings.Cut(full, "{"); bare != name && full != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatalf("metric %s: %v", name, err)
		}
		sum, found = sum+n, true
	}
	if !found {
		p.t.Errorf("there is no metric %s", name)
	}
	return sum
}

// readiness is what /readyz answers.
type readiness struct {
	status     int
	Store, Bus string
}

func (p *process) readiness() (r readiness, err error) {
	resp, err := http.Get(p.url + "/readyz")
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	r.status = resp.StatusCode
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// awaitBus waits until a node says that its bus is up, or down.
func (p *process) awaitBus(state string, within time.Duration) {
	p.t.Helper()
	var r readiness
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		r, _ = p.readiness()
		if r.Bus == state {
			return
		}
		time.Sleep(20 * time.Millisecond) // until the node has noticed
	}
	p.t.Errorf("the bus is not %s within %v: %+v\n%s", state, within, r, p.log)
}

// redisCLI runs a command in the cluster's Redis, and returns the answer.
func (c *cluster) redisCLI(args ...string) string {
	c.t.Helper()
	_, port, _ := strings.Cut(c.redis.Addr(), ":")
	out, err := exec.Command("redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("redis-cli %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// keys returns the keys of Redis that match a pattern.
func (c *cluster) keys(pattern string) []string {
	c.t.Helper()
	return strings.Fields(c.redisCLI("KEYS", pattern))
}

package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// redisPause is how long Redis stands still in TestClusterFaults. Half a minute
// is what has to be survived; by default the test takes less of everybody's
// time.
var redisPause = flag.Duration("redis-pause", 6*time.Second, "how long the tests make Redis stand still")

const (
	mostLines = 60 // that a node may log for one fault
	// publishBudget is what half of the publishes during a fault may take at most, unless
	// the machine is so slow that they take as long in health. One that waited for Redis
	// would take longer.
	publishBudget = 800 * time.Millisecond
	// deliveryBudget is what half of the deliveries may take, before, during and after.
	deliveryBudget = 2 * time.Second
)

// outage is a fault of Redis.
type outage struct {
	name    string
	args    []string // of the redis-server
	size    int      // of the events
	absent  bool     // there is no Redis when the nodes start
	proxied bool     // all nodes but the second reach Redis through a network that can lose
	strike  func(*outageTest)
}

// ofItsOwn reports whether the outage needs a cluster that no other has struck.
func (o *outage) ofItsOwn() bool { return len(o.args) > 0 || o.absent || o.proxied }

// outageTest is a cluster that an outage strikes, with feeds that no other
// outage has.
type outageTest struct {
	*cluster
	outage
	proxy      *redisProxy
	chat, news string
	lone       []string // get one event each, so that nothing published later shows that it is missing
}

// lasts lets the time pass that a fault takes.
func lasts(d time.Duration) { time.Sleep(d) } // the fault has to last

var outages = []outage{
	{name: "killed and started empty", strike: func(c *outageTest) {
		c.redis.Kill()
		sayDown(c.nodes...)
		c.redis.Start()
	}},
	{name: "flushed", strike: func(c *outageTest) {
		for range 5 {
			c.redisCLI("FLUSHALL")
			lasts(200 * time.Millisecond)
		}
	}},
	{name: "a stream deleted", strike: func(c *outageTest) {
		for range 5 {
			c.redisCLI("DEL", c.streamOf(c.chat))
			lasts(200 * time.Millisecond)
		}
	}},
	{name: "paused", strike: func(c *outageTest) {
		c.redis.Pause()
		began := time.Now()
		sayDown(c.nodes...)
		lasts(*redisPause - time.Since(began))
		c.redis.Resume()
	}},
	{name: "out of memory", args: []string{"--maxmemory", "2mb", "--maxmemory-policy", "noeviction"}, strike: func(c *outageTest) {
		c.redisCLI("SETRANGE", "ballast", "4000000", "x")
		sayDown(c.nodes[:2]...) // the third tells nothing
		lasts(time.Second)
		c.redisCLI("CONFIG", "SET", "maxmemory", "0")
	}},
	{name: "streams evicted", args: []string{"--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru"}, size: 3000, strike: func(c *outageTest) {
		lasts(2 * time.Second)
		for deadline := time.Now().Add(20 * time.Second); strings.Contains(c.redisCLI("INFO", "stats"), "evicted_keys:0"); {
			if time.Now().After(deadline) {
				c.t.Error("Redis evicted nothing")
				return
			}
			lasts(100 * time.Millisecond) // a slow machine takes longer to fill it
		}
	}},
	{name: "a string in place of a feed's stream", strike: func(c *outageTest) {
		c.redisCLI("SET", c.streamOf(c.chat), "x")
		lasts(time.Second)
		c.isStream(c.streamOf(c.chat))
	}},
	{name: "a list in place of a wake stream", strike: func(c *outageTest) {
		wake := c.wakeOf(c.chat)
		c.redisCLI("EVAL", "redis.call('del', KEYS[1]); return redis.call('rpush', KEYS[1], 'x')", "1", wake)
		lasts(time.Second)
		c.isStream(wake)
	}},
	{name: "the last id of all in a feed's stream", strike: func(c *outageTest) {
		c.redisCLI("XADD", c.streamOf(c.chat), lastID, "by", "hand")
		lasts(time.Second)
		c.takesEntries(c.streamOf(c.chat))
	}},
	{name: "the last id of all in a wake stream", strike: func(c *outageTest) {
		c.redisCLI("XADD", c.wakeOf(c.chat), lastID, "by", "hand")
		lasts(time.Second)
		c.takesEntries(c.wakeOf(c.chat))
	}},
	{name: "answers to telling lost", proxied: true, strike: func(c *outageTest) {
		c.proxy.loseTells(true)
		sayDown(c.nodes[0]) // the only one of them that tells
		lasts(2 * time.Second)
		c.proxy.loseTells(false)
		if c.proxy.Lost() == 0 {
			c.t.Error("no answer was lost")
		}
	}},
	{name: "nodes cut off without a word", proxied: true, strike: func(c *outageTest) {
		c.proxy.Set(blackHole)
		sayDown(c.nodes[0], c.nodes[2])
		c.proxy.Set(testserver.Fault{})
	}},
	{name: "absent at start", absent: true, strike: func(c *outageTest) {
		sayDown(c.nodes...)
		lasts(time.Second)
		c.redis.Start()
	}},
	{name: "connections killed", strike: func(c *outageTest) {
		for range 10 {
			c.redisCLI("CLIENT", "KILL", "TYPE", "normal")
			lasts(100 * time.Millisecond)
		}
	}},
	{name: "made a replica", strike: func(c *outageTest) {
		c.redisCLI("REPLICAOF", "127.0.0.1", "1") // where there is none
		sayDown(c.nodes[:2]...)                   // the third tells nothing
		lasts(time.Second)
		c.redisCLI("REPLICAOF", "NO", "ONE")
	}},
	{name: "flapping", strike: func(c *outageTest) {
		for range 5 {
			c.redis.Kill()
			lasts(300 * time.Millisecond)
			c.redis.Start()
			lasts(200 * time.Millisecond)
		}
	}},
}

// lastID is the largest id that an entry can have: none can follow.
const lastID = "18446744073709551615-18446744073709551615"

// TestClusterFaults breaks Redis in every way while two nodes are published to
// and three have subscribers. Clients must not notice: publishing does not wait for
// Redis, streams stay open and what they bring is complete and soon there, the
// nodes stay ready and do not fill their logs.
func TestClusterFaults(t *testing.T) {
	shared := &outageTest{cluster: newCluster(t)}
	shared.startNodes()
	// Outages of their own cluster wait for servers most of the time: they go
	// beside those that share one.
	for _, own := range []bool{false, true} {
		t.Run(map[bool]string{false: "shared", true: "of its own"}[own], func(t *testing.T) {
			t.Parallel()
			for i, o := range outages {
				if o.ofItsOwn() == own {
					t.Run(o.name, func(t *testing.T) { newOutageTest(t, shared.cluster, i).run() })
				}
			}
		})
	}
}

// BenchmarkClusterFaults measures how soon events are acknowledged and delivered while
// Redis is broken in each of these ways.
func BenchmarkClusterFaults(b *testing.B) {
	shared := &outageTest{cluster: newCluster(b)}
	shared.startNodes()
	for i, o := range outages {
		b.Run(o.name, func(b *testing.B) {
			var f figures
			for range b.N {
				f = newOutageTest(b, shared.cluster, i).run()
			}
			b.ReportMetric(milliseconds(f.publish99), "publish-p99-ms")
			b.ReportMetric(milliseconds(f.deliver99), "delivery-p99-ms")
			b.ReportMetric(milliseconds(f.worst), "delivery-max-ms")
		})
	}
}

var outagesMade atomic.Int64

// newOutageTest returns the test of one of the outages, on the shared cluster if
// the outage needs none of its own.
func newOutageTest(t testing.TB, shared *cluster, i int) *outageTest {
	c := &outageTest{outage: outages[i], cluster: shared.in(t)}
	if c.ofItsOwn() {
		c.cluster = newCluster(t, c.args...)
		c.startNodes()
	}
	n := outagesMade.Add(1)
	c.chat, c.news = fmt.Sprintf("chat-%d", n), fmt.Sprintf("news-%d", n)
	for j := range 8 {
		c.lone = append(c.lone, fmt.Sprintf("lone-%d-%d", n, j))
	}
	return c
}

// run has the outage strike, and judges what came of it.
func (c *outageTest) run() figures {
	c.t.Helper()
	c.follow(c.chat, 2, c.nodes...)
	c.follow(c.news, 1, c.nodes...)
	for _, name := range c.lone {
		c.follow(name, 1, c.nodes[1:]...)
	}
	stopWatch := c.watch()
	logged := c.loggedLines()
	publishing := c.nodes[:2]
	stopChat := c.publish(traffic{feed: c.chat, publishers: 2, pause: 25 * time.Millisecond, size: c.size}, publishing...)
	stopNews := c.publish(traffic{feed: c.news, publishers: 1, pause: 50 * time.Millisecond, size: c.size}, publishing...)
	lasts(300 * time.Millisecond) // of health, before
	health := c.publishTimes()
	stopLone := c.publishLone()
	c.strike(c)
	for _, n := range c.nodes {
		n.awaitBus("up", 30*time.Second)
	}
	during := c.publishTimes()[len(health):]
	stopLone()
	c.busBrings(c.nodes[2])
	stopChat()
	stopNews()
	f := c.verdict(append(c.lone, c.chat, c.news)...)
	stopWatch()
	lines := c.loggedLines()
	for i := range lines {
		lines[i] -= logged[i]
		if lines[i] > mostLines {
			c.t.Errorf("node %d logged %d lines:\n%s", i, lines[i], c.nodes[i].log)
		}
	}
	c.t.Logf("%v, log lines %v", f, lines)
	if f.worst > promptly || f.deliver50 > deliveryBudget || f.reconnects > 0 {
		c.t.Errorf("more than %v to deliver, or more than %v half of all, or streams were cut: %v", promptly, deliveryBudget, f)
	}
	if before, half := median(health), median(during); half > max(publishBudget, 4*before) {
		c.t.Errorf("half of the publishes took %v or more during the fault, and %v before it", half, before)
	}
	return f
}

// publishTimes returns how long each publish has taken, in the order in which they ended.
func (c *cluster) publishTimes() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.took)
}

// startNodes starts three nodes, in front of a proxy if the outage has one.
func (c *outageTest) startNodes() {
	c.t.Helper()
	url := c.redis.URL()
	if c.proxied {
		c.proxy = newRedisProxy(c.t, c.redis)
		url = c.proxy.URL(url)
	}
	if c.absent {
		c.redis.Kill()
	}
	for _, bus := range []string{url, c.redis.URL(), url} {
		c.startNode(bus)
	}
}

// in returns the cluster for a test within the one that started it, which has
// clients and a checker of its own.
func (c *cluster) in(t testing.TB) *cluster {
	inner := newClusterOn(t, c.store)
	inner.redis = c.redis
	for _, n := range c.nodes {
		p := *n
		p.t = t
		inner.nodes = append(inner.nodes, &p)
	}
	return inner
}

// publishLone publishes the lone events, one after the other, on the first
// node, and returns a function that waits for the end of that.
func (c *outageTest) publishLone() (wait func()) {
	var work sync.WaitGroup
	work.Go(func() {
		for _, name := range c.lone {
			c.publish(traffic{feed: name, publishers: 1, events: 1, pause: 125 * time.Millisecond, size: c.size}, c.nodes[0])()
		}
	})
	return work.Wait
}

// busBrings demands that a node gets events from the bus again.
func (c *outageTest) busBrings(n *process) {
	c.t.Helper()
	const name = `rejoin_replayed_events_total{source="bus"}`
	before := n.metric(name)
	for deadline := time.Now().Add(30 * time.Second); n.metric(name) < before+10; {
		if time.Now().After(deadline) {
			c.t.Error("the bus is up, and brings no events")
			return
		}
		time.Sleep(20 * time.Millisecond) // until some more have come
	}
}

func (c *outageTest) loggedLines() (count []int) {
	for _, n := range c.nodes {
		count = append(count, len(n.log.lines()))
	}
	return count
}

// watch demands of the nodes that they are ready, until it is stopped.
func (c *outageTest) watch() (stop func()) {
	end := make(chan struct{})
	var work sync.WaitGroup
	for i, n := range c.nodes {
		work.Go(func() {
			for {
				r, err := n.readiness()
				if err != nil || r.status != http.StatusOK || r.Store != "up" {
					c.t.Errorf("node %d is not ready: %+v, %v", i, r, err)
				}
				select {
				case <-time.After(200 * time.Millisecond):
				case <-end:
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { close(end); work.Wait() })
	c.t.Cleanup(stop)
	return stop
}

// sayDown waits until each of the nodes says that its bus is down.
func sayDown(nodes ...*process) {
	for _, n := range nodes {
		n.t.Helper()
		n.awaitBus("down", 30*time.Second)
	}
}

// streamOf returns the key of a feed's stream, which has to be there.
func (c *outageTest) streamOf(name string) string {
	c.t.Helper()
	keys := c.keys("rejoin:*:feed:" + name)
	if len(keys) != 1 {
		c.t.Fatalf("the streams of %s are %q", name, keys)
	}
	return keys[0]
}

// wakeOf returns the key of the wake stream of a feed's shard.
func (c *outageTest) wakeOf(name string) string {
	c.t.Helper()
	return strings.TrimSuffix(c.streamOf(name), "feed:"+name) + "wake"
}

func (c *outageTest) isStream(key string) {
	c.t.Helper()
	if kind := c.redisCLI("TYPE", key); kind != "stream" {
		c.t.Errorf("%s is still a %s", key, kind)
	}
}

func (c *outageTest) takesEntries(key string) {
	c.t.Helper()
	if info := c.redisCLI("XINFO", "STREAM", key); strings.Contains(info, lastID) {
		c.t.Errorf("%s still ends with the last id of all:\n%s", key, info)
	}
}

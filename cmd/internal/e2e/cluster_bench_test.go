package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// BenchmarkCluster measures what the number of open feeds costs: two nodes over
// Postgres and Redis, one subscriber to each feed on the one, and 1,000
// publishes a second to any of these feeds on the other. The latency is from
// when an event was due to be published to its arrival at the subscriber. The
// ratios are those of many feeds to few.
func BenchmarkCluster(b *testing.B) {
	const rate, window = 1000, 5 * time.Second
	p := testserver.StartPostgres(b)
	var few, many clusterFigures
	for _, run := range []struct {
		feeds int
		to    *clusterFigures
	}{{100, &few}, {10_000, &many}} {
		b.Run(fmt.Sprintf("feeds=%d", run.feeds), func(b *testing.B) {
			c := newClusterLoad(b, p, testserver.StartRedis(b), run.feeds)
			b.ResetTimer()
			for range b.N {
				*run.to = c.measure(rate, window)
			}
			run.to.report(b)
			if run.to == &many && few.redis > 0 {
				b.ReportMetric(many.redis.Seconds()/few.redis.Seconds(), "redis-cpu-ratio")
				b.ReportMetric(many.p50.Seconds()/few.p50.Seconds(), "p50-ratio")
			}
		})
	}
}

// BenchmarkBus measures the buses under one load: 1,000 publishes a second over 5,000
// feeds. The ratios are those of Postgres alone to Postgres with Redis.
func BenchmarkBus(b *testing.B) {
	const feeds, rate, window = 5000, 1000, 5 * time.Second
	p := testserver.StartPostgres(b)
	var with, without clusterFigures
	for _, run := range []struct {
		bus   string
		redis *testserver.Redis
		to    *clusterFigures
	}{{"redis", testserver.StartRedis(b), &with}, {"postgres", nil, &without}} {
		b.Run(run.bus, func(b *testing.B) {
			c := newClusterLoad(b, p, run.redis, feeds)
			b.ResetTimer()
			for range b.N {
				*run.to = c.measure(rate, window)
			}
			run.to.report(b)
			if run.to == &without && with.p50 > 0 {
				b.ReportMetric((without.from+without.to).Seconds()/(with.from+with.to).Seconds(), "cpu-ratio")
				b.ReportMetric(without.p50.Seconds()/with.p50.Seconds(), "p50-ratio")
			}
		})
	}
}

// BenchmarkSQL measures how soon three nodes, or one, deliver what an application appends
// and enqueues in SQL.
func BenchmarkSQL(b *testing.B) {
	for _, bus := range sqlBuses {
		b.Run(bus, func(b *testing.B) {
			c := newSQLCluster(b, bus)
			feeds := map[string]string{"appended": appends, "enqueued": enqueues}
			for name := range feeds {
				c.follow(name, 1, c.nodes...)
			}
			app, a := c.newApplication(), arrivals{}
			b.ResetTimer()
			for i := range b.N {
				for name, sql := range feeds {
					data := fmt.Sprint("event ", i)
					app.do(sql, name, data)
					a.commit(name, data)
				}
				time.Sleep(5 * time.Millisecond) // it is for the delay, not for the load
			}
			b.StopTimer()
			for name := range feeds {
				c.await(name, a.count(name), time.Minute)
			}
			c.verdict("appended", "enqueued")
			for name := range feeds {
				delays := a.judge(c, name)
				b.ReportMetric(milliseconds(median(delays)), name+"-p50-ms")
				b.ReportMetric(milliseconds(p99(delays)), name+"-p99-ms")
			}
		})
	}
}

// BenchmarkRetention measures how long publishes take while a node frees what its feed has
// too much of.
func BenchmarkRetention(b *testing.B) {
	var took []time.Duration
	for range b.N {
		r := &retentionTest{cluster: newCluster(b)}
		r.fill()
		r.alive = r.startNode(r.bus(), "REJOIN_RETENTION=feeds=hot events=200")
		first := r.first("hot")
		stop := r.publishOn()
		for deadline := time.Now().Add(time.Minute); r.first("hot") == first; time.Sleep(10 * time.Millisecond) { // until its round comes
			if time.Now().After(deadline) {
				b.Fatal("the feed is not trimmed")
			}
		}
		time.Sleep(2 * time.Second) // events are freed step by step
		stop()
		took = append(took, r.took...)
	}
	b.ReportMetric(milliseconds(median(took)), "publish-p50-ms")
	b.ReportMetric(milliseconds(p99(took)), "publish-p99-ms")
}

// newClusterLoad starts two nodes, without Redis if that is nil, and a subscriber to
// each feed.
func newClusterLoad(b *testing.B, p *testserver.Postgres, redis *testserver.Redis, feeds int) *clusterLoad {
	b.Helper()
	database, bus := p.NewDatabase(b), "postgres"
	if redis != nil {
		bus = redis.URL()
	}
	c := &clusterLoad{
		b:     b,
		redis: redis,
		from:  serveBenchmarkNode(b, database, bus),
		to:    serveBenchmarkNode(b, database, bus),
		feeds: make([]clusterFeed, feeds),
	}
	c.subscribe()
	c.warm()
	return c
}

// serveBenchmarkNode is serveBenchmark for one of several nodes.
func serveBenchmarkNode(b *testing.B, store, bus string) *process {
	b.Helper()
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		b.Fatalf("the benchmarks pin the nodes to a core: apt-get install util-linux (%v)", err)
	}
	cmd := exec.Command(taskset, "-c", "0", built(b, true), "serve", "--listen", "127.0.0.1:0", "--store", store, "--bus", bus)
	cmd.Env = append(cmd.Environ(), "REJOIN_LOG_FORMAT=json")
	p := launch(b, cmd)
	p.url = p.listening()
	p.awaitReady()
	return p
}

// clusterLoad is two nodes, and what publishes on one and subscribes on the
// other.
type clusterLoad struct {
	b        *testing.B
	redis    *testserver.Redis // nil without one
	from, to *process
	feeds    []clusterFeed

	mu        sync.Mutex
	latencies []time.Duration
	arrived   atomic.Int64
}

// clusterFeed is how far a feed has come at its publishers and its subscriber.
type clusterFeed struct{ published, seen atomic.Uint64 }

// clusterFigures are what is measured in a window.
type clusterFigures struct {
	redis    time.Duration // CPU a second
	p50, p99 time.Duration
	max      time.Duration
	from, to time.Duration // CPU a publish
	lost     int64
}

func (f clusterFigures) report(b *testing.B) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(f.redis), "redis-cpu-ms/s")
	b.ReportMetric(ms(f.p50), "p50-ms")
	b.ReportMetric(ms(f.p99), "p99-ms")
	b.ReportMetric(ms(f.max), "max-ms")
	b.ReportMetric(float64(f.from.Nanoseconds())/1000, "from-cpu-µs/publish")
	b.ReportMetric(float64(f.to.Nanoseconds())/1000, "to-cpu-µs/publish")
	b.ReportMetric(float64(f.lost), "lost")
}

// subscribe opens a stream of each feed, and returns when all are open.
func (c *clusterLoad) subscribe() {
	var reading, greeted sync.WaitGroup
	var conns []net.Conn
	opening := make(chan struct{}, 64)
	for i := range c.feeds {
		opening <- struct{}{}
		// One address has too few ports for more than some ten thousand.
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%16))}}
		conn, err := dialer.Dial("tcp", strings.TrimPrefix(c.to.url, "http://"))
		if err != nil {
			c.b.Fatal(err)
		}
		conns = append(conns, conn)
		greeted.Add(1)
		reading.Go(func() {
			c.read(conn, i, sync.OnceFunc(func() {
				<-opening
				greeted.Done()
			}))
		})
	}
	greeted.Wait()
	c.b.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
		reading.Wait()
	})
}

// read is a subscriber: it demands that every event is the next one.
func (c *clusterLoad) read(conn net.Conn, i int, greeted func()) {
	defer greeted()
	if _, err := fmt.Fprintf(conn, "GET /v1/feeds/bench:%d/events HTTP/1.1\r\nHost: localhost\r\n\r\n", i); err != nil {
		c.b.Error(err)
		return
	}
	lines := bufio.NewReaderSize(conn, 1024)
	open, id := false, uint64(0)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return // closed at the end, or else something is missing
		}
		if text, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
			id, _ = strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
			if !open {
				open = true
				greeted()
				continue
			}
			if !c.feeds[i].seen.CompareAndSwap(id-1, id) {
				c.b.Errorf("feed %d: event %d came after %d", i, id, c.feeds[i].seen.Load())
			}
		}
		if text, ok := bytes.CutPrefix(line, []byte("data: due ")); ok {
			c.arrive(text)
		}
	}
}

// arrive notes the arrival of an event that was due at the time in its data.
func (c *clusterLoad) arrive(data []byte) {
	now := time.Now()
	digits, _, _ := bytes.Cut(data, []byte(" "))
	due, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		c.b.Errorf("cannot read %q", data)
		return
	}
	c.mu.Lock()
	c.latencies = append(c.latencies, now.Sub(time.Unix(0, due)))
	c.mu.Unlock()
	c.arrived.Add(1)
}

// publish publishes to a feed what was due at that time.
func (c *clusterLoad) publish(p *publisher, i int, due time.Time) error {
	if err := p.publish(fmt.Sprintf("bench:%d", i), fmt.Sprintf("due %d %s", due.UnixNano(), payload)); err != nil {
		return err
	}
	c.feeds[i].published.Add(1)
	return nil
}

// clusterPublishers are enough to keep the pace with a slow disk.
const clusterPublishers = 64

// drive has the publishers take one number below n after another.
func (c *clusterLoad) drive(n int, publish func(p *publisher, i int) error) {
	var next atomic.Int64
	var work sync.WaitGroup
	for range clusterPublishers {
		p := dialPublisher(c.b, c.from.url)
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := publish(p, int(i)); err != nil {
					c.b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	for deadline := time.Now().Add(20 * time.Second); c.lost() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // until the last ones have arrived
	}
}

// warm publishes an event to each feed, so that all of them exist everywhere.
func (c *clusterLoad) warm() {
	c.drive(len(c.feeds), func(p *publisher, i int) error { return c.publish(p, i, time.Now()) })
	if lost := c.lost(); lost > 0 {
		c.b.Fatalf("%d of the first events did not arrive", lost)
	}
}

// lost returns how many events have been published and have not arrived.
func (c *clusterLoad) lost() (n int64) {
	for i := range c.feeds {
		n += int64(c.feeds[i].published.Load()) - int64(c.feeds[i].seen.Load())
	}
	return n
}

// measure publishes at the rate for the window.
func (c *clusterLoad) measure(rate int, window time.Duration) clusterFigures {
	c.mu.Lock()
	c.latencies = nil
	c.mu.Unlock()
	redis, from, to, began := c.redisCPU(), c.from.cpu(), c.to.cpu(), time.Now()
	n := int(float64(rate) * window.Seconds())
	c.drive(n, func(p *publisher, i int) error {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due)) // the pace
		return c.publish(p, rand.IntN(len(c.feeds)), due)
	})
	took := time.Since(began)
	f := clusterFigures{
		redis: time.Duration(float64(c.redisCPU()-redis) / took.Seconds()),
		from:  (c.from.cpu() - from) / time.Duration(n),
		to:    (c.to.cpu() - to) / time.Duration(n),
		lost:  c.lost(),
	}
	if f.lost != 0 {
		c.b.Errorf("%d events were lost", f.lost)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.latencies) == 0 {
		c.b.Fatal("nothing arrived")
	}
	slices.Sort(c.latencies)
	f.p50 = c.latencies[len(c.latencies)/2]
	f.p99 = c.latencies[len(c.latencies)*99/100]
	f.max = c.latencies[len(c.latencies)-1]
	return f
}

// redisCPU returns the CPU time that Redis has used.
func (c *clusterLoad) redisCPU() time.Duration {
	c.b.Helper()
	if c.redis == nil {
		return 0
	}
	conn, err := net.Dial("tcp", c.redis.Addr())
	if err != nil {
		c.b.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "INFO cpu\r\nQUIT\r\n")
	var used time.Duration
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				c.b.Fatal(err)
			}
			used += time.Duration(seconds * float64(time.Second))
		}
	}
	return used
}

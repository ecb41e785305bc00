package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These benchmarks measure the command as users run it, in a process of its
// own on the first core. Run them on another one: make bench does.

// payload is the data of a benchmark's event: 120 bytes.
var payload = strings.Repeat("0123456789", 12)

// serveBenchmark starts a server on the first core.
func serveBenchmark(b *testing.B, env ...string) *process {
	b.Helper()
	binary := built(b, true)
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		b.Fatalf("the benchmarks pin the server to a core: apt-get install util-linux (%v)", err)
	}
	cmd := exec.Command(taskset, "-c", "0", binary, "serve", "--listen", "127.0.0.1:0", "--store", "sqlite:"+filepath.Join(b.TempDir(), "bench.db"))
	cmd.Env = append(cmd.Environ(), append(env, "REJOIN_LOG_FORMAT=json")...)
	p := launch(b, cmd)
	p.url = p.listening()
	return p
}

// cpu returns the CPU time that the process has used.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	// The process CPU clock of a process id, see clock_getcpuclockid(3).
	clock := int32(^p.cmd.Process.Pid<<3 | 2)
	var now unix.Timespec
	if err := unix.ClockGettime(clock, &now); err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// BenchmarkPublish measures durable publishes: each answered after its commit.
func BenchmarkPublish(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			benchmarkPublish(b, clients, 1, "publishes", func(p *publisher) error { return p.publish(payload) })
		})
	}
}

// BenchmarkPublishBatch measures durable publishes of a hundred events each.
func BenchmarkPublishBatch(b *testing.B) {
	const events = 100
	batch := strings.Repeat(`{"data":"`+payload+`"}`+"\n", events)
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			benchmarkPublish(b, clients, events, "events", func(p *publisher) error { return p.post("application/x-ndjson", batch) })
		})
	}
}

// benchmarkPublish has so many clients publish, b.N times in all, what counts as
// so many of the unit.
func benchmarkPublish(b *testing.B, clients, size int, unit string, publish func(*publisher) error) {
	p := serveBenchmark(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	var work sync.WaitGroup
	before := p.cpu()
	b.ResetTimer()
	for range clients {
		work.Go(func() {
			publisher := dialPublisher(b, p.url)
			for left.Add(-1) >= 0 {
				if err := publish(publisher); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), unit+"/s")
	b.ReportMetric(float64(size*b.N)/(p.cpu()-before).Seconds(), unit+"/cpu-s")
}

// BenchmarkFanout measures what a delivery costs the server: each event goes
// to 1,000 subscribers, and the next one is published when all have it, so
// that no two of them travel in one write.
func BenchmarkFanout(b *testing.B) {
	const subscribers = 1000
	p := serveBenchmark(b)
	crowd := newCrowd(b, p.url, oneFeed+"?from=now", subscribers)
	publisher := dialPublisher(b, p.url)
	before := p.cpu()
	b.ResetTimer()
	for i := range b.N {
		if err := publisher.publish(payload); err != nil {
			b.Fatal(err)
		}
		crowd.await(int64(subscribers) * int64(i+1))
	}
	deliveries := float64(b.N) * subscribers
	b.ReportMetric(deliveries/(p.cpu()-before).Seconds(), "deliveries/cpu-s")
	b.ReportMetric(deliveries/b.Elapsed().Seconds(), "deliveries/s")
}

// BenchmarkIdle measures the memory of a subscriber to which nothing happens.
func BenchmarkIdle(b *testing.B) {
	const subscribers = 9000
	for range b.N {
		p := serveBenchmark(b)
		before := p.rss()
		cpu := p.cpu()
		crowd := newCrowd(b, p.url, oneFeed+"?from=now", subscribers)
		b.ReportMetric(float64((p.cpu()-cpu).Microseconds())/subscribers, "cpu-µs/subscriber")
		b.ReportMetric(float64(p.rss()-before)/subscribers, "bytes/subscriber")
		crowd.close()
		p.kill()
	}
}

// BenchmarkManyFeeds measures what following several feeds over one connection
// costs more than following one: the memory of a subscriber, and the CPU of a
// delivery of one of the feeds. The others are silent.
func BenchmarkManyFeeds(b *testing.B) {
	const subscribers = 2000
	for _, feeds := range []int{1, 20} {
		b.Run(fmt.Sprintf("feeds=%d", feeds), func(b *testing.B) {
			path := "/v1/events?feed=bench"
			for i := 1; i < feeds; i++ {
				path += fmt.Sprintf(",other-%d", i)
			}
			p := serveBenchmark(b)
			before := p.rss()
			crowd := newCrowd(b, p.url, path, subscribers)
			memory := p.rss() - before
			publisher := dialPublisher(b, p.url)
			cpu := p.cpu()
			b.ResetTimer()
			for i := range b.N {
				if err := publisher.publish(payload); err != nil {
					b.Fatal(err)
				}
				crowd.await(int64(subscribers) * int64(i+1))
			}
			b.ReportMetric(float64((p.cpu()-cpu).Nanoseconds())/float64(b.N)/subscribers, "cpu-ns/delivery")
			b.ReportMetric(float64(memory)/subscribers, "bytes/subscriber")
		})
	}
}

// BenchmarkReplay measures reading history that is in the store alone: one
// subscriber reads 100,000 events from the start.
func BenchmarkReplay(b *testing.B) {
	const history = 100_000
	p := serveBenchmark(b)
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			publisher := dialPublisher(b, p.url)
			for range history / 64 {
				if err := publisher.publish(payload); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	const events = history / 64 * 64
	before := p.cpu()
	b.ResetTimer()
	for range b.N {
		crowd := newCrowd(b, p.url, oneFeed+"?from=start", 1)
		crowd.await(events)
		crowd.close()
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(events*float64(b.N)/(p.cpu()-before).Seconds(), "events/cpu-s")
}

// publisher is a connection that publishes to the feed bench, with as little
// work on this side as possible.
type publisher struct {
	conn net.Conn
	buf  []byte
}

func dialPublisher(b *testing.B, url string) *publisher {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &publisher{conn, make([]byte, 16<<10)}
}

func (p *publisher) publish(data string) error { return p.post("text/plain", data) }

func (p *publisher) post(media, body string) error {
	if _, err := fmt.Fprintf(p.conn, "POST /v1/feeds/bench/events HTTP/1.1\r\nHost: rejoin\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", media, len(body), body); err != nil {
		return err
	}
	n := 0
	for !bytes.HasSuffix(p.buf[:n], []byte("}\n")) {
		m, err := p.conn.Read(p.buf[n:])
		if err != nil {
			return err
		}
		n += m
	}
	if !bytes.HasPrefix(p.buf[:n], []byte("HTTP/1.1 201 ")) {
		return fmt.Errorf("publish: %q", p.buf[:n])
	}
	return nil
}

// crowd is many subscribers of the feed bench that count what they get.
type crowd struct {
	b       *testing.B
	conns   []net.Conn
	reading sync.WaitGroup
	events  atomic.Int64
	wanted  atomic.Int64
	reached chan struct{}
}

const oneFeed = "/v1/feeds/bench/events"

// newCrowd returns when all subscribers have been greeted.
func newCrowd(b *testing.B, url, path string, subscribers int) *crowd {
	b.Helper()
	c := &crowd{b: b, reached: make(chan struct{}, 1)}
	var greeted sync.WaitGroup
	for i := range subscribers {
		// One address has too few ports for more than some ten thousand.
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%16))}}
		conn, err := dialer.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		c.conns = append(c.conns, conn)
		greeted.Add(1)
		c.reading.Go(func() { c.read(conn, path, greeted.Done) })
	}
	greeted.Wait()
	b.Cleanup(c.close)
	return c
}

// read counts the ids in the stream; the first is that of feed.open.
func (c *crowd) read(conn net.Conn, path string, greeted func()) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: rejoin\r\n\r\n", path); err != nil {
		c.b.Error(err)
	}
	buf := make([]byte, 32<<10)
	pattern, kept, open := []byte("\nid: "), 0, false
	for {
		n, err := conn.Read(buf[kept:])
		if err != nil {
			if !open {
				greeted()
			}
			return
		}
		seen := buf[:kept+n]
		ids := bytes.Count(seen, pattern)
		kept = copy(buf, seen[max(0, len(seen)-len(pattern)+1):])
		if ids > 0 && !open {
			open = true
			ids--
			greeted()
		}
		if ids > 0 && c.events.Add(int64(ids)) >= c.wanted.Load() {
			select {
			case c.reached <- struct{}{}:
			default:
			}
		}
	}
}

// await returns when the crowd has got n events in all.
func (c *crowd) await(n int64) {
	c.wanted.Store(n)
	timeout := time.After(time.Minute)
	for c.events.Load() < n {
		select {
		case <-c.reached:
		case <-timeout:
			c.b.Fatalf("%d of %d events arrived", c.events.Load(), n)
		}
	}
}

func (c *crowd) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.reading.Wait()
}

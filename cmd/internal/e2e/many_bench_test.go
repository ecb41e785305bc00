package e2e

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

// The benchmarks of this package measure what rejoin bench does not, on the
// command as users run it, in a process of its own on the first core. Run them on
// another one: make microbench does.

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
				if err := publisher.publish("bench", payload); err != nil {
					b.Fatal(err)
				}
				crowd.await(int64(subscribers) * int64(i+1))
			}
			b.ReportMetric(float64((p.cpu()-cpu).Nanoseconds())/float64(b.N)/subscribers, "cpu-ns/delivery")
			b.ReportMetric(float64(memory)/subscribers, "bytes/subscriber")
		})
	}
}

// publisher is a connection that publishes, with as little
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
	return &publisher{conn, make([]byte, 4096)}
}

func (p *publisher) publish(feed, data string) error {
	if _, err := fmt.Fprintf(p.conn, "POST /v1/feeds/%s/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", feed, len(data), data); err != nil {
		return err
	}
	n, err := p.conn.Read(p.buf)
	if err != nil {
		return err
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
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
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

package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// BenchmarkTell tells the events of one flush, each of a different feed or all of one
// feed.
func BenchmarkTell(b *testing.B) {
	server := testserver.StartRedis(b)
	for _, feeds := range []int{1, 1000} {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("events=%d/feeds=%d", n, min(n, feeds)), func(b *testing.B) {
				bus := open(b, server.URL(), options())
				defer bus.Close()
				source := newSource(feeds)
				meter := startMeter(b, server)
				for b.Loop() {
					if err := bus.Tell(b.Context(), source.next(n)); err != nil {
						b.Fatal(err)
					}
				}
				meter.report(b.N * n)
			})
		}
	}
}

// BenchmarkWake tells one event of one of many open feeds to another node. The cost
// must not depend on how many feeds are open.
func BenchmarkWake(b *testing.B) {
	for _, feeds := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("open=%d", feeds), func(b *testing.B) {
			server := testserver.StartRedis(b)
			o := options()
			source := newSource(feeds)
			r := &sink{cursors: make(map[string]feed.ID), arrived: make(chan struct{}, 1)}
			for _, name := range source.names {
				r.cursors[name] = 0
			}
			tailer, teller := open(b, server.URL(), o), open(b, server.URL(), o)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- tailer.Tail(ctx, r) }()
			for !tailer.Stats().Up {
				time.Sleep(time.Millisecond) // until it is connected
			}
			// Give every feed a stream, as in real use.
			for range feeds / 100 {
				if err := teller.Tell(b.Context(), source.next(100)); err != nil {
					b.Fatal(err)
				}
				for range 100 {
					<-r.arrived
				}
			}
			meter := startMeter(b, server)
			for b.Loop() {
				if err := teller.Tell(b.Context(), source.next(1)); err != nil {
					b.Fatal(err)
				}
				<-r.arrived
			}
			meter.report(b.N)
			cancel()
			<-ended
			tailer.Close()
			teller.Close()
		})
	}
}

// source makes events of feeds by turns.
type source struct {
	names []string
	last  []feed.ID
	turn  int
	data  string
}

func newSource(feeds int) *source {
	s := &source{names: make([]string, feeds), last: make([]feed.ID, feeds), data: strings.Repeat("x", 120)}
	for i := range s.names {
		s.names[i] = fmt.Sprintf("room:%d", i)
	}
	return s
}

func (s *source) next(n int) []feed.Event {
	events := make([]feed.Event, n)
	for i := range events {
		s.last[s.turn]++
		events[i] = feed.Event{Feed: s.names[s.turn], ID: s.last[s.turn], Type: "sent", Data: s.data, Time: time.UnixMilli(1_700_000_000_000).UTC()}
		s.turn = (s.turn + 1) % len(s.names)
	}
	return events
}

// sink is a receiver that follows everything.
type sink struct {
	cursors map[string]feed.ID
	arrived chan struct{}
}

func (s *sink) Cursor(name string) (feed.ID, bool) { c, ok := s.cursors[name]; return c, ok }

func (s *sink) Receive(events []feed.Event) {
	for i := range events {
		s.cursors[events[i].Feed] = events[i].ID
		s.arrived <- struct{}{}
	}
}

func (s *sink) Grew(string, feed.ID) { panic("nothing is lost in a benchmark") }
func (s *sink) Missed()              {}

// meter measures the processor time of the server, and of this process.
type meter struct {
	b      *testing.B
	client *goredis.Client
	server float64
	own    float64
}

func startMeter(b *testing.B, server *testserver.Redis) *meter {
	m := &meter{b: b, client: goredis.NewClient(&goredis.Options{Addr: server.Addr()})}
	m.server, m.own = m.used()
	b.ReportAllocs()
	return m
}

// used returns the processor time in seconds.
func (m *meter) used() (server, own float64) {
	info, err := m.client.InfoMap(m.b.Context(), "cpu").Result()
	if err != nil {
		m.b.Fatal(err)
	}
	for _, key := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info["CPU"][key], 64)
		if err != nil {
			m.b.Fatal(err)
		}
		server += seconds
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		m.b.Fatal(err)
	}
	return server, time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func (m *meter) report(events int) {
	server, own := m.used()
	m.b.ReportMetric((server-m.server)*1e6/float64(events), "redis-µs/event")
	m.b.ReportMetric((own-m.own)*1e6/float64(events), "own-µs/event")
	m.client.Close()
}

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// streamProducer publishes a stream over a connection of its own.
type streamProducer struct {
	b    *testing.B
	conn net.Conn
}

func dialStream(b *testing.B, url, feed string) *streamProducer {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST /v1/feeds/%s/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", feed); err != nil {
		b.Fatal(err)
	}
	return &streamProducer{b, conn}
}

func (p *streamProducer) publish(data string) error {
	_, err := fmt.Fprintf(p.conn, "%x\r\ndata: %s\n\n\r\n", len(data)+8, data)
	return err
}

// end ends the stream and demands that all its events are stored.
func (p *streamProducer) end(events int) {
	p.b.Helper()
	if _, err := io.WriteString(p.conn, "0\r\n\r\n"); err != nil {
		p.b.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(p.conn), nil)
	if err != nil {
		p.b.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || r.StatusCode != http.StatusCreated || !strings.Contains(string(body), fmt.Sprintf(`"events":%d,`, events)) {
		p.b.Fatalf("%s %s (%v), want %d events", r.Status, body, err, events)
	}
}

// BenchmarkPublishStream measures the server's CPU for each of 200 events a second:
// published one by one over one connection, and as a stream.
func BenchmarkPublishStream(b *testing.B) {
	const pace = time.Second / 200
	measure := func(b *testing.B, p *process, publish func(string) error) {
		b.Helper()
		cpu := p.cpu()
		b.ResetTimer()
		began := time.Now()
		for i := range b.N {
			time.Sleep(time.Until(began.Add(time.Duration(i) * pace)))
			if err := publish(payload); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		b.ReportMetric(float64((p.cpu()-cpu).Microseconds())/float64(b.N), "cpu-µs/event")
	}
	b.Run("single", func(b *testing.B) {
		p := serveBenchmark(b)
		publisher := dialPublisher(b, p.url)
		measure(b, p, func(data string) error { return publisher.publish("bench", data) })
	})
	b.Run("stream", func(b *testing.B) {
		p := serveBenchmark(b)
		s := dialStream(b, p.url, "bench")
		measure(b, p, s.publish)
		s.end(b.N)
	})
}

// BenchmarkPublishStreams measures how long an event takes from a producer to a
// subscriber, with 100 producers of 30 events a second each.
func BenchmarkPublishStreams(b *testing.B) {
	const producers, pace = 100, time.Second / 30
	p := serveBenchmark(b)
	var mu sync.Mutex
	var late []time.Duration
	var working sync.WaitGroup
	began := time.Now().Add(200 * time.Millisecond)
	for i := range producers {
		feed := "bench-" + strconv.Itoa(i)
		resp, err := http.Get(p.url + "/v1/feeds/" + feed + "/events")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { resp.Body.Close() })
		working.Go(func() {
			lines := bufio.NewScanner(resp.Body)
			for n := 0; n < b.N && lines.Scan(); {
				sent, err := strconv.ParseInt(strings.TrimPrefix(lines.Text(), "data: "), 10, 64)
				if err != nil {
					continue
				}
				n++
				mu.Lock()
				late = append(late, time.Since(time.Unix(0, sent)))
				mu.Unlock()
			}
		})
		s := dialStream(b, p.url, feed)
		working.Go(func() {
			for n := range b.N {
				// The producers are spread over the pace.
				time.Sleep(time.Until(began.Add(time.Duration(n)*pace + time.Duration(i)*pace/producers)))
				if err := s.publish(strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	cpu := p.cpu()
	b.ResetTimer()
	working.Wait()
	b.StopTimer()
	if len(late) != producers*b.N {
		b.Fatalf("%d events arrived of %d", len(late), producers*b.N)
	}
	slices.Sort(late)
	b.ReportMetric(float64((p.cpu()-cpu).Microseconds())/float64(len(late)), "cpu-µs/event")
	for _, at := range []struct {
		name string
		part int
	}{{"p50-ms", 50}, {"p99-ms", 99}} {
		b.ReportMetric(float64(late[len(late)*at.part/100].Microseconds())/1000, at.name)
	}
}

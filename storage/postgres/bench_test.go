package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// payload is what a chat event looks like.
var payload = `{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}`

// BenchmarkAppend measures durable appends by the shape that group commit gives
// them: so many batches of so many events, over so many feeds.
func BenchmarkAppend(b *testing.B) {
	s := openBench(b)
	for _, shape := range []struct{ batches, events, feeds int }{
		{1, 1, 1}, {64, 1, 1}, {64, 1, 1000}, {1, 100, 1}, {64, 100, 10},
	} {
		b.Run(fmt.Sprintf("batches=%d/events=%d/feeds=%d", shape.batches, shape.events, shape.feeds), func(b *testing.B) {
			n := 0
			for b.Loop() {
				batches := make([]feed.Batch, shape.batches)
				for i := range batches {
					for range shape.events {
						batches[i].Drafts = append(batches[i].Drafts, feed.Draft{
							Feed: fmt.Sprintf("%s:%d", b.Name(), n%shape.feeds), Type: "text", Data: payload, JSON: true,
						})
					}
					n++
				}
				if _, err := s.Append(b.Context(), batches); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*shape.events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkAppendParallel is the same with several appends at a time, each to a
// feed of its own.
func BenchmarkAppendParallel(b *testing.B) {
	s := openBench(b)
	b.SetParallelism(2)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		name := fmt.Sprintf("chat:%p", pb)
		for pb.Next() {
			if _, err := s.Append(b.Context(), batch(name, payload)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	s := openBench(b)
	fill(b, s, "chat", 100_000)
	for _, events := range []int{1, 16, 512} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			after, n := 0, 0
			for b.Loop() {
				page, err := s.Read(b.Context(), "chat", feed.Cursor(after), feed.Limit{Events: events, Bytes: 1 << 20})
				if err != nil {
					b.Fatal(err)
				}
				n += len(page.Events)
				after = (after + len(page.Events)) % (100_000 - 512)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkBounds(b *testing.B) {
	s := openBench(b)
	var names []string
	var all []feed.Draft
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("chat:%d", i))
		all = append(all, feed.Draft{Feed: names[i], Data: "x"})
	}
	if _, err := s.Append(b.Context(), []feed.Batch{{Drafts: all}}); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("feeds=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Bounds(b.Context(), names[:n]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "feeds/s")
		})
	}
}

func BenchmarkSeek(b *testing.B) {
	s := openBench(b)
	fill(b, s, "chat", 100_000)
	now := time.Now()
	for b.Loop() {
		if _, err := s.Seek(b.Context(), "chat", now); err != nil {
			b.Fatal(err)
		}
	}
}

// openBench opens a store on a server that syncs.
func openBench(b *testing.B) *Store {
	return start(b, testserver.StartPostgres(b).NewDatabase(b), Options{})
}

func fill(tb testing.TB, s *Store, name string, n int) {
	tb.Helper()
	for range n / 1000 {
		var one feed.Batch
		for range 1000 {
			one.Drafts = append(one.Drafts, feed.Draft{Feed: name, Type: "text", Data: payload, JSON: true})
		}
		if _, err := s.Append(tb.Context(), []feed.Batch{one}); err != nil {
			tb.Fatal(err)
		}
	}
}

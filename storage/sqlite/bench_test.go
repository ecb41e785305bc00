package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// payload is what a chat event looks like.
var payload = `{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}`

// BenchmarkAppend measures durable appends by the shape that group commit gives
// them: so many batches of so many events, over so many feeds.
func BenchmarkAppend(b *testing.B) {
	for _, shape := range []struct{ batches, events, feeds int }{
		{1, 1, 1}, {16, 1, 1}, {64, 1, 1}, {64, 1, 1000}, {1, 100, 1}, {10, 100, 10}, {64, 100, 10},
	} {
		b.Run(fmt.Sprintf("batches=%d/events=%d/feeds=%d", shape.batches, shape.events, shape.feeds), func(b *testing.B) {
			s := openBench(b)
			n := 0
			for b.Loop() {
				batches := make([]feed.Batch, shape.batches)
				for i := range batches {
					for range shape.events {
						batches[i].Drafts = append(batches[i].Drafts, feed.Draft{
							Feed: fmt.Sprintf("chat:%d", n%shape.feeds), Type: "text", Data: payload, JSON: true,
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

// BenchmarkKeyedAppend measures what a key costs: by batch, new and known.
func BenchmarkKeyedAppend(b *testing.B) {
	for _, kind := range []string{"none", "new", "known"} {
		b.Run(kind, func(b *testing.B) {
			s := openBench(b)
			n := 0
			for b.Loop() {
				batches := make([]feed.Batch, 64)
				for i := range batches {
					batches[i] = feed.Batch{Feed: "chat", Drafts: []feed.Draft{{Feed: "chat", Type: "text", Data: payload, JSON: true}}}
					if kind == "new" {
						n++
					}
					if kind != "none" {
						batches[i].Key = &feed.Key{Name: fmt.Sprintf("%x-%d", uint64(n)*0x9e3779b97f4a7c15, i), Window: time.Hour}
					}
				}
				if _, err := s.Append(b.Context(), batches); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(64*b.N)/b.Elapsed().Seconds(), "batches/s")
		})
	}
}

// BenchmarkAppendWhileSweeping measures how long one publish takes while a large
// feed is swept as retention does it, and while none is.
func BenchmarkAppendWhileSweeping(b *testing.B) {
	for _, trimmed := range []uint64{0, 1 << 40} {
		b.Run(fmt.Sprintf("sweeping=%t", trimmed > 0), func(b *testing.B) {
			s := openBench(b)
			fill(b, s, "large", 200_000)
			if err := s.Trim(b.Context(), "large", trimmed); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var sweeper sync.WaitGroup
			sweeper.Go(func() {
				for ctx.Err() == nil {
					if _, err := s.Sweep(b.Context(), 500, time.Hour); err != nil {
						b.Error(err)
					}
					select {
					case <-time.After(20 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			})
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				mustPut(b, s, "chat", payload)
				took = append(took, time.Since(began))
			}
			cancel()
			sweeper.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s := openBench(b)
	fill(b, s, "chat", 100_000)
	for _, events := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			after, n := 0, 0
			for b.Loop() {
				page, err := s.Read(b.Context(), "chat", feed.Cursor(after), feed.Limit{Events: events, Bytes: 1 << 20})
				if err != nil {
					b.Fatal(err)
				}
				n += len(page.Events)
				after = (after + len(page.Events)) % (100_000 - 256)
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

func openBench(b *testing.B) *Store {
	s := openStore(b, filepath.Join(b.TempDir(), "store.db"))
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func fill(tb testing.TB, s *Store, name string, n int) {
	tb.Helper()
	for range n / 1000 {
		var batch feed.Batch
		for range 1000 {
			batch.Drafts = append(batch.Drafts, feed.Draft{Feed: name, Type: "text", Data: payload, JSON: true})
		}
		if _, err := s.Append(tb.Context(), []feed.Batch{batch}); err != nil {
			tb.Fatal(err)
		}
	}
}

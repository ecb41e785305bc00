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
	"github.com/rejoin/rejoin/storage/storagetest"
)

// payload looks like the data of a chat event.
var payload = `{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}`

func BenchmarkStore(b *testing.B) {
	storagetest.BenchmarkStore(b, func(b *testing.B) feed.Store { return openBench(b) })
}

// BenchmarkAppendWhileSweeping measures how long one publish takes while a large
// feed is swept as retention does it, and while none is.
func BenchmarkAppendWhileSweeping(b *testing.B) {
	for _, trimmed := range []feed.ID{0, 1 << 40} {
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

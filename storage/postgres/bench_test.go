package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/storagetest"
	"github.com/rejoin/rejoin/storage/testserver"
)

// payload looks like the data of a chat event.
var payload = `{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}`

func BenchmarkStore(b *testing.B) {
	storagetest.BenchmarkStore(b, func(b *testing.B) feed.Store { return openBench(b) })
}

// BenchmarkAppendParallel measures concurrent appends, each to a feed of its own.
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

// openBench opens a store on a server that syncs.
func openBench(b *testing.B) *Store {
	return start(b, testserver.StartPostgres(b).NewDatabase(b), Options{})
}

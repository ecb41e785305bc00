package storagetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// benchEvents is the number of events in the feed that is read.
const benchEvents = 100_000

// benchPayload looks like the data of a chat event.
var benchPayload = `{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}`

// BenchmarkStore measures a store. It calls open for a new and empty store at the
// start of each benchmark; open closes the store when that ends.
func BenchmarkStore(b *testing.B, open func(b *testing.B) feed.Store) {
	b.Run("append", func(b *testing.B) { benchAppend(b, open(b)) })
	b.Run("keyed append", func(b *testing.B) { benchKeyedAppend(b, open(b)) })
	b.Run("read", func(b *testing.B) { benchRead(b, open(b)) })
	b.Run("bounds", func(b *testing.B) { benchBounds(b, open(b)) })
	b.Run("seek", func(b *testing.B) { benchSeek(b, open(b)) })
}

// benchAppend measures durable appends in the shapes that group commit gives them:
// a number of batches of a number of events, spread over a number of feeds.
func benchAppend(b *testing.B, s feed.Store) {
	for _, shape := range []struct{ batches, events, feeds int }{
		{1, 1, 1}, {16, 1, 1}, {64, 1, 1}, {64, 1, 1000}, {1, 100, 1}, {10, 100, 10}, {64, 100, 10},
	} {
		b.Run(fmt.Sprintf("batches=%d/events=%d/feeds=%d", shape.batches, shape.events, shape.feeds), func(b *testing.B) {
			n := 0
			for b.Loop() {
				batches := make([]feed.Batch, shape.batches)
				for i := range batches {
					for range shape.events {
						name := fmt.Sprintf("%d.%d.%d:%d", shape.batches, shape.events, shape.feeds, n%shape.feeds)
						batches[i].Drafts = append(batches[i].Drafts, benchDraft(name))
					}
					n++
				}
				mustAppend(b, s, batches)
			}
			b.ReportMetric(float64(n*shape.events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// benchKeyedAppend measures the cost of a new and of a known key in each batch.
func benchKeyedAppend(b *testing.B, s feed.Store) {
	for _, kind := range []string{"none", "new", "known"} {
		b.Run(kind, func(b *testing.B) {
			n := 0
			for b.Loop() {
				batches := make([]feed.Batch, 64)
				for i := range batches {
					batches[i] = feed.Batch{Feed: kind, Drafts: []feed.Draft{benchDraft(kind)}}
					if kind == "new" {
						n++
					}
					if kind != "none" {
						batches[i].Key = &feed.Key{Name: fmt.Sprintf("%x-%d", uint64(n)*0x9e3779b97f4a7c15, i), Window: time.Hour}
					}
				}
				mustAppend(b, s, batches)
			}
			b.ReportMetric(float64(64*b.N)/b.Elapsed().Seconds(), "batches/s")
		})
	}
}

func benchRead(b *testing.B, s feed.Store) {
	fillBench(b, s)
	for _, events := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			after, n := 0, 0
			for b.Loop() {
				page, err := s.Read(b.Context(), "chat", feed.ID(after), feed.Limit{Events: events, Bytes: 1 << 20})
				if err != nil {
					b.Fatal(err)
				}
				n += len(page.Events)
				after = (after + len(page.Events)) % (benchEvents - events)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func benchBounds(b *testing.B, s feed.Store) {
	names := make([]string, 10_000)
	all := make([]feed.Draft, len(names))
	for i := range names {
		names[i] = fmt.Sprintf("chat:%d", i)
		all[i] = feed.Draft{Feed: names[i], Data: "x"}
	}
	mustAppend(b, s, []feed.Batch{{Drafts: all}})
	for _, n := range []int{1, 100, len(names)} {
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

func benchSeek(b *testing.B, s feed.Store) {
	fillBench(b, s)
	now := time.Now()
	for b.Loop() {
		if _, err := s.Seek(b.Context(), "chat", now); err != nil {
			b.Fatal(err)
		}
	}
}

func benchDraft(name string) feed.Draft {
	return feed.Draft{Feed: name, Type: "text", Data: benchPayload, JSON: true}
}

// fillBench appends benchEvents events to the feed chat.
func fillBench(b *testing.B, s feed.Store) {
	b.Helper()
	const size = 1000
	for range benchEvents / size {
		var one feed.Batch
		for range size {
			one.Drafts = append(one.Drafts, benchDraft("chat"))
		}
		mustAppend(b, s, []feed.Batch{one})
	}
}

func mustAppend(b *testing.B, s feed.Store, batches []feed.Batch) {
	b.Helper()
	results, err := s.Append(b.Context(), batches)
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

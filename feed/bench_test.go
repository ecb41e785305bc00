package feed_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

func newBench(b *testing.B) (*feed.Hub, *feed.Publisher) {
	store, bus := feedtest.NewStore(), &quietBus{}
	hub := feed.NewHub(store, bus, feed.HubOptions{Logger: quiet})
	pub := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
	b.Cleanup(func() {
		pub.Close()
		hub.Close()
	})
	return hub, pub
}

// BenchmarkSubscribe opens and closes a subscription to a feed whose log is
// open, as thousands do that come back at once.
func BenchmarkSubscribe(b *testing.B) {
	hub, pub := newBench(b)
	ctx := b.Context()
	keep, err := hub.Subscribe(ctx, "a", feed.FromStart())
	if err != nil {
		b.Fatal(err)
	}
	defer keep.Close()
	if _, err := pub.Publish(ctx, feed.Draft{Feed: "a"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := hub.Subscribe(ctx, "a", feed.FromCursor(1))
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkFanOut publishes one event to subscribers that each take its
// encoded bytes.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hub, pub := newBench(b)
			var got, ended sync.WaitGroup
			ctx, cancel := context.WithCancel(b.Context())
			for range n {
				s, err := hub.Subscribe(ctx, "a", feed.From{})
				if err != nil {
					b.Fatal(err)
				}
				ended.Go(func() {
					defer s.Close()
					for {
						d, err := s.Next(ctx, nil)
						if err != nil {
							return
						}
						d.Encoded(short{})
						got.Add(-len(d.Events()))
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				got.Add(n)
				if _, err := pub.Publish(ctx, feed.Draft{Feed: "a", Data: "x"}); err != nil {
					b.Fatal(err)
				}
				got.Wait()
			}
			cancel()
			ended.Wait()
		})
	}
}

// BenchmarkPublish publishes from many goroutines at once, which share commits.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			_, pub := newBench(b)
			data := strings.Repeat("x", size)
			b.SetBytes(int64(size))
			b.SetParallelism(64)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := pub.Publish(context.Background(), feed.Draft{Feed: "a", Data: data}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

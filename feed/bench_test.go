package feed_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkSubscribe opens and closes a subscription to a feed whose log is open, as
// happens when thousands of subscribers come back at once.
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

// BenchmarkCatchUp measures how the hub catches up with one new event in each of
// 10,000 feeds, as after an outage of the bus. One store answers at once. The other
// has eight connections, each of which answers after 0.2 ms.
func BenchmarkCatchUp(b *testing.B) {
	const feeds = 10_000
	for _, c := range []struct {
		name        string
		connections int
	}{{"instant", 0}, {"connections", 8}} {
		b.Run(c.name, func(b *testing.B) {
			store, bus := feedtest.NewStore(), &quietBus{}
			connections := make(chan struct{}, c.connections)
			var goroutines atomic.Int64
			through := store.Through(func(_ context.Context, call feedtest.Call) error {
				if call.At == feedtest.ReadAsked {
					raise(&goroutines, int64(runtime.NumGoroutine()))
					if c.connections > 0 {
						connections <- struct{}{}
						time.Sleep(200 * time.Microsecond)
						<-connections
					}
				}
				return nil
			})
			hub := feed.NewHub(through, bus, feed.HubOptions{Logger: quiet})
			defer hub.Close()
			dispatcher := hub.NewDispatcher()
			got := 0
			var batch feed.Batch
			for i := range feeds {
				name := fmt.Sprint("f", i)
				batch.Drafts = append(batch.Drafts, feed.Draft{Feed: name, Data: "x"})
				reader := &polling{got: &got}
				s, err := dispatcher.SubscribeAll(b.Context(), []feed.SubscribeRequest{{Feed: name}}, reader)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				reader.s = s
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := store.Append(b.Context(), []feed.Batch{batch}); err != nil {
					b.Fatal(err)
				}
				bus.mu.Lock()
				bus.receiver.Missed()
				bus.mu.Unlock()
				for got = 0; got < feeds; {
					<-dispatcher.C()
					for dispatcher.Step() {
					}
				}
			}
			b.ReportMetric(float64(goroutines.Load()), "goroutines")
		})
	}
}

// polling counts the events of a subscriber of a dispatcher.
type polling struct {
	s   *feed.Subscriber
	got *int
}

// Notify implements [feed.Notifier].
func (p *polling) Notify() {
	for {
		i, d, err := p.s.Poll()
		if i < 0 || err != nil {
			return
		}
		*p.got += len(d.Events())
	}
}

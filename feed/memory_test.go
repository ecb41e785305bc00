package feed_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/memory"
)

// inflated is an encoding with six bytes for each byte of data.
type inflated struct{ n byte }

func (i inflated) Encode(dst []byte, e *feed.Event) []byte {
	for range 6 {
		dst = append(append(dst, i.n), e.Data...)
	}
	return dst
}

// heap returns how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLogsShareMemory: for any feeds, read in any number of encodings, the logs
// together hold no more than their share of memory. Their own count of bytes agrees
// with the heap.
func TestLogsShareMemory(t *testing.T) {
	const budget = 32 << 20
	for _, c := range []struct {
		name                string
		feeds, events, size int
		encodings           int
		ephemeral           bool
	}{
		{"many feeds of one large event", 500, 1, 60_000, 1, false},
		{"many encodings", 200, 4, 5_000, 8, false},
		{"ephemeral events in many encodings", 100, 16, 4_000, 8, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := feed.NewHub(feedtest.NewStore(), memory.NewBus(), feed.HubOptions{Memory: budget, Verify: time.Hour, Logger: quiet})
			defer hub.Close()
			pub := feed.NewPublisher(&discarding{feedtest.NewStore(), make(map[string]feed.ID)}, hub, memory.NewBus(), feed.PublisherOptions{Logger: quiet})
			defer pub.Close()
			subs := make([]*feed.Subscription, c.feeds)
			for i := range subs {
				s, err := hub.Subscribe(t.Context(), fmt.Sprint("f", i), feed.From{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				subs[i] = s
			}
			before := heap()
			limit := hub.Memory().Limit(feed.HoldLogs)
			for range c.events {
				for i, s := range subs {
					d := feed.Draft{Feed: fmt.Sprint("f", i), Data: strings.Repeat("x", c.size)}
					var err error
					if c.ephemeral {
						err = pub.PublishEphemeral(t.Context(), d)
					} else {
						_, err = pub.Publish(t.Context(), d)
					}
					if err != nil {
						t.Fatal(err)
					}
					got, err := s.Next(t.Context(), nil)
					if err != nil || len(got.Events()) != 1 {
						t.Fatalf("got %+v, %v", got, err)
					}
					for n := range c.encodings {
						if want := 6 * (c.size + 1); len(got.Encoded(inflated{byte(n)})) != want {
							t.Fatalf("encoded: %d bytes, want %d", len(got.Encoded(inflated{byte(n)})), want)
						}
					}
					if used := hub.Memory().Used(feed.HoldLogs); used > limit {
						t.Fatalf("the logs hold %d bytes, the limit is %d", used, limit)
					}
				}
			}
			if grown := heap() - before; grown > limit+limit/4 {
				t.Errorf("the heap grew by %d bytes, the logs may hold %d", grown, limit)
			}
			if used := hub.Memory().Used(feed.HoldLogs); used < limit/2 {
				t.Errorf("the logs hold no more than %d bytes of %d", used, limit)
			}
		})
	}
}

// TestFloodSparesSmallLogs: however much is published to other feeds, a subscriber
// of a quiet feed gets its newest events from memory.
func TestFloodSparesSmallLogs(t *testing.T) {
	hub := feed.NewHub(feedtest.NewStore(), memory.NewBus(), feed.HubOptions{Memory: 32 << 20, Verify: time.Hour, Logger: quiet})
	defer hub.Close()
	pub := feed.NewPublisher(&discarding{feedtest.NewStore(), make(map[string]feed.ID)}, hub, memory.NewBus(), feed.PublisherOptions{Logger: quiet})
	defer pub.Close()
	publish := func(name, data string) {
		t.Helper()
		if _, err := pub.Publish(t.Context(), feed.Draft{Feed: name, Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	const feeds = 100
	var subs []*feed.Subscription
	for i := range feeds {
		for _, name := range []string{fmt.Sprint("loud", i), fmt.Sprint("quiet", i)} {
			s, err := hub.Subscribe(t.Context(), name, feed.From{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if subs = append(subs, s); strings.HasPrefix(name, "quiet") {
				publish(name, "x")
			}
		}
	}
	for i := range 10 * feeds {
		publish(fmt.Sprint("loud", i%feeds), strings.Repeat("x", 60_000))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, s := range subs {
		if strings.HasPrefix(s.Feed(), "quiet") {
			// The store has none of the events.
			if d, err := s.Next(ctx, nil); err != nil || len(d.Events()) != 1 {
				t.Fatalf("%s: got %+v, %v", s.Feed(), d, err)
			}
		}
	}
	if used, limit := hub.Memory().Used(feed.HoldLogs), hub.Memory().Limit(feed.HoldLogs); used > limit {
		t.Errorf("the logs hold %d bytes, the limit is %d", used, limit)
	}
}

// discarding is a store that keeps no events, so that the heap shows the bytes that logs hold.
type discarding struct {
	feed.Store
	last map[string]feed.ID
}

func (d *discarding) Append(_ context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		for _, draft := range b.Drafts {
			d.last[draft.Feed]++
			results[i].Events = append(results[i].Events, feed.Event{Feed: draft.Feed, ID: d.last[draft.Feed], Data: draft.Data})
		}
	}
	return results, nil
}

// TestLogsGiveMemoryBack: a feed without subscribers takes no memory.
func TestLogsGiveMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 50 {
			name := fmt.Sprint("f", i)
			s := r.subscribe(name, feed.From{})
			r.publish(name, "data")
			if err := r.pub.PublishEphemeral(t.Context(), feed.Draft{Feed: name, Data: "note"}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				next(t, s, 0).Encoded(inflated{1})
			}
			s.Close()
		}
		if used := r.hub.Memory().Used(feed.HoldLogs); used < 50*700 {
			t.Errorf("50 logs take %d bytes", used)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if used := r.hub.Memory().Used(feed.HoldLogs); used != 0 {
			t.Errorf("%d bytes are left", used)
		}
	})
}

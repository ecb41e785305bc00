package feed_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// Subscribers replay a feed while it is trimmed and written to, each at its own pace
// and some again and again. Each gets every event, or a gap that names the missing
// ones. None gets an event that was trimmed before the call of Next.
func TestReplayWhileTrimming(t *testing.T) {
	const last, readers = 4000, 20
	store, bus := feedtest.NewStore(), &quietBus{}
	hub := feed.NewHub(store, bus, feed.HubOptions{Memory: 8 << 20, Logger: quiet})
	defer hub.Close()
	pub := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
	defer pub.Close()
	r := &replay{t: t, hub: hub, checker: feedtest.NewChecker()}
	publish := func(n int) {
		drafts := make([]feed.Draft, n)
		for i := range drafts {
			drafts[i] = feed.Draft{Feed: "a", Data: ballast[:100+rand.IntN(1000)]}
		}
		events, err := pub.Publish(t.Context(), drafts...)
		if err != nil {
			t.Error(err)
			return
		}
		r.checker.Acked(events...)
		r.stored.Store(uint64(events[n-1].ID))
	}
	publish(last / 2)

	var reading, trimming sync.WaitGroup
	for i := range readers {
		f := r.checker.Follow("reader", "a")
		reading.Go(func() {
			for n := range 1 + i%3 {
				var tick chan time.Time
				if n == 0 && i%4 == 0 {
					tick = make(chan time.Time)
					close(tick)
				}
				r.read(f, last, tick)
			}
		})
	}
	done := make(chan struct{})
	trimming.Go(func() {
		for before := feed.ID(2); ; before = min(before+feed.ID(rand.IntN(8)), feed.ID(r.stored.Load())) {
			select {
			case <-done:
				return
			default:
				r.trim(before)
			}
		}
	})
	for stored := last / 2; stored < last; stored += 20 {
		publish(20)
	}
	reading.Wait()
	close(done)
	trimming.Wait()
	r.checker.End("a", store.History("a"))
	if err := r.checker.Err(); err != nil {
		t.Error(err)
	}
	if s := hub.Stats(); s.Trimmed == 0 || s.FromStore == 0 {
		t.Errorf("nothing to see here: %+v", s)
	}
}

type replay struct {
	t       *testing.T
	hub     *feed.Hub
	checker *feedtest.Checker
	stored  atomic.Uint64 // the newest event
	gone    atomic.Uint64 // the events before it were trimmed
}

func (r *replay) trim(before feed.ID) {
	r.checker.Trimming("a", before)
	if err := r.hub.Trim(r.t.Context(), "a", before); err != nil {
		r.t.Error(err)
	}
	r.gone.Store(uint64(before))
}

// read follows the feed from its beginning to the id last. If tick is closed, read
// polls instead of waiting.
func (r *replay) read(f *feedtest.Follower, last feed.ID, tick <-chan time.Time) {
	f.Resume(0)
	s, err := r.hub.Subscribe(r.t.Context(), "a", feed.FromCursor(0))
	if err != nil {
		r.t.Error(err)
		return
	}
	defer s.Close()
	f.Opened(s.Cursor())
	there, missing := feed.ID(0), feed.ID(0)
	for s.Cursor() < last {
		gone := feed.ID(r.gone.Load())
		d, err := s.Next(r.t.Context(), tick)
		if err != nil {
			r.t.Error(err)
			return
		}
		if d.Gap == nil && len(d.Events()) == 0 {
			continue
		}
		if d.Gap != nil {
			f.SawGap(*d.Gap)
			missing += d.Gap.Resumes - 1 - d.Gap.After
			continue
		}
		f.Saw(d.Events()...)
		there += feed.ID(len(d.Events()))
		if first := d.Events()[0].ID; first < gone {
			r.t.Errorf("event %d came, but those before %d were gone", first, gone)
		}
	}
	if there+missing != last {
		r.t.Errorf("%d events came and %d are gone, which is not %d", there, missing, last)
	}
}

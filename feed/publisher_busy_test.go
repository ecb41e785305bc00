package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// heldStore is a store in which another transaction holds one feed.
type heldStore struct {
	*feedtest.Store
	name     string
	released chan struct{}
}

func (s *heldStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	select {
	case <-s.released:
		return s.Store.Append(ctx, batches)
	default:
	}
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		if slices.ContainsFunc(b.Drafts, func(d feed.Draft) bool { return d.Feed == s.name }) {
			if !b.NoWait {
				<-s.released
				return s.Store.Append(ctx, batches)
			}
			results[i].Err = fmt.Errorf("%w: another transaction holds %s", feed.ErrBusy, s.name)
			continue
		}
		stored, err := s.Store.Append(ctx, []feed.Batch{b})
		if err != nil {
			return nil, err
		}
		results[i] = stored[0]
	}
	return results, nil
}

// holdFeed returns a publisher to a store in which the feed "held" is held until
// released is closed.
func holdFeed(t *testing.T) (*heldStore, *feed.Publisher) {
	store := &heldStore{Store: feedtest.NewStore(), name: "held", released: make(chan struct{})}
	bus := &quietBus{}
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	t.Cleanup(hub.Close)
	pub := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	t.Cleanup(pub.Close)
	return store, pub
}

// A feed that another transaction holds delays only the publishes to it, and none of
// them is lost or stored twice.
func TestHeldFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, pub := holdFeed(t)

		var mu sync.Mutex
		answered := map[string]int{}
		publish := func(feeds ...string) {
			drafts := make([]feed.Draft, len(feeds))
			for i, name := range feeds {
				drafts[i] = feed.Draft{Feed: name, Data: fmt.Sprint(feeds)}
			}
			go func() {
				if _, err := pub.Publish(context.Background(), drafts...); err != nil {
					t.Errorf("publish to %v: %v", feeds, err)
				}
				mu.Lock()
				defer mu.Unlock()
				answered[fmt.Sprint(feeds)]++
			}()
		}
		count := func(feeds ...string) int {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return answered[fmt.Sprint(feeds)]
		}
		for range 5 {
			publish("free")
			publish("held")
			publish("other", "held")
			publish("other")
		}
		if free, other := count("free"), count("other"); free != 5 || other != 5 {
			t.Fatalf("%d and %d of 5 were answered on the free feeds while another was held", free, other)
		}
		publish("held")
		publish("free")
		if held, both, free := count("held"), count("other", "held"), count("free"); held != 0 || both != 0 || free != 6 {
			t.Fatalf("answered %d and %d on the held feed, %d of 6 on the free one", held, both, free)
		}
		close(store.released)
		if held, both := count("held"), count("other", "held"); held != 6 || both != 5 {
			t.Fatalf("once it was free: answered %d of 6 and %d of 5", held, both)
		}
		bounds, err := store.Bounds(t.Context(), []string{"held", "other", "free"})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []feed.ID{11, 10, 6} {
			if bounds[i].Last != want {
				t.Errorf("the feeds end at %v", bounds)
			}
		}
	})
}

// A client that goes away while its publish waits for a held feed leaves nothing
// behind, unless a commit has already taken it.
func TestHeldFeedWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, pub := holdFeed(t)

		var work sync.WaitGroup
		publish := func(ctx context.Context, name string) {
			work.Go(func() { _, _ = pub.Publish(ctx, feed.Draft{Feed: name}) })
		}
		publish(t.Context(), "held")
		synctest.Wait()
		publish(t.Context(), "held") // waits behind the first
		ctx, cancel := context.WithCancel(t.Context())
		publish(ctx, "held")
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(store.released)
		work.Wait()
		if b, err := store.Bounds(t.Context(), []string{"held"}); err != nil || b[0].Last != 2 {
			t.Errorf("the feed ends at %v, want 2 (%v)", b, err)
		}
	})
}

// However long one commit to a held feed takes, later publishes to that feed get an
// attempt of their own at the store.
func TestHeldFeedDoesNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &heldStore{Store: feedtest.NewStore(), name: "held", released: make(chan struct{})}
		tries := make(chan struct{}, 10)
		through := &countingStore{heldStore: store, tries: tries}
		bus := &quietBus{}
		hub := feed.NewHub(through, bus, feed.HubOptions{})
		defer hub.Close()
		pub := feed.NewPublisher(through, hub, bus, feed.PublisherOptions{})
		defer pub.Close()
		var calls sync.WaitGroup
		for i := range 3 {
			calls.Go(func() {
				if _, err := pub.Publish(context.Background(), feed.Draft{Feed: "held"}); err != nil {
					t.Error(err)
				}
			})
			select {
			case <-tries:
			case <-time.After(time.Second):
				t.Errorf("publish %d waits for the one before it", i)
			}
		}
		close(store.released)
		calls.Wait()
	})
}

// countingStore reports every append that waits.
type countingStore struct {
	*heldStore
	tries chan struct{}
}

func (s *countingStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	if !batches[0].NoWait {
		s.tries <- struct{}{}
	}
	return s.heldStore.Append(ctx, batches)
}

// A feed that stays held is no fault of the store, and its publisher can tell the two
// apart.
func TestHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		held := heldForLong{feedtest.NewStore()}
		hub := feed.NewHub(held, &quietBus{}, feed.HubOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		pub := feed.NewPublisher(held, hub, &quietBus{}, feed.PublisherOptions{Logger: quiet})
		_, err := pub.Publish(t.Context(), feed.Draft{Feed: "held", Data: "x"})
		if !errors.Is(err, feed.ErrBusy) || !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("got %v, want ErrBusy and ErrUnavailable", err)
		}
		pub.Close()
		hub.Close()
		if line := log.String(); strings.Count(line, "\n") > 1 || !strings.Contains(line, "feed=held") {
			t.Errorf("logged %s", line)
		}
	})
}

// heldForLong is a store whose feeds all are held for longer than it waits.
type heldForLong struct{ *feedtest.Store }

func (heldForLong) Append(_ context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		results[i].Err = fmt.Errorf("%w: another transaction holds it", feed.ErrBusy)
		if !b.NoWait {
			return nil, fmt.Errorf("%w: %w: another transaction still holds it", feed.ErrUnavailable, feed.ErrBusy)
		}
	}
	return results, nil
}

package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// All calls that arrive during an append share the next append.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		var answers sync.WaitGroup
		ids := make([]feed.ID, 50)
		for i := range ids {
			answers.Go(func() { ids[i] = r.publish("a", fmt.Sprint(i)).ID })
			synctest.Wait() // one after the other, so that the order is known
		}
		if n := r.count(feedtest.AppendAsked); n != 1 {
			t.Fatalf("%d appends while the first is in flight", n)
		}
		pass()
		answers.Wait()
		if n := r.count(feedtest.AppendAsked); n != 2 {
			t.Errorf("%d appends, want one for the first publish and one for all that came meanwhile", n)
		}
		for i, id := range ids {
			if id != feed.ID(i)+1 {
				t.Errorf("publish %d became event %d", i+1, id)
			}
		}
	})
}

// A commit is bounded: further publishes wait for the next, in order.
func TestGroupCommitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		var answers sync.WaitGroup
		publish := func() { r.publish("a", strings.Repeat("x", 50_000)) }
		answers.Go(publish)
		synctest.Wait() // so that it is alone in the first append
		for range 200 {
			answers.Go(publish)
		}
		synctest.Wait()
		pass()
		answers.Wait()
		if n := r.count(feedtest.AppendAsked); n != 1+3 { // 10 MB in commits of 4 MiB
			t.Errorf("%d appends, want 4", n)
		}
		if last := r.store.History("a").Last; last != 201 {
			t.Errorf("%d events, want 201", last)
		}
	})
}

func TestPublishWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		ctx, cancel := context.WithCancel(t.Context())
		type answer struct {
			events []feed.Event
			err    error
		}
		answers := make(chan answer, 4)
		publish := func(ctx context.Context, data string) {
			go func() {
				events, err := r.pub.Publish(ctx, feed.Draft{Feed: "a", Data: data})
				answers <- answer{events, err}
			}()
			synctest.Wait()
		}
		publish(ctx, "taken")
		publish(t.Context(), "before")
		publish(ctx, "withdrawn")
		publish(t.Context(), "after")
		cancel()
		if a := <-answers; !errors.Is(a.err, context.Canceled) {
			t.Errorf("withdrawn: got %v, %v", a.events, a.err)
		}
		synctest.Wait()
		if len(answers) > 0 {
			t.Error("a publish that a commit has taken did not wait for the outcome")
		}
		pass()
		for range 3 {
			if a := <-answers; a.err != nil || len(a.events) != 1 {
				t.Errorf("got %v, %v", a.events, a.err)
			}
		}
		var data []string
		for _, e := range r.store.History("a").Events {
			data = append(data, e.Data)
		}
		if got := strings.Join(data, " "); got != "taken before after" {
			t.Errorf("stored: %s", got)
		}
	})
}

// Close finishes what is in progress, and refuses the rest.
func TestPublisherClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendCommitted)
		var answers sync.WaitGroup
		for range 3 {
			answers.Go(func() { r.publish("a", "x") })
			synctest.Wait()
		}
		closed := make(chan struct{})
		go func() {
			r.pub.Close()
			close(closed)
		}()
		synctest.Wait()
		if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrStopped) {
			t.Errorf("a publish while closing: got %v, want ErrStopped", err)
		}
		select {
		case <-closed:
			t.Error("Close did not wait for the commit")
		default:
		}
		pass()
		answers.Wait()
		<-closed
		r.pub.Close() // once more does no harm
	})
}

// A commit takes long when the store has to find out its outcome. Later publishers
// still learn that the store is away.
func TestPublishBehindALongCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendCommitted)
		var long sync.WaitGroup
		long.Go(func() { r.publish("a", "long") })
		synctest.Wait()
		r.fail(feed.ErrUnavailable, feedtest.AppendAsked)
		for range 3 {
			began := time.Now()
			if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
		}
		closed := make(chan struct{})
		go func() {
			r.pub.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the long commit")
		default:
		}
		pass()
		long.Wait()
		<-closed
	})
}

// One batch that the store refuses fails alone.
func TestPublishRefusedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		full := errors.New("the feed is full")
		r.store.Refuse(func(b feed.Batch) error {
			if b.Drafts[0].Feed == "full" {
				return full
			}
			return nil
		})
		pass := r.holdAt(feedtest.AppendAsked)
		errs := make(chan error, 1)
		var answers sync.WaitGroup
		for _, name := range []string{"a", "b", "full", "c"} { // the first is alone in its commit
			answers.Go(func() {
				if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: name}); err != nil {
					errs <- err
				}
			})
			synctest.Wait()
		}
		pass()
		answers.Wait()
		if err := <-errs; !errors.Is(err, full) {
			t.Errorf("got %v, want the store's reason", err)
		}
		for _, name := range []string{"a", "b", "c"} {
			if r.store.History(name).Last != 1 {
				t.Errorf("%s has no event", name)
			}
		}
	})
}

func TestPublishStoreError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail(fmt.Errorf("disk: %w", feed.ErrUnavailable), feedtest.AppendAsked)
		var answers sync.WaitGroup
		for range 5 {
			answers.Go(func() {
				if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
			})
		}
		answers.Wait()
		r.pass()
		if e := r.publish("a", "x"); e.ID != 1 {
			t.Errorf("the first event has the id %d", e.ID)
		}
	})
}

// The hub finds out at once whether an append of unknown outcome happened.
func TestPublishUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		r.fail(feed.ErrUncertain, feedtest.AppendCommitted)
		if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrUncertain) {
			t.Errorf("got %v, want ErrUncertain", err)
		}
		reach(t, s, 1, time.Millisecond)
	})
}

// uncertainResults is a store that commits every batch, and reports for each that the
// outcome is unknown.
type uncertainResults struct{ *feedtest.Store }

func (s uncertainResults) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results, err := s.Store.Append(ctx, batches)
	for i := range results {
		results[i] = feed.Result{Err: feed.ErrUncertain}
	}
	return results, err
}

// The same goes for one batch of an append.
func TestPublishUncertainResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := uncertainResults{feedtest.NewStore()}
		hub := feed.NewHub(store, &quietBus{}, feed.HubOptions{Verify: time.Hour, Logger: quiet})
		defer hub.Close()
		pub := feed.NewPublisher(store, hub, &quietBus{}, feed.PublisherOptions{Logger: quiet})
		defer pub.Close()
		s, err := hub.Subscribe(t.Context(), "a", feed.From{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := pub.Publish(t.Context(), feed.Draft{Feed: "a"}); !errors.Is(err, feed.ErrUncertain) {
			t.Errorf("got %v, want ErrUncertain", err)
		}
		reach(t, s, 1, time.Second)
	})
}

func TestPublishRefusesBadDrafts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, drafts := range [][]feed.Draft{
			nil,
			{{Feed: ""}},
			{{Feed: "a"}, {Feed: "a", Type: "feed.x"}},
			{{Feed: "a"}, {Feed: "a", Data: "{", JSON: true}},
		} {
			if _, err := r.pub.Publish(t.Context(), drafts...); !errors.Is(err, feed.ErrInvalid) {
				t.Errorf("%v: got %v, want ErrInvalid", drafts, err)
			}
		}
		large := feed.Draft{Feed: "a", Data: strings.Repeat("x", feed.DefaultEventBytes+1)}
		if _, err := r.pub.Publish(t.Context(), large); !errors.Is(err, feed.ErrTooLarge) {
			t.Errorf("got %v, want ErrTooLarge", err)
		}
		if n := r.count(feedtest.AppendAsked); n != 0 {
			t.Errorf("%d appends", n)
		}
	})
}

// A frozen bus neither delays a publish nor makes it fail, and delays Close of the
// publisher only briefly.
func TestPublishWithAFrozenBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.bus.tell = func(ctx context.Context, _ []feed.Event) error {
			<-ctx.Done()
			return ctx.Err()
		}
		s := r.subscribe("a", feed.From{})
		began := time.Now()
		for range 1000 {
			r.publish("a", "x")
		}
		reach(t, s, 1000, time.Second)
		if d := time.Since(began); d != 0 {
			t.Errorf("publishing took %v", d)
		}
		r.pub.Close()
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

// The publisher sends a first event to the bus at once, and gathers those that follow
// for a few milliseconds. After a pause, and in Close, nothing waits.
func TestTellEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		began := time.Now()
		var told []string
		r.bus.tell = func(_ context.Context, events []feed.Event) error {
			told = append(told, fmt.Sprintf("%d at %v", len(events), time.Since(began)))
			return nil
		}
		r.publish("a", "")
		synctest.Wait()
		time.Sleep(time.Millisecond)
		r.publish("a", "")
		r.publish("b", "")
		time.Sleep(100 * time.Millisecond)
		r.publish("a", "")
		synctest.Wait()
		r.publish("a", "")
		r.pub.Close()
		want := []string{"1 at 0s", "2 at 5ms", "1 at 101ms", "1 at 101ms"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// The publisher sends every event to the bus, in order of commit. While the bus is
// away, the queue is bounded.
func TestTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var told []feed.ID
		frozen := make(chan struct{})
		r.bus.tell = func(_ context.Context, events []feed.Event) error {
			<-frozen
			for _, e := range events {
				told = append(told, e.ID)
			}
			return nil
		}
		for range 30_000 {
			r.publish("a", "")
		}
		synctest.Wait() // the publisher answers first, and then sends the last event to the bus
		close(frozen)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(told); n < 16_000 || n > 17_000 {
			t.Errorf("the bus was told %d events of 30000", n)
		}
		for i, id := range told {
			if id != feed.ID(i)+1 {
				t.Fatalf("event %d was told as number %d", id, i+1)
			}
		}
	})
}

// A client that subscribes on the same node after its publish was answered starts
// behind its own event.
func TestPublishThenSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.subscribe("a", feed.From{})
		for i := range 10 {
			e := r.publish("a", "x")
			if s := r.subscribe("a", feed.From{}); s.Cursor() != e.ID {
				t.Errorf("publish %d is event %d, now is %d", i+1, e.ID, s.Cursor())
			}
		}
		if n := r.count(feedtest.BoundsAsked); n != 1 {
			t.Errorf("the store was asked for bounds %d times", n)
		}
	})
}

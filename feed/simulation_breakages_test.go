package feed_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// The wrappers here break what a Store, a Bus or the engine promises. The
// simulation has to notice each of them: a simulation that notices nothing proves nothing.

// staleStore answers every third question for bounds with older bounds.
type staleStore struct {
	feed.RetentionStore
	mu    sync.Mutex
	asked int
	old   map[string]feed.Bounds
}

func (s *staleStore) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.RetentionStore.Bounds(ctx, feeds)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	for i, name := range feeds {
		if old, ok := s.old[name]; ok && s.asked%3 == 0 {
			all[i], s.old[name] = old, all[i]
			continue
		}
		s.old[name] = all[i]
	}
	return all, nil
}

// pageStore spoils what Read returns.
type pageStore struct {
	feed.RetentionStore
	spoil func(*feed.Page)
}

func (s pageStore) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	p, err := s.RetentionStore.Read(ctx, name, after, limit)
	if err == nil {
		s.spoil(&p)
	}
	return p, err
}

// resultStore spoils what Append returns.
type resultStore struct {
	feed.RetentionStore
	spoil func([]feed.Result, error) ([]feed.Result, error)
}

func (s resultStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	return s.spoil(s.RetentionStore.Append(ctx, batches))
}

// liarBus spoils events on their way.
type liarBus struct {
	feed.Bus
	spoil func(*feed.Event)
}

func (b liarBus) Tell(ctx context.Context, events []feed.Event) error {
	spoilt := make([]feed.Event, len(events))
	for i, e := range events {
		b.spoil(&e)
		spoilt[i] = e
	}
	return b.Bus.Tell(ctx, spoilt)
}

func through(wrap func(feed.RetentionStore) feed.RetentionStore) func(*plan) {
	return func(p *plan) { p.store = func(_ *world, s feed.RetentionStore) feed.RetentionStore { return wrap(s) } }
}

func pages(spoil func(*feed.Page)) func(*plan) {
	return through(func(s feed.RetentionStore) feed.RetentionStore { return pageStore{s, spoil} })
}

func results(spoil func([]feed.Result, error) ([]feed.Result, error)) func(*plan) {
	return through(func(s feed.RetentionStore) feed.RetentionStore { return resultStore{s, spoil} })
}

func lies(spoil func(*feed.Event)) func(*plan) {
	return func(p *plan) { p.bus = func(b feed.Bus) feed.Bus { return liarBus{b, spoil} } }
}

// amnesiac is a store that forgets every key.
type amnesiac struct{ feed.RetentionStore }

func (s amnesiac) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	keyless := slices.Clone(batches)
	for i := range keyless {
		keyless[i].Key = nil
	}
	return s.RetentionStore.Append(ctx, keyless)
}

// unconditional is a store that ignores the conditions of batches.
type unconditional struct{ feed.RetentionStore }

func (s unconditional) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	free := slices.Clone(batches)
	for i := range free {
		free[i].IfLast = nil
	}
	return s.RetentionStore.Append(ctx, free)
}

// leaky is a store that takes events into closed feeds.
type leaky struct {
	feed.RetentionStore
	store *feedtest.Store
}

func (s leaky) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results, err := s.RetentionStore.Append(ctx, batches)
	for _, b := range batches {
		if b.Close {
			s.store.Rollback(b.Feed, s.store.History(b.Feed).Last)
		}
	}
	return results, err
}

// boundsStore spoils bounds, whichever call returns them.
type boundsStore struct {
	feed.RetentionStore
	spoil func(*feed.Bounds)
}

func (s boundsStore) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.RetentionStore.Bounds(ctx, feeds)
	for i := range all {
		s.spoil(&all[i])
	}
	return all, err
}

func bounds(spoil func(*feed.Bounds)) func(*plan) {
	return through(func(s feed.RetentionStore) feed.RetentionStore { return boundsStore{s, spoil} })
}

// seekStore spoils what Seek returns.
type seekStore struct {
	feed.RetentionStore
	spoil func(feed.ID) feed.ID
}

func (s seekStore) Seek(ctx context.Context, name string, t time.Time) (feed.ID, error) {
	c, err := s.RetentionStore.Seek(ctx, name, t)
	return s.spoil(c), err
}

// plainStore is a store that hides that it is a feed.Comparer.
type plainStore struct{ feed.RetentionStore }

// swapped is a store that answers for the feeds in another order than asked.
type swapped struct{ feed.RetentionStore }

func (s swapped) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.RetentionStore.Bounds(ctx, feeds)
	slices.Reverse(all)
	return all, err
}

// stubborn is a store whose answers never go back.
type stubborn struct {
	feed.RetentionStore
	mu   *sync.Mutex
	most map[string]feed.ID
}

func (s stubborn) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.RetentionStore.Bounds(ctx, feeds)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range feeds {
		if err == nil {
			s.most[name] = max(s.most[name], all[i].Last)
			all[i].Last = s.most[name]
		}
	}
	return all, err
}

// deafBus spoils how signals arrive.
type deafBus struct {
	signalTail
	spoil func(receive func([]byte), payload []byte)
}

func (b deafBus) Signals(ctx context.Context, receive func([]byte)) error {
	return b.signalTail.Signals(ctx, func(payload []byte) { b.spoil(receive, payload) })
}

// handed spoils the deliveries of clients. spoil also gets the previous delivery,
// which is nil at first.
func handed(spoil func(before, now *handout) (again bool)) func(*plan) {
	return func(p *plan) {
		p.next = func(next nextFunc) nextFunc {
			var before *handout
			return func(ctx context.Context, tick <-chan time.Time) (int, feed.Delivery, error) {
				for {
					now := handout{}
					now.part, now.d, now.err = next(ctx, tick)
					again := spoil(before, &now)
					if len(now.d.Events()) > 0 {
						before = new(now)
					}
					if !again {
						return now.part, now.d, now.err
					}
				}
			}
		}
	}
}

// handout is what Next returns.
type handout struct {
	part int
	d    feed.Delivery
	err  error
}

// every returns a function that returns true on each nth call.
func every(n int64) func() bool {
	var asked atomic.Int64
	return func() bool { return asked.Add(1)%n == 0 }
}

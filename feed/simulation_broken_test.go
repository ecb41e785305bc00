package feed_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// The wrappers here break what a Store or a Bus promises. The simulation has
// to notice each of them: one that notices nothing proves nothing.

// staleStore answers every third question about bounds as the last but one.
type staleStore struct {
	feed.Keeper
	mu    sync.Mutex
	asked int
	old   map[string]feed.Bounds
}

func (s *staleStore) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.Keeper.Bounds(ctx, feeds)
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
	feed.Keeper
	spoil func(*feed.Page)
}

func (s pageStore) Read(ctx context.Context, name string, after feed.Cursor, limit feed.Limit) (feed.Page, error) {
	p, err := s.Keeper.Read(ctx, name, after, limit)
	if err == nil {
		s.spoil(&p)
	}
	return p, err
}

// resultStore spoils what Append returns.
type resultStore struct {
	feed.Keeper
	spoil func([]feed.Result, error) ([]feed.Result, error)
}

func (s resultStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	return s.spoil(s.Keeper.Append(ctx, batches))
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

func pages(spoil func(*feed.Page)) func(*plan) {
	return func(p *plan) { p.store = func(s feed.Keeper) feed.Keeper { return pageStore{s, spoil} } }
}

func results(spoil func([]feed.Result, error) ([]feed.Result, error)) func(*plan) {
	return func(p *plan) { p.store = func(s feed.Keeper) feed.Keeper { return resultStore{s, spoil} } }
}

func lies(spoil func(*feed.Event)) func(*plan) {
	return func(p *plan) { p.bus = func(b feed.Bus) feed.Bus { return liarBus{b, spoil} } }
}

// amnesiac is a store that forgets every key.
type amnesiac struct{ feed.Keeper }

func (s amnesiac) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	keyless := slices.Clone(batches)
	for i := range keyless {
		keyless[i].Key = nil
	}
	return s.Keeper.Append(ctx, keyless)
}

// unconditional is a store that takes every batch, whatever its condition.
type unconditional struct{ feed.Keeper }

func (s unconditional) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	free := slices.Clone(batches)
	for i := range free {
		free[i].IfLast = nil
	}
	return s.Keeper.Append(ctx, free)
}

// leaky is a store that says that a feed is closed, and takes events all the same.
type leaky struct{ *feedtest.Store }

func (s leaky) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results, err := s.Store.Append(ctx, batches)
	for _, b := range batches {
		if b.Close {
			s.Rollback(b.Feed, s.History(b.Feed).Last)
		}
	}
	return results, err
}

// boundsStore spoils bounds, wherever they are said.
type boundsStore struct {
	feed.Keeper
	spoil func(*feed.Bounds)
}

func (s boundsStore) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	all, err := s.Keeper.Bounds(ctx, feeds)
	for i := range all {
		s.spoil(&all[i])
	}
	return all, err
}

func bounds(spoil func(*feed.Bounds)) func(*plan) {
	return func(p *plan) {
		p.closes = true
		p.store = func(s feed.Keeper) feed.Keeper { return boundsStore{s, spoil} }
	}
}

func TestSimulationNoticesBrokenPromises(t *testing.T) {
	const seeds = 200
	for _, c := range []struct {
		name  string
		alter func(*plan)
		want  string // in what is noticed; "" if anything will do
	}{
		{"bounds from a stale replica", func(p *plan) {
			p.store = func(s feed.Keeper) feed.Keeper { return &staleStore{Keeper: s, old: make(map[string]feed.Bounds)} }
		}, ""},
		{"a page with a hole", pages(func(p *feed.Page) {
			if len(p.Events) > 2 {
				p.Events = append(p.Events[:1:1], p.Events[2:]...)
			}
		}), ""},
		{"a page that begins too late", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events = p.Events[1:]
			}
		}), ""},
		{"a page that claims a trim", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events = p.Events[1:]
				p.First = p.Events[0].ID
			}
		}), ""},
		{"a page with two events exchanged", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events[0].Data, p.Events[1].Data = p.Events[1].Data, p.Events[0].Data
			}
		}), ""},
		{"an empty page", pages(func(p *feed.Page) { p.Events = nil }), ""},
		{"a page of another store", pages(func(p *feed.Page) {
			for i := range p.Events {
				p.Events[i].Type = "other"
			}
		}), ""},
		{"an append that answers with other ids", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			for i := range r {
				for j := range r[i].Events {
					r[i].Events[j].ID++
				}
			}
			return r, err
		}), ""},
		{"an append that fails after it has stored", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			return nil, feed.ErrUnavailable
		}), ""},
		{"an append that answers in another order", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			if len(r) > 1 {
				r[0], r[1] = r[1], r[0]
			}
			return r, err
		}), ""},
		{"a bus that changes the data", lies(func(e *feed.Event) { e.Data += "?" }), ""},
		{"a bus that renumbers", lies(func(e *feed.Event) { e.ID++ }), ""},
		{"a bus that mixes up feeds", func(p *plan) {
			p.feeds = 2
			lies(func(e *feed.Event) { e.Feed = map[string]string{"f0": "f1", "f1": "f0"}[e.Feed] })(p)
		}, ""},
		{"a store that forgets keys", func(p *plan) {
			p.keys, p.steps = true, 200
			p.store = func(s feed.Keeper) feed.Keeper { return amnesiac{s} }
		}, "is stored as event"},
		{"a key that is answered with other events", func(p *plan) {
			p.keys, p.steps = true, 200
			results(func(r []feed.Result, err error) ([]feed.Result, error) {
				for i := range r {
					if r[i].Replayed && len(r[i].Events) > 0 {
						r[i].Events = slices.Clone(r[i].Events)
						r[i].Events[0].ID++
					}
				}
				return r, err
			})(p)
		}, "and then with"},
		{"conditions that are not looked at", func(p *plan) {
			p.keys, p.steps = true, 200
			p.store = func(s feed.Keeper) feed.Keeper { return unconditional{s} }
		}, "on condition"},
		{"a close that lets events through", func(p *plan) {
			p.closes = true
			p.store = func(s feed.Keeper) feed.Keeper { return leaky{s.(*feedtest.Store)} }
		}, "was stored after the close"},
		{"a close that is known too early", bounds(func(b *feed.Bounds) { b.Closed = b.Last > 20 }), "was told at"},
		{"a close that ends before its feed", bounds(func(b *feed.Bounds) {
			if b.Closed && b.Last > b.First {
				b.Last--
			}
		}), "was told at"},
		{"a close that nobody hears of", bounds(func(b *feed.Bounds) { b.Closed = false }), ""},
		{"a node that serves what it has trimmed", func(p *plan) {
			p.trims, p.rollbacks = true, false
			p.trim = func(w *world, _ *node, name string, before uint64) error {
				return w.store.Trim(context.Background(), name, before)
			}
		}, "long after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				if _, err := simulate(t, seed+1, c.alter); err != nil && strings.Contains(err.Error(), c.want) {
					t.Logf("seed %d: %v", seed+1, err)
					return
				}
			}
			t.Errorf("not noticed in %d seeds", seeds)
		})
	}
}

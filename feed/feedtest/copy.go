package feedtest

import (
	"context"
	"maps"
	"slices"

	"github.com/rejoin/rejoin/feed"
)

// Copy is what a store held at one moment.
type Copy struct {
	feeds map[string]history
	keys  map[feed.KeyName]keyed
}

// Copy returns what the store holds now.
func (s *Store) Copy() Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Copy{feeds: make(map[string]history, len(s.feeds)), keys: maps.Clone(s.keys)}
	for name, h := range s.feeds {
		c.feeds[name] = *h.clone()
	}
	return c
}

// Replace puts a copy that the store once made in the place of what it holds:
// what came after it never happened, trims included.
func (s *Store) Replace(c Copy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = maps.Clone(c.keys)
	clear(s.feeds)
	for name, h := range c.feeds {
		s.feeds[name] = h.clone()
	}
}

// Bounds returns the bounds that the feed has in the copy.
func (c Copy) Bounds(name string) feed.Bounds {
	if h, ok := c.feeds[name]; ok {
		return h.bounds()
	}
	return feed.Unwritten
}

// clone returns a copy of which neither side sees what is added to the other.
func (h *history) clone() *history {
	other := *h
	other.events, other.unswept = slices.Clip(h.events), slices.Clip(h.unswept)
	return &other
}

// Ends implements feed.Comparer. It passes the points of Bounds.
func (s *Store) Ends(ctx context.Context, places []feed.Place) ([]feed.End, error) {
	feeds := make([]string, len(places))
	for i, p := range places {
		feeds[i] = p.Feed
	}
	if err := s.pass(ctx, BoundsAsked, 0, feeds...); err != nil {
		return nil, err
	}
	ends := make([]feed.End, len(places))
	s.mu.Lock()
	for i, p := range places {
		h := s.feeds[p.Feed]
		if h == nil {
			h = &history{first: 1}
		}
		ends[i].Bounds = h.bounds()
		if h.last() > 0 {
			ends[i].Newest = h.updated
		}
		if p.ID >= h.first && p.ID <= h.last() {
			ends[i].Then = h.events[p.ID-h.first].Time
		}
	}
	s.mu.Unlock()
	if err := s.pass(ctx, BoundsAnswered, 0, feeds...); err != nil {
		return nil, err
	}
	return ends, nil
}

// Epoch implements feed.Comparer.
func (s *Store) Epoch() uint64 { return s.epoch.Load() }

// NewEpoch is for a store that may have been replaced.
func (s *Store) NewEpoch() { s.epoch.Add(1) }

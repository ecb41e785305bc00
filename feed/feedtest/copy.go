package feedtest

import (
	"maps"
	"slices"

	"github.com/rejoin/rejoin/feed"
)

// Copy is what a store held at one moment.
type Copy struct {
	feeds map[string]history
	keys  map[keyName]keyed
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

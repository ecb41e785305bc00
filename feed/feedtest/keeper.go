package feedtest

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

var _ feed.Keeper = (*Store)(nil)

// List implements feed.Keeper.
func (s *Store) List(_ context.Context, prefix, after string, limit int) (feed.Listing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := feed.Listing{Now: now()}
	for name, h := range s.feeds {
		if !strings.HasPrefix(name, prefix) || name <= after {
			continue
		}
		info := feed.Info{Feed: name, Bounds: h.bounds(), Updated: h.updated, Bytes: h.bytes}
		l.Feeds = append(l.Feeds, info)
	}
	slices.SortFunc(l.Feeds, func(a, b feed.Info) int { return strings.Compare(a.Feed, b.Feed) })
	l.Feeds = l.Feeds[:min(limit, len(l.Feeds))]
	return l, nil
}

// Trim implements feed.Keeper.
func (s *Store) Trim(_ context.Context, name string, before uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil || before <= h.first {
		return nil
	}
	n := min(before-h.first, uint64(len(h.events)))
	h.unswept = append(h.unswept, h.events[:n]...)
	h.first += n
	h.events = h.events[n:]
	return nil
}

// Sweep implements feed.Keeper.
func (s *Store) Sweep(_ context.Context, limit int, window time.Duration) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.feeds {
		n := min(limit, len(h.unswept))
		for _, e := range h.unswept[:n] {
			h.bytes -= int64(len(e.Data))
		}
		h.unswept = h.unswept[n:]
		limit -= n
	}
	for name, key := range s.keys {
		if limit > 0 && time.Since(key.time) >= window {
			delete(s.keys, name)
			limit--
		}
	}
	return limit == 0, nil
}

// Alone implements feed.Keeper. There is one node only.
func (s *Store) Alone(ctx context.Context, fn func(context.Context) error) (ran bool, err error) {
	return true, fn(ctx)
}

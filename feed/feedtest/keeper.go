package feedtest

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

var _ feed.RetentionStore = (*Store)(nil)

// List implements feed.Keeper.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	if err := s.pass(ctx, ListAsked, 0); err != nil {
		return feed.FeedList{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := feed.FeedList{Now: s.now()}
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
func (s *Store) Trim(ctx context.Context, name string, before feed.ID) error {
	if err := s.pass(ctx, TrimAsked, 0, name); err != nil {
		return err
	}
	s.giveUp(name, before)
	return s.pass(ctx, TrimDone, 0, name)
}

func (s *Store) giveUp(name string, before feed.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil || before <= h.first {
		return
	}
	n := min(before-h.first, feed.ID(len(h.events)))
	h.unswept = append(h.unswept, h.events[:n]...)
	h.first += n
	h.events = h.events[n:]
}

// Sweep implements feed.Keeper.
func (s *Store) Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error) {
	if err := s.pass(ctx, SweepAsked, 0); err != nil {
		return false, err
	}
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
		if limit > 0 && s.now().Sub(time.UnixMilli(key.row.Time)) >= window {
			delete(s.keys, name)
			limit--
		}
	}
	return limit == 0, nil
}

// RunExclusive implements feed.Keeper. There is one node only.
func (s *Store) RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error) {
	return true, fn(ctx)
}

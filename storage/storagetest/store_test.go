package storagetest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// simple is a feedtest.Store that refuses calls after Close.
type simple struct {
	*feedtest.Store
	closed atomic.Bool
}

func (s *simple) Append(ctx context.Context, b []feed.Batch) ([]feed.Result, error) {
	if s.closed.Load() {
		return nil, feed.ErrStopped
	}
	return s.Store.Append(ctx, b)
}

func (s *simple) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	if s.closed.Load() {
		return feed.Page{}, feed.ErrStopped
	}
	return s.Store.Read(ctx, name, after, limit)
}

func (s *simple) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	if s.closed.Load() {
		return nil, feed.ErrStopped
	}
	return s.Store.Bounds(ctx, feeds)
}

func (s *simple) Seek(ctx context.Context, name string, at time.Time) (feed.ID, error) {
	if s.closed.Load() {
		return 0, feed.ErrStopped
	}
	return s.Store.Seek(ctx, name, at)
}

func (s *simple) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	if s.closed.Load() {
		return feed.FeedList{}, feed.ErrStopped
	}
	return s.Store.List(ctx, prefix, after, limit)
}

func (s *simple) Trim(ctx context.Context, name string, before feed.ID) error {
	if s.closed.Load() {
		return feed.ErrStopped
	}
	return s.Store.Trim(ctx, name, before)
}

func (s *simple) Sweep(ctx context.Context, limit int, window time.Duration) (bool, error) {
	if s.closed.Load() {
		return false, feed.ErrStopped
	}
	return s.Store.Sweep(ctx, limit, window)
}

func (s *simple) Close() error {
	s.closed.Store(true)
	return nil
}

// The store that the tests of feeds use keeps the same promises.
func TestSimpleStore(t *testing.T) {
	TestStore(t, func(t *testing.T) Opener {
		s := feedtest.NewStore()
		return func(*testing.T) feed.Store { return &simple{Store: s} }
	})
}

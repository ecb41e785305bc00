package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// sweepBytes is the size of the data at which one Sweep ends even below its limit:
// large events take longer to delete.
const sweepBytes = 4 << 20

// List implements [feed.RetentionStore].
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	list, err := read(ctx, s, func(r *reader) (feed.FeedList, error) {
		return r.listFeeds(prefix, after, limit)
	})
	if err != nil {
		return feed.FeedList{}, fmt.Errorf("list: %w", err)
	}
	list.Now = time.UnixMilli(s.now().UnixMilli()).UTC()
	return list, nil
}

func (r *reader) listFeeds(prefix, after string, limit int) (list feed.FeedList, err error) {
	err = r.list.each(func(row []driver.Value) bool {
		name := row[0].(string)
		if !strings.HasPrefix(name, prefix) || len(list.Feeds) == limit {
			return false
		}
		list.Feeds = append(list.Feeds, feed.Info{
			Feed: name, Bounds: boundsOf(row[1:4]),
			Updated: time.UnixMilli(row[4].(int64)).UTC(), Bytes: row[5].(int64),
		})
		return true
	}, prefix, after)
	return list, err
}

// Trim implements [feed.RetentionStore]. It moves a number in the feed's row, at which
// readers begin; Sweep deletes the events' rows.
func (s *Store) Trim(ctx context.Context, name string, before feed.ID) error {
	err := s.free(ctx, func(w *writer) error {
		return w.trim.exec(name, int64(min(before, feed.MaxID)))
	})
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	return nil
}

// Sweep implements [feed.RetentionStore].
func (s *Store) Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error) {
	err = s.free(ctx, func(w *writer) error {
		more, err = w.sweep(limit, s.now().Add(-window).UnixMilli())
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sweep: %w", err)
	}
	return more, nil
}

// RunExclusive implements [feed.RetentionStore]. There is no other node: only this Store
// has the file open.
func (s *Store) RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error) {
	return true, fn(ctx)
}

// sweep deletes trimmed events, and keys from the time old or before, up to about limit
// rows.
func (w *writer) sweep(limit int, old int64) (more bool, err error) {
	rows, bytes := limit, int64(sweepBytes)
	for rows > 0 && bytes > 0 {
		var g *garbage
		if err := w.getUnswept.each(func(row []driver.Value) bool {
			g = &garbage{row[0].(int64), row[1].(int64), row[2].(int64)}
			return true
		}); err != nil {
			return false, fmt.Errorf("get unswept feed: %w", err)
		}
		if g == nil {
			break
		}
		n, size, err := w.remove(*g, rows, bytes)
		if err != nil {
			return false, err
		}
		rows -= max(n, 1)
		bytes -= size
	}
	if rows <= 0 || bytes <= 0 {
		return true, nil
	}
	if err := w.deleteKeys.each(func([]driver.Value) bool {
		rows--
		return true
	}, old, int64(rows)); err != nil {
		return false, fmt.Errorf("delete keys: %w", err)
	}
	return rows == 0, nil
}

// garbage is the trimmed events of a feed whose rows may still exist: those from the id
// swept to below the id first.
type garbage struct{ feed, swept, first int64 }

// remove deletes the first events of the garbage, and returns their number and the size
// of their data.
func (w *writer) remove(g garbage, rows int, bytes int64) (n int, size int64, err error) {
	swept := g.first
	if err := w.sizeEvents.each(func(row []driver.Value) bool {
		if n == rows || size >= bytes {
			swept = row[0].(int64)
			return false
		}
		n++
		size += row[1].(int64)
		return true
	}, g.feed, g.swept, g.first); err != nil {
		return 0, 0, fmt.Errorf("size events: %w", err)
	}
	if err := w.deleteEvents.exec(g.feed, g.swept, swept); err != nil {
		return 0, 0, fmt.Errorf("delete events: %w", err)
	}
	if err := w.setSwept.exec(g.feed, swept, size); err != nil {
		return 0, 0, fmt.Errorf("set swept: %w", err)
	}
	return n, size, nil
}

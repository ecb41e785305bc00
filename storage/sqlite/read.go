package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// reader is one of the connections that only read.
type reader struct {
	*conn
	begin, commit      *stmt
	page, bounds       *stmt
	getBounds, getTime *stmt
}

func newReader(dsn string) (*reader, error) {
	c, err := dial(dsn)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: c}
	if err := c.prepare(map[**stmt]string{
		&r.begin: "begin_read", &r.commit: "commit",
		&r.page: "page", &r.bounds: "bounds",
		&r.getBounds: "get_bounds", &r.getTime: "get_time",
	}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return r, nil
}

// Read implements [feed.Store].
func (s *Store) Read(ctx context.Context, name string, after feed.Cursor, limit feed.Limit) (feed.Page, error) {
	r, err := take(ctx, s, s.reading)
	if err != nil {
		return feed.Page{}, fmt.Errorf("read: %w", err)
	}
	defer func() { s.reading <- r }()
	page := feed.Page{Bounds: feed.Unwritten}
	bytes := 0
	err = r.page.each(func(row []driver.Value) bool {
		page.Bounds = boundsOf(row[0:2])
		if row[2] == nil {
			return false
		}
		e := feed.Event{
			Feed: name, ID: uint64(row[2].(int64)), Type: row[3].(string), Data: row[4].(string),
			JSON: row[5].(int64) != 0, Time: time.UnixMilli(row[6].(int64)).UTC(),
		}
		page.Events = append(page.Events, e)
		bytes += len(e.Data)
		return len(page.Events) < limit.Events && bytes < limit.Bytes
	}, name, int64(min(after, feed.MaxCursor)))
	if err != nil {
		return feed.Page{}, fmt.Errorf("read: %w", unavailable(err))
	}
	return page, nil
}

// Bounds implements [feed.Store].
func (s *Store) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	r, err := take(ctx, s, s.reading)
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	defer func() { s.reading <- r }()
	bounds := make([]feed.Bounds, len(feeds))
	for i := range bounds {
		bounds[i] = feed.Unwritten
	}
	names, err := json.Marshal(feeds)
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	err = r.bounds.each(func(row []driver.Value) bool {
		bounds[row[0].(int64)] = boundsOf(row[1:3])
		return true
	}, string(names))
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", unavailable(err))
	}
	return bounds, nil
}

// Seek implements [feed.Store]. Ids and times of a feed go up together, so it
// halves the ids and needs no index on the time.
func (s *Store) Seek(ctx context.Context, name string, t time.Time) (feed.Cursor, error) {
	r, err := take(ctx, s, s.reading)
	if err != nil {
		return 0, fmt.Errorf("seek: %w", err)
	}
	defer func() { s.reading <- r }()
	cursor, err := r.seek(name, t)
	if err != nil {
		return 0, fmt.Errorf("seek: %w", unavailable(err))
	}
	return cursor, nil
}

func (r *reader) seek(name string, t time.Time) (cursor feed.Cursor, err error) {
	if err := r.begin.exec(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.commit.exec()) }()
	var id int64
	bounds := feed.Unwritten
	if err := r.getBounds.each(func(row []driver.Value) bool {
		id, bounds = row[0].(int64), boundsOf(row[1:3])
		return true
	}, name); err != nil {
		return 0, err
	}
	low, high := bounds.First, bounds.Last+1
	for low < high {
		middle := low + (high-low)/2
		at, err := r.timeOf(id, middle)
		if err != nil {
			return 0, err
		}
		if at.Before(t) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return feed.Cursor(low - 1), nil
}

// timeOf returns the time of an event that must exist.
func (r *reader) timeOf(id int64, seq uint64) (time.Time, error) {
	var at time.Time
	err := r.getTime.each(func(row []driver.Value) bool {
		at = time.UnixMilli(row[0].(int64))
		return true
	}, id, int64(seq))
	if err == nil && at.IsZero() {
		err = fmt.Errorf("event %d is missing", seq)
	}
	return at, err
}

// boundsOf reads the columns first and last.
func boundsOf(row []driver.Value) feed.Bounds {
	return feed.Bounds{First: uint64(row[0].(int64)), Last: uint64(row[1].(int64))}
}

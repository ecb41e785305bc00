package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// reader is one of the connections that only read.
type reader struct {
	*conn
	begin, commit      *stmt
	page, bounds, list *stmt
	ends               *stmt
	getBounds, getTime *stmt
}

func newReader(dsn string) (*reader, error) {
	c, err := dial(dsn)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: c}
	if err := c.prepare(map[**stmt]string{
		&r.begin: beginRead, &r.commit: commit,
		&r.page: query("page"), &r.bounds: query("bounds"), &r.list: query("list"), &r.ends: query("ends"),
		&r.getBounds: query("get_bounds"), &r.getTime: query("get_time"),
	}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return r, nil
}

// Read implements [feed.Store].
func (s *Store) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	page, err := read(ctx, s, func(r *reader) (feed.Page, error) { return r.readPage(name, after, limit) })
	if err != nil {
		return feed.Page{}, fmt.Errorf("read: %w", err)
	}
	return page, nil
}

func (r *reader) readPage(name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	page := feed.Page{Bounds: feed.Unwritten}
	bytes := 0
	err := r.page.each(func(row []driver.Value) bool {
		page.Bounds = boundsOf(row[0:3])
		if row[3] == nil {
			return false
		}
		e := feed.Event{
			Feed: name, ID: feed.ID(row[3].(int64)), Type: row[4].(string), Data: row[5].(string),
			JSON: row[6].(int64) != 0, Time: time.UnixMilli(row[7].(int64)).UTC(),
		}
		page.Events = append(page.Events, e)
		bytes += len(e.Data)
		return len(page.Events) < limit.Events && bytes < limit.Bytes
	}, name, int64(min(after, feed.MaxID)))
	return page, err
}

// Bounds implements [feed.Store].
func (s *Store) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	names, err := json.Marshal(feeds)
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	bounds, err := read(ctx, s, func(r *reader) ([]feed.Bounds, error) {
		return r.readBounds(string(names), len(feeds))
	})
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	return bounds, nil
}

// readBounds returns the bounds of n feeds, whose names are a JSON array.
func (r *reader) readBounds(names string, n int) ([]feed.Bounds, error) {
	bounds := slices.Repeat([]feed.Bounds{feed.Unwritten}, n)
	err := r.bounds.each(func(row []driver.Value) bool {
		bounds[row[0].(int64)] = boundsOf(row[1:4])
		return true
	}, names)
	return bounds, err
}

// Ends implements [feed.Comparer].
func (s *Store) Ends(ctx context.Context, places []feed.Place) ([]feed.End, error) {
	asked := make([][2]any, len(places))
	for i, p := range places {
		asked[i] = [2]any{p.Feed, min(p.ID, feed.MaxID)}
	}
	question, err := json.Marshal(asked)
	if err != nil {
		return nil, fmt.Errorf("read ends: %w", err)
	}
	ends, err := read(ctx, s, func(r *reader) ([]feed.End, error) { return r.readEnds(string(question), len(places)) })
	if err != nil {
		return nil, fmt.Errorf("read ends: %w", err)
	}
	return ends, nil
}

func (r *reader) readEnds(question string, n int) ([]feed.End, error) {
	ends := slices.Repeat([]feed.End{{Bounds: feed.Unwritten}}, n)
	err := r.ends.each(func(row []driver.Value) bool {
		e := &ends[row[0].(int64)]
		e.Bounds = boundsOf(row[1:4])
		e.Newest, e.Then = timeOf(row[4]), timeOf(row[5])
		return true
	}, question)
	return ends, err
}

// Epoch implements [feed.Comparer]. It never changes: if the file is replaced, the
// process still reads the old one.
func (s *Store) Epoch() uint64 { return 0 }

// timeOf reads a time that may be NULL.
func timeOf(value driver.Value) time.Time {
	if ms, ok := value.(int64); ok {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// Seek implements [feed.Store]. Times rise with the ids of a feed, so a binary search
// of the ids finds a time and needs no index on it. It looks at the oldest event
// first, because retention often asks about feeds without expired events.
func (s *Store) Seek(ctx context.Context, name string, t time.Time) (feed.ID, error) {
	cursor, err := read(ctx, s, func(r *reader) (feed.ID, error) { return r.seek(name, t) })
	if err != nil {
		return 0, fmt.Errorf("seek: %w", err)
	}
	return cursor, nil
}

func (r *reader) seek(name string, t time.Time) (cursor feed.ID, err error) {
	if err := r.begin.exec(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.commit.exec()) }()
	var id int64
	var updated time.Time
	bounds := feed.Unwritten
	if err := r.getBounds.each(func(row []driver.Value) bool {
		id, bounds, updated = row[0].(int64), boundsOf(row[1:4]), time.UnixMilli(row[4].(int64))
		return true
	}, name); err != nil {
		return 0, err
	}
	if updated.Before(t) {
		return bounds.Last, nil
	}
	low, high := bounds.First, bounds.Last+1
	for middle := low; low < high; middle = low + (high-low)/2 {
		at, err := r.timeOf(id, middle)
		switch {
		case err != nil:
			return 0, err
		case at.Before(t):
			low = middle + 1
		default:
			high = middle
		}
	}
	return low - 1, nil
}

// timeOf returns the time of an event that must exist.
func (r *reader) timeOf(id int64, seq feed.ID) (time.Time, error) {
	var at time.Time
	err := r.getTime.each(func(row []driver.Value) bool {
		at = time.UnixMilli(row[0].(int64))
		return true
	}, id, int64(seq))
	if err == nil && at.IsZero() {
		err = fmt.Errorf("%w: event %d is missing", errDamaged, seq)
	}
	return at, err
}

// boundsOf reads the columns first, last and closed.
func boundsOf(row []driver.Value) feed.Bounds {
	return feed.Bounds{First: feed.ID(row[0].(int64)), Last: feed.ID(row[1].(int64)), Closed: row[2].(int64) != 0}
}

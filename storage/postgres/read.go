package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

// Read implements [feed.Store].
func (s *Store) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	var page feed.Page
	err := s.read(ctx, s.replay, func(rows pgx.Rows) error {
		page = feed.Page{Bounds: feed.Unwritten}
		for rows.Next() {
			raw := rows.RawValues()
			page.Bounds = boundsOf(raw)
			if raw[3] == nil {
				break
			}
			if page.Events == nil {
				page.Events = make([]feed.Event, 0, min(feed.ID(limit.Events), page.Last-min(after, page.Last), 1024))
			}
			page.Events = append(page.Events, eventOf(name, raw[3:]))
		}
		return nil
	}, query("page"), name, int64(min(after, feed.MaxID)), int64(limit.Events), int64(limit.Bytes))
	if err != nil {
		return feed.Page{}, fmt.Errorf("read: %w", err)
	}
	return page, nil
}

// int8of decodes an int8 of Postgres in the binary format, which prepared statements
// send.
func int8of(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

func timeOf(b []byte) time.Time { return time.UnixMilli(int8of(b)).UTC() }

// eventOf decodes seq, time, json, type and data.
func eventOf(name string, raw [][]byte) feed.Event {
	return feed.Event{
		Feed: name, ID: feed.ID(int8of(raw[0])), Time: timeOf(raw[1]), JSON: raw[2][0] != 0,
		Type: string(raw[3]), Data: string(raw[4]),
	}
}

// boundsOf decodes first, last and closed.
func boundsOf(raw [][]byte) feed.Bounds {
	return feed.Bounds{First: feed.ID(int8of(raw[0])), Last: feed.ID(int8of(raw[1])), Closed: raw[2][0] != 0}
}

// Bounds implements [feed.Store].
func (s *Store) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	bounds := make([]feed.Bounds, len(feeds))
	if len(feeds) == 0 {
		return bounds, nil
	}
	err := s.read(ctx, s.verify, func(rows pgx.Rows) error {
		for i := range bounds {
			bounds[i] = feed.Unwritten
		}
		for rows.Next() {
			raw := rows.RawValues()
			bounds[int8of(raw[0])-1] = boundsOf(raw[1:])
		}
		return nil
	}, query("bounds"), feeds)
	if err != nil {
		return nil, fmt.Errorf("read bounds: %w", err)
	}
	return bounds, nil
}

// Ends implements [feed.Comparer].
func (s *Store) Ends(ctx context.Context, places []feed.Place) ([]feed.End, error) {
	ends := make([]feed.End, len(places))
	if len(places) == 0 {
		return ends, nil
	}
	feeds, ids := make([]string, len(places)), make([]int64, len(places))
	for i, p := range places {
		feeds[i], ids[i] = p.Feed, int64(min(p.ID, feed.MaxID))
	}
	err := s.read(ctx, s.verify, func(rows pgx.Rows) error {
		for i := range ends {
			ends[i] = feed.End{Bounds: feed.Unwritten}
		}
		for rows.Next() {
			raw := rows.RawValues()
			e := &ends[int8of(raw[0])-1]
			e.Bounds = boundsOf(raw[1:])
			if raw[4] != nil {
				e.Newest = timeOf(raw[4])
			}
			if raw[5] != nil {
				e.Then = timeOf(raw[5])
			}
		}
		return nil
	}, query("ends"), feeds, ids)
	if err != nil {
		return nil, fmt.Errorf("read ends: %w", err)
	}
	return ends, nil
}

// Epoch implements [feed.Comparer].
func (s *Store) Epoch() uint64 { return s.epoch.Load() }

// Seek implements [feed.Store].
func (s *Store) Seek(ctx context.Context, name string, t time.Time) (feed.ID, error) {
	// Events have whole milliseconds: the first that is not before t.
	at := t.UnixMilli()
	if time.UnixMilli(at).Before(t) {
		at++
	}
	var cursor int64
	err := s.read(ctx, s.replay, func(rows pgx.Rows) error {
		cursor = 0
		for rows.Next() {
			raw := rows.RawValues()[0]
			if raw == nil {
				return fmt.Errorf("an event of feed %s is missing", name)
			}
			cursor = int8of(raw)
		}
		return nil
	}, query("seek"), name, at)
	if err != nil {
		return 0, fmt.Errorf("seek: %w", err)
	}
	return feed.ID(cursor), nil
}

package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/rejoin/rejoin/feed"
)

// append does all of an append but BEGIN and COMMIT: it loads the rows and keys
// that the batches name, plans, and writes the plan. An error fails the
// transaction.
func (w *writer) append(batches []feed.Batch, now int64) ([]feed.Result, error) {
	if err := w.feeds.check(w.getVersion); err != nil {
		return nil, err
	}
	if err := w.loadFeeds(batches); err != nil {
		return nil, err
	}
	keys, err := w.loadKeys(batches)
	if err != nil {
		return nil, err
	}
	plan := feed.PlanAppend(batches, feed.AppendInput{Now: now, Feeds: w.feeds.rows, Keys: keys})
	if err := w.write(plan, now); err != nil {
		return nil, err
	}
	return plan.Results, nil
}

// loadFeeds loads the rows of the batches' feeds that the writer does not have.
func (w *writer) loadFeeds(batches []feed.Batch) error {
	last := "" // drafts of one feed often follow each other
	for _, b := range batches {
		if b.Feed != "" && b.Feed != last {
			if err := w.loadFeed(b.Feed); err != nil {
				return err
			}
			last = b.Feed
		}
		for _, d := range b.Drafts {
			if d.Feed == last {
				continue
			}
			if err := w.loadFeed(d.Feed); err != nil {
				return err
			}
			last = d.Feed
		}
	}
	return nil
}

func (w *writer) loadFeed(name string) error {
	if w.feeds.rows[name] != nil {
		return nil
	}
	f := &feed.FeedRow{}
	err := w.getFeed.each(func(row []driver.Value) bool {
		f.ID, f.Last, f.Updated = row[0].(int64), feed.ID(row[1].(int64)), row[2].(int64)
		f.Closed = row[3].(int64) != 0
		return true
	}, name)
	if err != nil {
		return fmt.Errorf("get feed: %w", err)
	}
	w.feeds.rows[name] = f
	return nil
}

// loadKeys returns the stored row of each batch's key, or nil.
func (w *writer) loadKeys(batches []feed.Batch) ([]*feed.KeyRow, error) {
	var keys []*feed.KeyRow
	var rows []feed.KeyRow // what keys points to
	for i, b := range batches {
		if b.Key == nil {
			continue
		}
		space := w.space(feed.KeyName{Feed: b.Feed, Name: b.Key.Name})
		if space == 0 && b.Feed != "" {
			continue // a feed without a row has no keys
		}
		err := w.getKey.each(func(row []driver.Value) bool {
			if keys == nil {
				keys, rows = make([]*feed.KeyRow, len(batches)), make([]feed.KeyRow, len(batches))
			}
			k := &rows[i]
			copy(k.Fingerprint[:], row[0].([]byte))
			k.Starts, k.Time = decodeStarts(row[1].([]byte)), row[2].(int64)
			keys[i] = k
			return true
		}, space, b.Key.Name)
		if err != nil {
			return nil, fmt.Errorf("get key: %w", err)
		}
	}
	return keys, nil
}

// space returns the id of the feed that the key belongs to; 0 for the keys of
// batches without a feed, and for a feed without a row.
func (w *writer) space(name feed.KeyName) int64 {
	if name.Feed == "" {
		return 0
	}
	return w.feeds.rows[name.Feed].ID
}

// write writes the plan: new feeds first, whose ids the events and keys need.
func (w *writer) write(plan feed.AppendPlan, now int64) error {
	for _, c := range plan.Feeds {
		if c.Row.ID != 0 {
			continue
		}
		if err := w.addFeed.each(func(row []driver.Value) bool {
			c.Row.ID = row[0].(int64)
			return true
		}, c.Name, now); err != nil {
			return fmt.Errorf("add feed: %w", err)
		}
	}
	if err := w.writeEvents(plan.Events); err != nil {
		return err
	}
	for name, k := range plan.Keys {
		if err := w.setKey.exec(w.space(name), name.Name, k.Fingerprint[:], encodeStarts(k.Starts), k.Time); err != nil {
			return fmt.Errorf("set key: %w", err)
		}
	}
	for _, c := range plan.Feeds {
		if err := w.growFeed.exec(c.Row.ID, int64(c.Row.Last), c.Row.Updated, flag(c.Row.Closed), c.Bytes); err != nil {
			return fmt.Errorf("grow feed: %w", err)
		}
	}
	return nil
}

// writeEvents inserts as many events as it can sixteen at a time, and the rest
// one by one.
func (w *writer) writeEvents(events []feed.PlannedEvent) error {
	for full := w.addEvents.NumInput() / w.addEvent.NumInput(); len(events) >= full; events = events[full:] {
		if err := w.addEvents.exec(w.eventColumns(events[:full])...); err != nil {
			return fmt.Errorf("add events: %w", err)
		}
	}
	for row := range slices.Chunk(events, 1) {
		if err := w.addEvent.exec(w.eventColumns(row)...); err != nil {
			return fmt.Errorf("add event: %w", err)
		}
	}
	return nil
}

// eventColumns returns the arguments of add_event or add_events. They are valid
// until the next call.
func (w *writer) eventColumns(events []feed.PlannedEvent) []driver.Value {
	w.columns = w.columns[:0]
	for _, p := range events {
		e := p.Event
		w.columns = append(w.columns, p.Feed.ID, int64(e.ID), e.Type, e.Data, flag(e.JSON), e.Time.UnixMilli())
	}
	return w.columns
}

// encodeStarts and decodeStarts turn a key's starts into the column starts and
// back. Of a damaged column decodeStarts returns the part that is sound.
func encodeStarts(starts []feed.BatchStart) []byte {
	b := make([]byte, 0, 2*binary.MaxVarintLen64)
	for _, s := range starts {
		b = binary.AppendUvarint(b, uint64(s.ID))
		b = binary.AppendVarint(b, s.Time)
	}
	return b
}

func decodeStarts(b []byte) []feed.BatchStart {
	starts := make([]feed.BatchStart, 0, 1)
	for len(b) > 0 {
		id, n := binary.Uvarint(b)
		at, m := binary.Varint(b[max(n, 0):])
		if n <= 0 || m <= 0 {
			break
		}
		starts = append(starts, feed.BatchStart{ID: feed.ID(id), Time: at})
		b = b[n+m:]
	}
	return starts
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

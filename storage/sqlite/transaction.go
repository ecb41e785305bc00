package sqlite

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// appending is a transaction of appends under way.
type appending struct {
	w       *writer
	now     int64
	drafted []*feedRow     // of the batch at hand, one a draft
	changed []*feedRow     // the rows that the transaction has yet to write
	rows    []driver.Value // of events that are yet to be inserted, columns to a row
}

// appendAll does all but the commit. Its error is the store's fault and fails
// the transaction; a result's is the batch's, of which nothing is inserted.
func (tx *appending) appendAll(batches []feed.Batch) ([]feed.Result, error) {
	if err := tx.w.feeds.check(tx.w.getVersion); err != nil {
		return nil, err
	}
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		var err error
		if results[i], err = tx.append(b); err != nil {
			return nil, err
		}
	}
	for row := range slices.Chunk(tx.rows, tx.w.addEvent.NumInput()) {
		if err := tx.w.addEvent.exec(row...); err != nil {
			return nil, fmt.Errorf("add event: %w", err)
		}
	}
	for _, f := range tx.changed {
		if err := tx.w.growFeed.exec(f.id, f.last, f.time, flag(f.closed), f.bytes); err != nil {
			return nil, fmt.Errorf("grow feed: %w", err)
		}
		f.bytes, f.changed = 0, false
	}
	return results, nil
}

// append decides on one batch.
func (tx *appending) append(b feed.Batch) (feed.Result, error) {
	if b.Key != nil {
		r, known, err := tx.recall(b)
		if known || err != nil {
			return r, err
		}
	}
	refusal, err := tx.admit(b)
	if refusal != nil || err != nil {
		return feed.Result{Err: refusal}, err
	}
	events, err := tx.number(b.Drafts)
	if err == nil && b.Close {
		err = tx.close(b.Feed)
	}
	if err == nil && b.Key != nil {
		err = tx.remember(b, events)
	}
	return feed.Result{Events: events}, err
}

// admit says why the batch is refused, if it is, and notes the feeds of its
// drafts.
func (tx *appending) admit(b feed.Batch) (refusal, err error) {
	tx.drafted = tx.drafted[:0]
	for _, d := range b.Drafts {
		f, err := tx.feed(d.Feed)
		if err != nil {
			return nil, err
		}
		if f.closed {
			return fmt.Errorf("%w: %s", feed.ErrClosed, d.Feed), nil
		}
		tx.drafted = append(tx.drafted, f)
	}
	if b.IfLast == nil {
		return nil, nil
	}
	f, err := tx.feed(b.Feed)
	if err == nil && uint64(f.last) != *b.IfLast {
		refusal = &feed.LastError{Last: uint64(f.last)}
	}
	return refusal, err
}

// number numbers the events of drafts that are admitted, and inserts as many as
// make full statements.
func (tx *appending) number(drafts []feed.Draft) ([]feed.Event, error) {
	events := make([]feed.Event, len(drafts))
	for i, d := range drafts {
		f := tx.drafted[i]
		if err := tx.create(d.Feed, f); err != nil {
			return nil, err
		}
		f.last++
		f.time = max(f.time, tx.now)
		f.bytes += int64(len(d.Data))
		tx.change(f)
		events[i] = feed.Event{
			Feed: d.Feed, ID: uint64(f.last), Type: d.Type, Data: d.Data, JSON: d.JSON,
			Time: time.UnixMilli(f.time).UTC(),
		}
		tx.rows = append(tx.rows, f.id, f.last, d.Type, d.Data, flag(d.JSON), f.time)
		if len(tx.rows) == tx.w.addEvents.NumInput() {
			if err := tx.w.addEvents.exec(tx.rows...); err != nil {
				return nil, fmt.Errorf("add events: %w", err)
			}
			tx.rows = tx.rows[:0]
		}
	}
	return events, nil
}

// close closes the feed, unless it is closed.
func (tx *appending) close(name string) error {
	f, err := tx.feed(name)
	if err != nil || f.closed {
		return err
	}
	f.closed = true
	tx.change(f)
	return tx.create(name, f)
}

// change has the row written before the transaction ends.
func (tx *appending) change(f *feedRow) {
	if !f.changed {
		f.changed = true
		tx.changed = append(tx.changed, f)
	}
}

// feed returns the feed's row as the transaction has changed it.
func (tx *appending) feed(name string) (*feedRow, error) {
	if f := tx.w.feeds.rows[name]; f != nil {
		return f, nil
	}
	f := &feedRow{}
	err := tx.w.getFeed.each(func(row []driver.Value) bool {
		f.id, f.last, f.time = row[0].(int64), row[1].(int64), row[2].(int64)
		f.closed = row[3].(int64) != 0
		return true
	}, name)
	if err != nil {
		return nil, fmt.Errorf("get feed: %w", err)
	}
	tx.w.feeds.rows[name] = f
	return f, nil
}

// create makes the feed's row if there is none.
func (tx *appending) create(name string, f *feedRow) error {
	if f.id != 0 {
		return nil
	}
	err := tx.w.addFeed.each(func(row []driver.Value) bool {
		f.id = row[0].(int64)
		return true
	}, name, tx.now)
	if err != nil {
		return fmt.Errorf("add feed: %w", err)
	}
	f.time = tx.now
	return nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

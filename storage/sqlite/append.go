package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/rejoin/rejoin/feed"
)

// writer is the one connection that writes.
type writer struct {
	*conn
	begin, commit, rollback    *stmt
	getFeed, addFeed, growFeed *stmt
	addEvent, addEvents        *stmt
	truncateWAL                *stmt

	// Bytes of log at which it is emptied here: always, and the next time.
	walLimit, tolerated int64
}

func newWriter(dsn string) (*writer, error) {
	c, err := dial(dsn)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: c, walLimit: walLimit, tolerated: walLimit}
	if _, err := c.Exec(query("tune_writer"), nil); err != nil {
		return nil, errors.Join(fmt.Errorf("tune: %w", err), c.Close())
	}
	if err := c.prepare(map[**stmt]string{
		&w.begin: "begin_write", &w.commit: "commit", &w.rollback: "rollback",
		&w.getFeed: "get_feed", &w.addFeed: "add_feed", &w.growFeed: "grow_feed",
		&w.addEvent: "add_event", &w.addEvents: "add_events",
		&w.truncateWAL: "truncate_wal",
	}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return w, nil
}

// Append implements [feed.Store]. It heeds ctx only until the transaction
// begins: from there on the answer is what SQLite says.
func (s *Store) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	w, err := take(ctx, s, s.writing)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	defer func() { s.writing <- w }()
	results, err := w.append(batches, s.now().UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	s.boundWAL(w)
	return results, nil
}

// append stores the batches in one transaction.
func (w *writer) append(batches []feed.Batch, now int64) ([]feed.Result, error) {
	if err := w.begin.exec(); err != nil {
		return nil, unavailable(err)
	}
	tx := &appending{w: w, now: now, feeds: make(map[string]*growth)}
	results, err := tx.appendAll(batches)
	if err != nil {
		return nil, w.undo(unavailable(err))
	}
	if err := w.commit.exec(); err != nil {
		return nil, w.undo(commitError(err))
	}
	return results, nil
}

// undo rolls back what SQLite has not rolled back by itself.
func (w *writer) undo(cause error) error {
	if w.AutoCommit() {
		return cause
	}
	return errors.Join(cause, w.rollback.exec())
}

// appending is a transaction of appends under way.
type appending struct {
	w     *writer
	now   int64
	feeds map[string]*growth
	rows  []driver.Value // of events that are yet to be inserted, columns to a row
}

// growth is what the transaction knows of a feed's row.
type growth struct{ id, last, time int64 }

// appendAll does all but the commit. Its error is the store's fault and fails
// the transaction; a result's is the batch's, of which nothing is inserted.
func (tx *appending) appendAll(batches []feed.Batch) ([]feed.Result, error) {
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
	for _, f := range tx.feeds {
		if err := tx.w.growFeed.exec(f.id, f.last, f.time); err != nil {
			return nil, fmt.Errorf("grow feed: %w", err)
		}
	}
	return results, nil
}

// append numbers the events of one batch, and inserts as many as make full
// statements.
func (tx *appending) append(b feed.Batch) (feed.Result, error) {
	events := make([]feed.Event, len(b.Drafts))
	for i, d := range b.Drafts {
		f, err := tx.feed(d.Feed)
		if err != nil {
			return feed.Result{}, err
		}
		f.last++
		f.time = max(f.time, tx.now)
		events[i] = feed.Event{
			Feed: d.Feed, ID: uint64(f.last), Type: d.Type, Data: d.Data, JSON: d.JSON,
			Time: time.UnixMilli(f.time).UTC(),
		}
		tx.rows = append(tx.rows, f.id, f.last, d.Type, d.Data, flag(d.JSON), f.time)
		if len(tx.rows) == tx.w.addEvents.NumInput() {
			if err := tx.w.addEvents.exec(tx.rows...); err != nil {
				return feed.Result{}, fmt.Errorf("add events: %w", err)
			}
			tx.rows = tx.rows[:0]
		}
	}
	return feed.Result{Events: events}, nil
}

// feed returns the feed's growth in this transaction; the feed is made if it
// does not exist.
func (tx *appending) feed(name string) (*growth, error) {
	if f := tx.feeds[name]; f != nil {
		return f, nil
	}
	var f *growth
	err := tx.w.getFeed.each(func(row []driver.Value) bool {
		f = &growth{id: row[0].(int64), last: row[1].(int64), time: row[2].(int64)}
		return true
	}, name)
	if err != nil {
		return nil, fmt.Errorf("get feed: %w", err)
	}
	if f == nil {
		f = &growth{time: tx.now}
		err := tx.w.addFeed.each(func(row []driver.Value) bool {
			f.id = row[0].(int64)
			return true
		}, name, tx.now)
		if err != nil {
			return nil, fmt.Errorf("add feed: %w", err)
		}
	}
	tx.feeds[name] = f
	return f, nil
}

// commitError turns an error of COMMIT into the domain's. The codes named here
// say that the commit record was never written. After any other the log may
// hold it: this process does not see the events, but it may after a crash.
func commitError(err error) error {
	if e, ok := errors.AsType[sqlite3.Error](err); ok {
		switch e.Code {
		case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrReadonly, sqlite3.ErrConstraint:
			return unavailable(err)
		}
	}
	return fmt.Errorf("%w: commit: %w", feed.ErrUncertain, err)
}

// boundWAL empties the write-ahead log once it is large. SQLite does so by
// itself whenever a commit finds no reader in the log, which replays that
// overlap without end can put off for ever; here the readers are held back.
//
// Another program that reads, a backup for one, can still be in the way. It is
// not waited for: the next attempt is when the log has doubled.
func (s *Store) boundWAL(w *writer) {
	info, err := os.Stat(s.path + "-wal")
	if err != nil || info.Size() < w.tolerated {
		return
	}
	for range cap(s.reading) {
		r := <-s.reading
		defer func() { s.reading <- r }()
	}
	w.tolerated = w.walLimit
	if !w.emptyWAL() {
		w.tolerated = max(w.walLimit, 2*info.Size())
	}
}

// emptyWAL says whether the log is empty now. That it is not costs disk space
// and no more, so why it is not is nobody's affair.
func (w *writer) emptyWAL() bool {
	if _, err := w.Exec(query("wait_for_nobody"), nil); err != nil {
		return false
	}
	empty := false
	err := w.truncateWAL.each(func(row []driver.Value) bool {
		empty = row[0] == int64(0) // busy
		return true
	})
	_, again := w.Exec(query("wait_for_others"), nil)
	return err == nil && again == nil && empty
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

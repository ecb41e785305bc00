package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
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
	getKey, setKey             *stmt
	trim, getUnswept, setSwept *stmt
	sizeEvents, deleteEvents   *stmt
	deleteKeys                 *stmt
	truncateWAL, restartWAL    *stmt
	getVersion, countPages     *stmt

	feeds    feedRows
	columns  []driver.Value // see eventColumns
	pageSize int64

	inPlaceAt time.Time // when all files were last found in place
	logSize   int64     // of the write-ahead log at that time

	// The size of the log at which it is emptied: usually, and the next time.
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
	var getPageSize *stmt
	if err := c.prepare(map[**stmt]string{
		&w.begin: beginWrite, &w.commit: commit, &w.rollback: rollback,
		&w.getFeed: query("get_feed"), &w.addFeed: query("add_feed"), &w.growFeed: query("grow_feed"),
		&w.addEvent: query("add_event"), &w.addEvents: query("add_events"),
		&w.getKey: query("get_key"), &w.setKey: query("set_key"),
		&w.trim: query("trim"), &w.getUnswept: query("get_unswept"), &w.setSwept: query("set_swept"),
		&w.sizeEvents: query("size_events"), &w.deleteEvents: query("delete_events"),
		&w.deleteKeys:  query("delete_keys"),
		&w.truncateWAL: query("truncate_wal"), &w.restartWAL: query("restart_wal"),
		&w.getVersion: query("get_version"), &w.countPages: query("count_pages"), &getPageSize: query("get_page_size"),
	}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if w.pageSize, err = getPageSize.number(); err != nil {
		return nil, errors.Join(fmt.Errorf("get page size: %w", err), c.Close())
	}
	return w, nil
}

// Append implements [feed.Store]. ctx can end it only until the transaction begins.
func (s *Store) Append(ctx context.Context, batches []feed.Batch) (results []feed.Result, err error) {
	err = s.write(ctx, func(w *writer) error {
		results, err = w.append(batches, s.now().UnixMilli())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	return results, nil
}

// write runs f in a transaction of the writer.
func (s *Store) write(ctx context.Context, f func(*writer) error) error {
	w, err := take(ctx, s, s.writing)
	if err != nil {
		return err
	}
	defer func() { s.writing <- w }()
	return s.store(w, f)
}

// free is write for transactions that free space: on a full disk they may use the
// reserve.
func (s *Store) free(ctx context.Context, f func(*writer) error) error {
	w, err := take(ctx, s, s.writing)
	if err != nil {
		return err
	}
	defer func() { s.writing <- w }()
	err = s.store(w, f)
	if isFull(err) && s.reserve.release() {
		err = s.store(w, f)
		s.reserve.shareWith(s.path + "-wal")
	}
	s.reserve.fill()
	return err
}

// store runs f in a transaction. If the disk is full, it runs f once more if the log
// has reusable space.
func (s *Store) store(w *writer, f func(*writer) error) error {
	err := s.transact(w, f)
	if isFull(err) && s.restartWAL(w) {
		err = s.transact(w, f)
	}
	if err != nil {
		s.noteDamage(err)
		return err
	}
	s.boundWAL(w)
	return nil
}

// transact runs f in a transaction, and rolls it back if f returns an error.
func (s *Store) transact(w *writer, f func(*writer) error) error {
	if err := s.stillInPlace(w); err != nil {
		return unavailable(err)
	}
	if err := w.begin.exec(); err != nil {
		return unavailable(s.explain(err))
	}
	if err := f(w); err != nil {
		return w.undo(unavailable(s.explain(err)))
	}
	if err := s.allocate(w); err != nil {
		return w.undo(unavailable(s.explain(err)))
	}
	if err := w.commit.exec(); err != nil {
		return w.undo(commitError(s.explain(err)))
	}
	if err := s.checkInPlace(w); err != nil {
		return fmt.Errorf("%w: %w", feed.ErrUncertain, err)
	}
	return nil
}

// allocate reserves space in the file for the pages that the transaction adds, and that
// are later moved there from the log. Otherwise the log could not be emptied on a
// full disk, and then nothing could be deleted.
func (s *Store) allocate(w *writer) error {
	pages, err := w.countPages.number()
	if err != nil {
		return fmt.Errorf("count pages: %w", err)
	}
	if err := s.lock.allocate(pages * w.pageSize); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	return nil
}

// undo rolls back the transaction, unless SQLite already has.
func (w *writer) undo(cause error) error {
	w.feeds.forget()
	if w.AutoCommit() {
		return cause
	}
	return errors.Join(cause, w.rollback.exec())
}

// commitError turns an error of COMMIT into the domain's. The codes listed here mean
// that the commit record was never written. After any other error the log may hold
// it: this process does not see the events, but after a crash they may appear.
func commitError(err error) error {
	if e, ok := errors.AsType[sqlite3.Error](err); ok {
		switch e.Code {
		case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrReadonly, sqlite3.ErrConstraint:
			return unavailable(err)
		}
	}
	return fmt.Errorf("%w: commit: %w", feed.ErrUncertain, err)
}

// boundWAL empties the write-ahead log once it is large. SQLite does so by itself when
// a commit finds no reader in the log, but with replays that always overlap that may
// never happen; so boundWAL pauses the readers.
//
// Another program that reads, such as a backup, can still prevent it. boundWAL does not
// wait for that program: it tries again when the log has doubled.
func (s *Store) boundWAL(w *writer) {
	if w.logSize < w.tolerated {
		return
	}
	w.tolerated = w.walLimit
	if !s.checkpoint(w, w.truncateWAL) {
		w.tolerated = max(w.walLimit, 2*w.logSize)
	}
}

// restartWAL makes the next commit reuse the log from its beginning, and reports whether
// it could.
func (s *Store) restartWAL(w *writer) bool { return s.checkpoint(w, w.restartWAL) }

// checkpoint moves the log into the file while it pauses the readers, and reports
// whether all of it was moved. A failure costs only disk space, so its cause is not
// reported.
func (s *Store) checkpoint(w *writer, statement *stmt) bool {
	for range cap(s.reading) {
		r := <-s.reading
		defer func() { s.reading <- r }()
	}
	if _, err := w.Exec(query("wait_for_nobody"), nil); err != nil {
		return false
	}
	busy, err := statement.number()
	_, again := w.Exec(query("wait_for_others"), nil)
	return err == nil && again == nil && busy == 0
}

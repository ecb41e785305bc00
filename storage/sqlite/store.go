// Package sqlite is the store for one node: a file on a local disk.
//
// One connection writes and a few others read, so that neither waits for the
// other: the file is in WAL mode, and every commit is synced to the disk before
// Append returns. A feed's row and its events change in one transaction, whose
// write lock is held from the first number given to the commit: numbers become
// visible in order and without holes. Keys and conditions are looked at under the
// same lock.
//
// A trim moves the first id in the feed's row, which every reader heeds; the rows
// before it are removed later, a few in a transaction.
//
// One Store at a time has a file open, in whatever process and by whatever name:
// a second is refused. Beside the file at path stand path-wal and path-shm, which
// belong to it. When one of the three is removed or replaced, nothing is stored
// any more, until it is back.
//
// On Linux, path-reserve holds some room on the disk for the trims and sweeps that
// make more when the disk is full. On other systems there is path.lock instead,
// which is empty, and a link to the file is not seen through.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

const (
	readers  = 4        // reads at one time; more wait
	walLimit = 64 << 20 // bytes of log at which the readers are held back to empty it
)

// Store is a [feed.RetentionStore] in an SQLite file.
type Store struct {
	path string // without symbolic links
	id   string
	now  func() time.Time

	// The connections that nobody is using now. Whoever takes one puts it back.
	writing chan *writer
	reading chan *reader

	lock      *lock
	reserve   reserve
	originals []original

	fault  atomic.Pointer[fault]
	damage atomic.Pointer[error]

	closed chan struct{}
	close  func() error
}

var (
	_ feed.RetentionStore = (*Store)(nil)
	_ feed.Comparer       = (*Store)(nil)
)

// Open opens the store in the file at path, and creates it if there is none;
// its directory has to exist. It migrates an older schema, and refuses a newer
// one, a file that is not a store of this package, a damaged file, and one that
// another Store has open. ctx bounds the migration. An error that wraps
// [feed.ErrUnavailable] may go away by itself: the disk is full.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, now: time.Now,
		writing: make(chan *writer, 1), reading: make(chan *reader, readers),
		reserve: reserve{path + "-reserve"},
		closed:  make(chan struct{}),
	}
	s.close = sync.OnceValue(s.release)
	err = s.start(ctx)
	if isFull(err) && s.reserve.release() {
		if err = s.start(ctx); err == nil {
			s.reserve.shareWith(path + "-wal")
		}
	}
	switch {
	case isFull(err):
		return nil, unavailable(explain(err))
	case err != nil:
		return nil, err
	}
	s.reserve.fill()
	return s, nil
}

// start locks the file and connects, or does nothing.
func (s *Store) start(ctx context.Context) (err error) {
	if s.lock, err = acquire(s.path); err != nil {
		return err
	}
	if s.id, err = prepare(ctx, s.path); err == nil {
		err = s.connect()
	}
	if err != nil {
		return errors.Join(err, s.lock.release())
	}
	return nil
}

// connect opens the connections, all or none.
func (s *Store) connect() (err error) {
	defer func() {
		if err == nil {
			return
		}
		for range len(s.reading) {
			err = errors.Join(err, (<-s.reading).Close())
		}
		for range len(s.writing) {
			err = errors.Join(err, (<-s.writing).Close())
		}
	}()
	w, err := newWriter(writerDSN(s.path))
	if err != nil {
		return fmt.Errorf("connect: %w", explain(err))
	}
	s.writing <- w
	for range readers {
		r, err := newReader(readerDSN(s.path))
		if err != nil {
			return fmt.Errorf("connect: %w", explain(err))
		}
		s.reading <- r
	}
	return s.noteOriginals()
}

// ID implements [feed.Store].
func (s *Store) ID() string { return s.id }

// String returns where the store is.
func (s *Store) String() string { return "sqlite:" + s.path }

// Close waits for the calls in progress, moves what is in the write-ahead log
// to the file, and lets another Store open it. The calls after it, and those
// that wait for a connection, get an error that wraps [feed.ErrStopped].
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

func (s *Store) release() error {
	close(s.closed)
	// The writer first: who has it may wait for the readers, see boundWAL.
	w := <-s.writing
	var errs []error
	for range cap(s.reading) {
		errs = append(errs, (<-s.reading).Close())
	}
	// It closes last: SQLite empties and removes the log as the last
	// connection that may write closes.
	return errors.Join(append(errs, w.Close(), s.lock.release())...)
}

// take waits for a connection of the pool.
func take[C any](ctx context.Context, s *Store, pool chan C) (c C, err error) {
	if err := ctx.Err(); err != nil {
		return c, unavailable(err)
	}
	select {
	case <-s.closed:
		return c, feed.ErrStopped
	default:
	}
	select {
	case <-s.closed:
		return c, feed.ErrStopped
	case <-ctx.Done():
		return c, unavailable(ctx.Err())
	case c = <-pool:
		return c, nil
	}
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", feed.ErrUnavailable, err) }

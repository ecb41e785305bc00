// Package sqlite is the store for one node: a file on a local disk.
//
// One connection writes and a few others read. The file is in WAL mode, so that
// reads and writes do not wait for each other, and every commit is synced to the
// disk before Append returns. One transaction changes a feed's row and its events,
// and holds the write lock from the first number that it gives until its commit, so
// numbers become visible in order and without holes. Keys and conditions are checked
// under the same lock.
//
// A trim moves the first id in the feed's row, at which every reader begins; the
// rows before it are deleted later, a few in each transaction.
//
// Only one Store has a file open at a time, in any process and under any name: a
// second one fails to open. The files path-wal and path-shm beside the file at path
// belong to it. If one of the three is removed or replaced, the store refuses writes
// until it is back.
//
// On Linux, path-reserve keeps some space on the disk for the trims and sweeps that
// free more when the disk is full. On other systems there is an empty file path.lock
// instead, and a hard link to the file is not recognized.
package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

const (
	readers  = 4        // concurrent reads; others wait
	walLimit = 64 << 20 // the size of the log at which readers are paused to empty it
)

// Store is a [feed.RetentionStore] in an SQLite file.
type Store struct {
	path   string // without symbolic links
	cache  int    // see Options
	id     string
	opened Opened
	now    func() time.Time

	// The idle connections. A call takes one and puts it back.
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

// Options tunes a store. The zero value is the default.
type Options struct {
	// Cache is how many bytes of pages the connections keep in memory, roughly; 0 means
	// DefaultCache.
	Cache int
}

// DefaultCache keeps the newest page of each of some thousands of feeds in memory.
const DefaultCache = 24 << 20

// cacheOf returns the parameter for a connection's part of the cache, in KiB. Two
// thirds are the writer's.
func (s *Store) cacheOf(twelfths int) string {
	return fmt.Sprintf("_cache_size=-%d", max(s.cache*twelfths/12>>10, 64))
}

// Open opens the store in the file at path, and creates the file if it does not
// exist; its directory must. It migrates an older schema. It refuses a newer one, a
// file that is not a store of this package, a damaged file, and one that another
// Store has open. ctx bounds the migration. An error that wraps
// [feed.ErrUnavailable] may go away by itself: the disk is full.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	s, err := open(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, o Options) (*Store, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, cache: cmp.Or(o.Cache, DefaultCache), now: time.Now,
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
	if s.id, s.opened, err = prepare(ctx, s.path); err == nil {
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
	w, err := newWriter(writerDSN(s.path, s.cacheOf(8)))
	if err != nil {
		return fmt.Errorf("connect: %w", explain(err))
	}
	s.writing <- w
	for range readers {
		r, err := newReader(readerDSN(s.path, s.cacheOf(4/readers)))
		if err != nil {
			return fmt.Errorf("connect: %w", explain(err))
		}
		s.reading <- r
	}
	return s.noteOriginals()
}

// ID implements [feed.Store].
func (s *Store) ID() string { return s.id }

// String returns the location of the store.
func (s *Store) String() string { return "sqlite:" + s.path }

// Opened returns what Open found and did.
func (s *Store) Opened() Opened { return s.opened }

// Close waits for the calls in progress, moves the write-ahead log into the file, and
// releases the file for another Store. Later calls, and those that wait for a
// connection, get an error that wraps [feed.ErrStopped].
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

func (s *Store) release() error {
	close(s.closed)
	// The writer first: the call that has it may wait for the readers, see boundWAL.
	w := <-s.writing
	var errs []error
	for range cap(s.reading) {
		errs = append(errs, (<-s.reading).Close())
	}
	// The writer closes last: SQLite empties and removes the log when the last connection
	// that can write closes.
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

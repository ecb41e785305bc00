package sqlite

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/mattn/go-sqlite3"
	"github.com/rejoin/rejoin/feed"
)

// fault is a read that failed.
type fault struct {
	again func(context.Context) error
}

// Ping returns an error if the store does not work: its files are not in place, a read
// that failed still fails, or a write has found damage. A file that is damaged in one
// place still serves all others; only its operator can repair it.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.inPlace(); err != nil {
		return unavailable(err)
	}
	if err := s.damage.Load(); err != nil {
		return *err
	}
	f := s.fault.Load()
	if f == nil {
		return nil
	}
	if err := f.again(ctx); err != nil {
		return err
	}
	s.fault.CompareAndSwap(f, nil)
	return nil
}

// read runs f with a reading connection. If f fails, Ping runs it again.
func read[T any](ctx context.Context, s *Store, f func(*reader) (T, error)) (v T, err error) {
	r, err := take(ctx, s, s.reading)
	if err != nil {
		return v, err
	}
	defer func() { s.reading <- r }()
	if v, err = f(r); err == nil {
		return v, nil
	}
	r.forgetPages()
	s.fault.Store(&fault{again: func(ctx context.Context) error {
		_, err := read(ctx, s, f)
		return err
	}})
	var none T
	return none, unavailable(s.explain(err))
}

// forgetPages drops the cached pages, so that the next read reads from the disk.
func (r *reader) forgetPages() { _, _ = r.Exec(query("shrink_memory"), nil) }

// noteDamage notes that a write has found damage, until the store is opened again:
// unlike a read, a write cannot be repeated to see whether the damage is still there.
func (s *Store) noteDamage(err error) {
	if isDamage(err) {
		s.damage.Store(&err)
	}
}

// explain prefixes the error with the file's name and the meaning of its code.
func (s *Store) explain(err error) error { return fmt.Errorf("file %s: %w", s.path, explain(err)) }

// explain prefixes the error with the meaning of its code for the file.
func explain(err error) error {
	e, ok := errors.AsType[sqlite3.Error](err)
	switch {
	case isFull(err):
		return fmt.Errorf("the disk is full: %w", err)
	case !ok:
		return err
	}
	switch e.Code {
	case sqlite3.ErrNotADB:
		return fmt.Errorf("it is not an SQLite database, or its header is damaged: %w", err)
	case sqlite3.ErrCorrupt:
		return fmt.Errorf("it is damaged: %w", err)
	case sqlite3.ErrCantOpen, sqlite3.ErrReadonly, sqlite3.ErrPerm:
		return fmt.Errorf("this user must be able to write the file and its directory: %w", err)
	case sqlite3.ErrBusy:
		return fmt.Errorf("another program has it locked: %w", err)
	case sqlite3.ErrIoErr:
		return fmt.Errorf("the system fails to read or write it: %w", err)
	}
	return err
}

// errDamaged is for damage that SQLite does not detect.
var errDamaged = errors.New("it is damaged")

func isDamage(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB) || errors.Is(err, errDamaged)
}

// isFull reports whether the disk was full and nothing was stored.
func isFull(err error) bool {
	if errors.Is(err, feed.ErrUncertain) {
		return false
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true
	}
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrFull || e.ExtendedCode == sqlite3.ErrIoErrSHMSize ||
		e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT)
}

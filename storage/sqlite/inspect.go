package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
)

// Schema compares the schema of a file with the migrations of this program.
type Schema struct {
	Version int64    // 0 if there is no file
	Newest  int64    // the version after all migrations
	Pending []string // the names of the migrations that [Open] would run
}

// Inspection is what [Inspect] finds in a file that [Open] can open.
type Inspection struct {
	Schema Schema
	// Free is how many bytes this user can still write to the disk, -1 if the system
	// does not report it.
	Free int64
}

// Inspect looks at the file at path as [Open] would, and changes nothing. Its errors are
// those of Open. On systems other than Linux it does not look for other processes that
// have the file open.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	i, err := inspectPath(ctx, path)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect store %q: %w", path, err)
	}
	return i, nil
}

func inspectPath(ctx context.Context, path string) (i Inspection, err error) {
	if path, err = resolve(path); err != nil {
		return i, err
	}
	if err := probe(path); err != nil {
		return i, err
	}
	i.Free = -1
	if free, known := freeSpace(filepath.Dir(path)); known {
		i.Free = int64(free)
	}
	i.Schema, err = readSchema(ctx, path)
	return i, err
}

// Status returns the state of the schema of the file at path, and changes nothing.
// Another process may have the file open, but this one may not.
func Status(ctx context.Context, path string) (Schema, error) {
	abs, err := resolve(path)
	if err != nil {
		return Schema{}, fmt.Errorf("read schema of %q: %w", path, err)
	}
	s, err := readSchema(ctx, abs)
	if err != nil {
		return Schema{}, fmt.Errorf("read schema of %q: %w", path, err)
	}
	return s, nil
}

// Migrate runs the pending migrations of the file at path, and returns the names of those
// that it ran. It creates the file if it does not exist. No other Store may have it open.
func Migrate(ctx context.Context, path string) (ran []string, err error) {
	if ran, err = migratePath(ctx, path); err != nil {
		return ran, fmt.Errorf("migrate store %q: %w", path, err)
	}
	return ran, nil
}

func migratePath(ctx context.Context, path string) (ran []string, err error) {
	if path, err = resolve(path); err != nil {
		return nil, err
	}
	l, err := acquire(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.release()) }()
	if _, err := inspect(ctx, path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", writerDSN(path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	ran, err = migrate(ctx, db)
	return ran, errors.Join(err, db.Close()) // before the lock is released
}

func readSchema(ctx context.Context, path string) (s Schema, err error) {
	// SQLite would create the files of the log, with this user as their owner. Without a
	// log it needs none of them.
	var params []string
	if info, err := os.Stat(path + logSuffix); err != nil || info.Size() == 0 {
		params = []string{"immutable=1"}
	} else if _, err := os.Stat(path + "-shm"); errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("the log %s-wal has to be read in first: a start does that", path)
	}
	if s.Version, err = inspect(ctx, path, params...); err != nil {
		return Schema{}, err
	}
	s.Newest = newest
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return Schema{}, err
	}
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return Schema{}, fmt.Errorf("read migrations: %w", err)
		}
		if version > s.Version {
			s.Pending = append(s.Pending, migrationName(name))
		}
	}
	return s, nil
}

func migrationName(file string) string { return strings.TrimSuffix(path.Base(file), ".sql") }

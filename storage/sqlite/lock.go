package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mattn/go-sqlite3"
)

// ErrInUse is wrapped by the error of [Open] for a file that a process has open.
var ErrInUse = errors.New("the file is in use: another process, or this one, has it open")

// lockFile reserves a store's file for one Store by the file's name. It is an SQLite
// transaction on an empty file beside it. SQLite's file locks work on every system
// that SQLite runs on, hold within a process too, and end with the process.
type lockFile struct{ *conn }

// acquireBeside takes the lock for the file at path. Releasing the lock keeps the lock's
// file: removing it could remove the lock of the next holder.
func acquireBeside(path string) (*lockFile, error) {
	path += ".lock"
	c, err := dial(dsn(path, "mode=rwc", "_busy_timeout=0", "_journal_mode=MEMORY"))
	if err == nil {
		if _, err = c.Exec(beginExclusive, nil); err == nil {
			return &lockFile{c}, nil
		}
		err = errors.Join(err, c.Close())
	}
	// The first statement that dial runs on the file may find it locked.
	if e, ok := errors.AsType[sqlite3.Error](err); ok && e.Code == sqlite3.ErrBusy {
		return nil, ErrInUse
	}
	// SQLite tries twice, and reports only the second error.
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o644); err == nil {
		_ = f.Close()
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create lock file: this user must be able to write its directory: %w", err)
	}
	return nil, fmt.Errorf("lock %s: %w", path, explain(err))
}

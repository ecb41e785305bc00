package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	logSuffix = "-wal"

	// For how long a file that was in place is taken to be there still, at the start of
	// a transaction. Its end never assumes that.
	assumeInPlace = 100 * time.Millisecond
)

// original is a file of the store as it was when the store was opened.
type original struct {
	path string
	info fs.FileInfo
}

// noteOriginals records the files that the connections have opened.
func (s *Store) noteOriginals() error {
	for _, suffix := range []string{"", logSuffix, "-shm"} {
		path := s.path + suffix
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("find the files that SQLite has opened: %w", err)
		}
		s.originals = append(s.originals, original{path, info})
	}
	return nil
}

// inPlace returns an error unless the open files are those that the next start will
// find: writes to other files would be lost. Files that are moved back are in place
// again.
//
// It also returns the size of the write-ahead log.
//
// Reads do not check. They return only acknowledged events, and this Store may hold
// the last copy.
func (s *Store) inPlace() (logSize int64, err error) {
	for _, o := range s.originals {
		info, err := os.Stat(o.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return 0, fmt.Errorf("%s was removed or renamed while in use: %s", o.path, s.remedy(o))
		case err != nil:
			return 0, fmt.Errorf("check that the file is in place: %w", err)
		case !os.SameFile(info, o.info):
			return 0, fmt.Errorf("%s was replaced by another file while in use: %s", o.path, s.remedy(o))
		case strings.HasSuffix(o.path, logSuffix):
			logSize = info.Size()
		}
	}
	return logSize, nil
}

// stillInPlace is inPlace for the start of a transaction. It skips the check if one
// has succeeded a moment ago: a busy store checks at the end of each transaction.
func (s *Store) stillInPlace(w *writer) error {
	if time.Since(w.inPlaceAt) < assumeInPlace {
		return nil
	}
	return s.checkInPlace(w)
}

// checkInPlace is inPlace, and notes in w what it found.
func (s *Store) checkInPlace(w *writer) (err error) {
	w.inPlaceAt = time.Time{}
	if w.logSize, err = s.inPlace(); err == nil {
		w.inPlaceAt = time.Now()
	}
	return err
}

func (s *Store) remedy(o original) string {
	if o.path == s.path {
		return "put it back, or save what this server can still read before stopping it"
	}
	return "stop this server, which then moves all stored events to " + s.path
}

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// original is a file of the store as it was when the store was opened.
type original struct {
	path string
	info fs.FileInfo
}

// noteOriginals records the files that the connections have opened.
func (s *Store) noteOriginals() error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
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
// Reads do not check. They return only acknowledged events, and this Store may hold
// the last copy.
func (s *Store) inPlace() error {
	for _, o := range s.originals {
		info, err := os.Stat(o.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s was removed or renamed while in use: %s", o.path, s.remedy(o))
		case err != nil:
			return fmt.Errorf("check that the file is in place: %w", err)
		case !os.SameFile(info, o.info):
			return fmt.Errorf("%s was replaced by another file while in use: %s", o.path, s.remedy(o))
		}
	}
	return nil
}

func (s *Store) remedy(o original) string {
	if o.path == s.path {
		return "put it back, or save what this server can still read before stopping it"
	}
	return "stop this server, which then moves all stored events to " + s.path
}

//go:build !linux

package sqlite

// lock reserves a store's file for one Store. Only Linux has a lock for the file itself
// that does not conflict with SQLite's own.
type lock struct{ *lockFile }

func acquire(path string) (*lock, error) {
	l, err := acquireBeside(path)
	if err != nil {
		return nil, err
	}
	return &lock{l}, nil
}

func (l *lock) release() error { return l.Close() }

// probe reports nothing: to look for the lock could create it.
func probe(string) error { return nil }

func freeSpace(string) (bytes uint64, known bool) { return 0, false }

// allocate does nothing: the file grows as SQLite writes it.
func (l *lock) allocate(size int64) error { return nil }

// reserve is disk space for the transactions that free space. Here there is none.
type reserve struct{ path string }

func (reserve) fill() {}

func (reserve) shareWith(string) {}

func (reserve) release() bool { return false }

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// lock keeps a store's file for one Store: flock(2) on the file itself, which
// holds whatever name or link leads to it, and ends with the process. SQLite's
// own locks are of fcntl(2), and the two do not see each other.
type lock struct {
	file   *os.File
	id     fileID
	beside *lockFile // where flock will not do
}

type fileID struct{ device, inode uint64 }

func idOf(info fs.FileInfo) fileID {
	s := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(s.Dev), uint64(s.Ino)} // of other types elsewhere
}

// held has the files of this process's Stores. They must not be opened again:
// closing any descriptor of a file drops the locks that SQLite has on it.
var held = struct {
	sync.Mutex
	files map[fileID]bool
}{files: make(map[fileID]bool)}

// acquire takes the lock for the file at path, and creates the file if there is
// none.
func acquire(path string) (_ *lock, err error) {
	held.Lock()
	defer held.Unlock()
	if info, err := os.Stat(path); err == nil && held.files[idOf(info)] {
		return nil, errInUse
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			err = fmt.Errorf("this user must be able to write the file and its directory: %w", err)
		}
		return nil, err
	}
	l := &lock{file: file}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	l.id = idOf(info)
	switch err := flock(file, syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errInUse
	case err == nil && !blocksSQLite(file):
		held.files[l.id] = true
		return l, nil
	}
	// Network file systems make a flock of the locks of fcntl, or have none.
	_ = flock(file, syscall.LOCK_UN)
	if l.beside, err = acquireBeside(path); err != nil {
		return nil, err
	}
	held.files[l.id] = true
	return l, nil
}

func flock(file *os.File, how int) error {
	for {
		if err := syscall.Flock(int(file.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// blocksSQLite says whether the flock on the file keeps this process from locks
// of fcntl. It tries with a byte that SQLite does not use.
func blocksSQLite(file *os.File) bool {
	const unused = 0x40000000 + 1024 // SQLite's are the 512 from 1 GiB on
	probe := syscall.Flock_t{Type: syscall.F_WRLCK, Start: unused, Len: 1}
	if syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &probe) != nil {
		return true
	}
	probe.Type = syscall.F_UNLCK
	_ = syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &probe)
	return false
}

// release comes after SQLite has closed the file.
func (l *lock) release() error {
	held.Lock()
	defer held.Unlock()
	delete(held.files, l.id)
	err := l.file.Close()
	if l.beside != nil {
		err = errors.Join(err, l.beside.Close())
	}
	return err
}

// allocationStep is by how much the file grows at a time.
const allocationStep = 1 << 20

// allocate sees to it that the first size bytes of the file have their place on
// the disk, where the file system knows how to.
func (l *lock) allocate(size int64) error {
	return allocate(l.file, size, allocationStep)
}

// allocate lets the file grow to size, rounded up to a multiple of step if there
// is room for that.
func allocate(file *os.File, size, step int64) error {
	info, err := file.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	for _, end := range []int64{(size + step - 1) / step * step, size} {
		for {
			err = syscall.Fallocate(int(file.Fd()), 0, info.Size(), end-info.Size())
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			return nil // done, or not to be had here
		}
	}
	return err
}

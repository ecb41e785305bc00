package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// lock reserves a store's file for one Store. It is a flock(2) on the file itself, which
// holds under every name of the file, and ends with the process. SQLite's own locks
// use fcntl(2), and the two kinds do not conflict.
type lock struct {
	file   *os.File
	id     fileID
	beside *lockFile // used if flock does not work
}

type fileID struct{ device, inode uint64 }

func idOf(info fs.FileInfo) fileID {
	s := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(s.Dev), uint64(s.Ino)} // their types differ between architectures
}

// held lists the files that Stores of this process have open. They must not be opened
// again: closing any descriptor of a file drops SQLite's locks on it.
var held = struct {
	sync.Mutex
	files map[fileID]bool
}{files: make(map[fileID]bool)}

// acquire takes the lock for the file at path, and creates the file if it does not
// exist.
func acquire(path string) (_ *lock, err error) {
	held.Lock()
	defer held.Unlock()
	if info, err := os.Stat(path); err == nil && held.files[idOf(info)] {
		return nil, ErrInUse
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
		return nil, ErrInUse
	case err == nil && !blocksSQLite(file):
		held.files[l.id] = true
		return l, nil
	}
	// Network file systems emulate flock with fcntl locks, or do not have it.
	_ = flock(file, syscall.LOCK_UN)
	if l.beside, err = acquireBeside(path); err != nil {
		return nil, err
	}
	held.files[l.id] = true
	return l, nil
}

// probe reports why acquire would fail. It creates nothing.
func probe(path string) error {
	held.Lock()
	defer held.Unlock()
	const writeAndSearch = 2 | 1 // W_OK | X_OK of <unistd.h>
	if err := syscall.Access(filepath.Dir(path), writeAndSearch); err != nil {
		return fmt.Errorf("this user must be able to write the directory %s: %w", filepath.Dir(path), err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case held.files[idOf(info)]:
		return ErrInUse
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("this user must be able to write the file: %w", err)
	}
	defer file.Close()
	if errors.Is(flock(file, syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return nil
}

// freeSpace returns how many bytes this user can still write to the disk of a directory.
func freeSpace(dir string) (bytes uint64, known bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}

func flock(file *os.File, how int) error {
	for {
		if err := syscall.Flock(int(file.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// blocksSQLite reports whether the flock on the file keeps this process from taking
// fcntl locks. It tries one on a byte that SQLite does not use.
func blocksSQLite(file *os.File) bool {
	const unused = 0x40000000 + 1024 // SQLite uses the 512 bytes from 1 GiB on
	probe := syscall.Flock_t{Type: syscall.F_WRLCK, Start: unused, Len: 1}
	if syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &probe) != nil {
		return true
	}
	probe.Type = syscall.F_UNLCK
	_ = syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &probe)
	return false
}

// release releases the lock. SQLite must have closed the file.
func (l *lock) release() error {
	held.Lock()
	defer held.Unlock()
	delete(held.files, l.id)
	if l.beside != nil {
		return errors.Join(l.file.Close(), l.beside.Close())
	}
	// A child process that does not run its program yet has this file open, too, and
	// closing the file would leave the lock to it.
	return errors.Join(flock(l.file, syscall.LOCK_UN), l.file.Close())
}

// allocationStep is the step in which the file grows.
const allocationStep = 1 << 20

// allocate reserves disk space for the first size bytes of the file, if the file system
// can.
func (l *lock) allocate(size int64) error {
	return allocate(l.file, size, allocationStep)
}

// allocate grows the file to size, rounded up to a multiple of step if there is space
// for that.
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
			return nil // done, or not supported here
		}
	}
	return err
}

package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A hard link is the same file under another name: two logs to one file would
// overwrite each other.
func TestHardLink(t *testing.T) {
	path, link := filepath.Join(t.TempDir(), "store.db"), filepath.Join(t.TempDir(), "link.db")
	s := openStore(t, path)
	defer closeStore(t, s)
	mustPut(t, s, "chat", "x")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "open", link)
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("another process has opened the link")
	}
	wantError(t, fmt.Errorf("%s", out), "in use")
	other, err := Open(t.Context(), link, Options{})
	if err == nil {
		closeStore(t, other)
	}
	wantError(t, err, "in use")
	// SQLite's own locks are still there: else another program could take itself
	// for the only one that uses the file.
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	const shared = 0x40000000 + 2
	if lock := fmt.Sprintf(":%d %d ", s.lock.id.inode, shared); !strings.Contains(string(locks), lock) {
		t.Errorf("the attempts have dropped SQLite's lock %s; there are\n%s", lock, locks)
	}
	mustPut(t, s, "chat", "y")
}

// The lock file replaces the flock where that does not work, and on other systems.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	l, err := acquireBeside(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquireBeside(path)
	wantError(t, err, "in use")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = acquireBeside(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A child process has every file open for a moment, until it runs its program. It must
// not keep the lock.
func TestReleaseWhileAChildStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejoin.db")
	l, err := acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	child, err := syscall.Dup(int(l.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := l.release(); err != nil {
		t.Fatal(err)
	}
	if l, err = acquire(path); err != nil {
		t.Fatal(err)
	}
	if err := l.release(); err != nil {
		t.Error(err)
	}
}

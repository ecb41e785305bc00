package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// A disk without room, and then with some.
func TestFullDisk(t *testing.T) {
	dir, ok := testserver.SmallDisk(t, "16m")
	if !ok {
		return
	}
	s := openStore(t, filepath.Join(dir, "store.db"))
	defer closeStore(t, s)
	goesOn(t, s)
	filler := testserver.FillDisk(t, dir)
	fails(t, s, feed.ErrUnavailable)
	_, err := put(t.Context(), s, "chat", strings.Repeat("x", 1<<20))
	wantError(t, err, s.path, "the disk is full")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	goesOn(t, s)
	_, err = Open(t.Context(), filepath.Join(dir, "store.db"), Options{})
	wantError(t, err, "in use")
}

// publishUntilFull appends until the store has no room, and returns how many
// events there are.
func publishUntilFull(t *testing.T, s *Store) feed.ID {
	t.Helper()
	for {
		_, err := put(t.Context(), s, "chat", strings.Repeat("x", 20_000))
		if errors.Is(err, feed.ErrUnavailable) {
			return last(t, s, "chat")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sweepAll trims the feed's events and removes them.
func sweepAll(t *testing.T, s *Store, before feed.ID) {
	t.Helper()
	if err := s.Trim(t.Context(), "chat", before); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = s.Sweep(t.Context(), 500, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
}

// Events that are deleted on a full disk make room for new ones, even if the disk
// stays full.
func TestDeleteOnFullDisk(t *testing.T) {
	for _, test := range []struct {
		name    string
		publish int // events before another file fills the disk; 0 to fill it with events
		reopen  bool
	}{
		{"filled by events", 0, false},
		{"filled by events, started again", 0, true},
		{"filled by others", 100, false},
		{"filled by others, started again", 100, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, ok := testserver.SmallDisk(t, "48m")
			if !ok {
				return
			}
			s := openStore(t, filepath.Join(dir, "store.db"))
			defer func() { closeStore(t, s) }()
			for range test.publish {
				mustPut(t, s, "chat", strings.Repeat("x", 20_000))
			}
			if test.publish == 0 {
				publishUntilFull(t, s)
			}
			if test.reopen {
				closeStore(t, s)
			}
			testserver.FillDisk(t, dir)
			if test.reopen {
				s = openStore(t, filepath.Join(dir, "store.db"))
			}
			end := publishUntilFull(t, s)
			checkFeed(t, s, "chat", nil)
			sweepAll(t, s, end-2)
			for range 50 {
				mustPut(t, s, "chat", strings.Repeat("y", 20_000))
			}
			sweepAll(t, s, end+48)
			// A crash at this moment leaves these files.
			w := <-s.writing
			crashed := t.TempDir()
			if out, err := exec.Command("cp", s.path, s.path+"-wal", crashed).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s.writing <- w
			next := openStore(t, filepath.Join(crashed, "store.db"))
			defer closeStore(t, next)
			if got := last(t, next, "chat"); got != end+50 {
				t.Errorf("after a crash, the feed ends at %d, want %d", got, end+50)
			}
			w = <-next.writing
			if got := pragma(t, w.conn, "integrity_check"); got != "ok" {
				t.Errorf("integrity check: %v", got)
			}
			next.writing <- w
		})
	}
}

// A start on a disk without any room at all may succeed later.
func TestOpenOnFullDisk(t *testing.T) {
	dir, ok := testserver.SmallDisk(t, "16m")
	if !ok {
		return
	}
	path := filepath.Join(dir, "store.db")
	storeFile(t, path)
	if err := os.Remove(path + "-reserve"); err != nil {
		t.Fatal(err)
	}
	filler := testserver.FillDisk(t, dir)
	for range 2 {
		_, err := Open(t.Context(), path, Options{})
		if !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, feed.ErrUnavailable)
		}
		wantError(t, err, path, "the disk is full")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, path)
	defer closeStore(t, s)
	if got := last(t, s, "chat"); got != 2000 {
		t.Errorf("the feed ends at %d, want 2000", got)
	}
	if info, err := os.Stat(path + "-reserve"); err != nil || info.Size() != reserveSize {
		t.Errorf("the reserve: got %v, %v; want %d bytes", info, err, reserveSize)
	}
}

// A COMMIT that fails in the middle of its writing leaves the outcome unknown. The
// store still works.
func TestCommitFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := command(t, "limit", path).Run(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, path)
	defer closeStore(t, s)
	checkFeed(t, s, "chat", map[feed.ID]string{1: "before", 2: "after"})
	if got := last(t, s, "chat"); got != 2 {
		t.Errorf("the feed ends at %d, want 2", got)
	}
}

// limitChild appends while the system refuses to let files grow, in a process
// of its own because that is a limit of the process.
func limitChild(path string, _ io.Writer) error {
	// The kernel sends this signal along with the error.
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	if _, err := put(ctx, s, "chat", "before"); err != nil {
		return err
	}
	info, err := os.Stat(path + "-wal")
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	low := syscall.Rlimit{Cur: uint64(info.Size()) + 5000, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &low); err != nil {
		return err
	}
	for range 3 {
		_, err := put(ctx, s, "chat", strings.Repeat("x", 50_000))
		if !errors.Is(err, feed.ErrUncertain) || errors.Is(err, feed.ErrUnavailable) {
			return fmt.Errorf("append over the limit: got %w, want %w", err, feed.ErrUncertain)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if _, err := put(ctx, s, "chat", "after"); err != nil {
		return err
	}
	return s.Close()
}

// The cases run as a user with fewer rights than root.
func TestOpenWithoutPermission(t *testing.T) {
	asNobody := func(t *testing.T, path string) error {
		t.Helper()
		cmd := command(t, "open", path)
		cmd.Stderr = nil
		if os.Getuid() == 0 {
			// Under this name, because other users may not enter the directory that
			// the test binary is built in.
			cmd.Path = "/proc/self/exe"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	place := func(t *testing.T, mode os.FileMode) string {
		t.Helper()
		dir := t.TempDir()
		if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "store.db")
	}
	t.Run("all it needs", func(t *testing.T) {
		if err := asNobody(t, place(t, 0o777)); err != nil {
			t.Error(err)
		}
	})
	t.Run("directory not writable", func(t *testing.T) {
		wantError(t, asNobody(t, place(t, 0o555)), "able to write", "directory", "permission denied")
	})
	t.Run("directory not searchable", func(t *testing.T) {
		path := place(t, 0o700)
		if os.Getuid() != 0 {
			path = place(t, 0o600)
		}
		wantError(t, asNobody(t, path), "permission denied")
	})
	t.Run("file not writable", func(t *testing.T) {
		path := place(t, 0o777)
		storeFile(t, path)
		if err := os.Chmod(path, 0o444); err != nil {
			t.Fatal(err)
		}
		wantError(t, asNobody(t, path), "able to write", "permission denied")
	})
	t.Run("file not readable", func(t *testing.T) {
		path := place(t, 0o777)
		storeFile(t, path)
		if err := os.Chmod(path, 0o000); err != nil {
			t.Fatal(err)
		}
		wantError(t, asNobody(t, path), "able to write", "permission denied")
	})
}

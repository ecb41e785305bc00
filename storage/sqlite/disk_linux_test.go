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

	"github.com/rejoin/rejoin/feed"
)

// A disk without room, which is mounted for the test. Who may not mount runs it
// again in a user namespace, where anybody may.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m")
	if errors.Is(err, syscall.EPERM) && os.Getenv(inNamespace) == "" {
		runInNamespace(t)
		return
	}
	if err != nil {
		t.Fatalf("mount a small disk: %v; run the tests as root, or where user namespaces are allowed", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := openStore(t, filepath.Join(dir, "store.db"))
	defer closeStore(t, s)
	goesOn(t, s)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: got %v, want %v", err, syscall.ENOSPC)
	}
	fails(t, s, feed.ErrUnavailable)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	goesOn(t, s)
	_, err = Open(t.Context(), filepath.Join(dir, "store.db"))
	wantError(t, err, "in use")
}

// A COMMIT that fails in the middle of its writing leaves the outcome unknown;
// the store itself is none the worse for it.
func TestCommitFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := command(t, "limit", path).Run(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, path)
	defer closeStore(t, s)
	checkFeed(t, s, "chat", map[uint64]string{1: "before", 2: "after"})
	if got := last(t, s, "chat"); got != 2 {
		t.Errorf("the feed ends at %d, want 2", got)
	}
}

// limitChild appends while the system refuses to let files grow, in a process
// of its own because that is a limit of the process.
func limitChild(path string, _ io.Writer) error {
	// The system sends it along with the error.
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	s, err := Open(ctx, path)
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

// These run as a user who may do less than root.
func TestOpenWithoutPermission(t *testing.T) {
	asNobody := func(t *testing.T, path string) error {
		t.Helper()
		cmd := command(t, "open", path)
		cmd.Stderr = nil
		if os.Getuid() == 0 {
			// By this name, because nobody else may enter the directory
			// that the test binary is built in.
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
		if err := errors.Join(os.Chmod(path, 0o444), os.Chmod(path+".lock", 0o666)); err != nil {
			t.Fatal(err)
		}
		wantError(t, asNobody(t, path), "able to write", "readonly")
	})
	t.Run("file not readable", func(t *testing.T) {
		path := place(t, 0o777)
		storeFile(t, path)
		if err := errors.Join(os.Chmod(path, 0o000), os.Chmod(path+".lock", 0o666)); err != nil {
			t.Fatal(err)
		}
		wantError(t, asNobody(t, path), "able to write", "permission denied")
	})
}

const inNamespace = "REJOIN_TEST_NAMESPACE"

// runInNamespace runs the test again, as root of namespaces of its own.
func runInNamespace(t *testing.T) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("run as root of a user namespace: %v; run the tests as root, or where user namespaces are allowed\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the test did not run:\n%s", out)
	}
}

package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// refuses demands that every write and Ping fail with an error that has the words,
// and that reads still work.
func refuses(t *testing.T, s *Store, words ...string) {
	t.Helper()
	_, err := put(t.Context(), s, "chat", "lost")
	_, sweepErr := s.Sweep(t.Context(), 100, time.Hour)
	for _, err := range []error{err, s.Trim(t.Context(), "chat", 2), sweepErr, s.Ping(t.Context())} {
		if !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, feed.ErrUnavailable)
		}
		wantError(t, err, words...)
	}
	checkFeed(t, s, "chat", map[feed.ID]string{1: "kept"})
}

func mustPing(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// The store does not write to a file that the next start would not find. It writes
// again once the files are put back.
func TestFileIsTakenAway(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		t.Run("store.db"+suffix, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := openStore(t, path)
			defer func() { closeStore(t, s) }()
			mustPut(t, s, "chat", "kept")
			mustPing(t, s)
			taken, away := path+suffix, filepath.Join(t.TempDir(), "away")
			if err := os.Rename(taken, away); err != nil {
				t.Fatal(err)
			}
			time.Sleep(assumeInPlace)
			refuses(t, s, taken, "removed or renamed")
			if err := os.WriteFile(taken, []byte("another"), 0o644); err != nil {
				t.Fatal(err)
			}
			refuses(t, s, taken, "replaced")
			if err := os.Rename(away, taken); err != nil {
				t.Fatal(err)
			}
			mustPing(t, s)
			mustPut(t, s, "chat", "put back")
			closeStore(t, s)
			s = openStore(t, path)
			checkFeed(t, s, "chat", map[feed.ID]string{1: "kept", 2: "put back"})
		})
	}
}

// A file that is taken away during a commit may or may not contain it.
func TestFileIsTakenAwayDuringACommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	defer closeStore(t, s)
	mustPut(t, s, "chat", "kept")
	s.now = func() time.Time {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Error(err)
		}
		return time.Now()
	}
	_, err := put(t.Context(), s, "chat", "lost?")
	wantError(t, err, path, "removed or renamed")
	if !errors.Is(err, feed.ErrUncertain) {
		t.Errorf("got %v, want %v", err, feed.ErrUncertain)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
}

// A commit right behind another one does not check before it begins. It is not
// acknowledged either.
func TestFileIsTakenAwayBehindACommit(t *testing.T) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		path := filepath.Join(t.TempDir(), "store.db")
		s := openStore(t, path)
		mustPut(t, s, "chat", "kept")
		if err := os.Rename(path+suffix, path+".away"); err != nil {
			t.Fatal(err)
		}
		_, err := put(t.Context(), s, "chat", "lost?")
		if !errors.Is(err, feed.ErrUncertain) && !errors.Is(err, feed.ErrUnavailable) { // which, is a matter of time
			t.Errorf("got %v", err)
		}
		wantError(t, err, path+suffix, "removed or renamed")
		if _, err = put(t.Context(), s, "chat", "lost"); !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("got %v, want %v", err, feed.ErrUnavailable)
		}
		if err := os.Rename(path+".away", path+suffix); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
	}
}

// A removed log loses nothing if the store is closed after that.
func TestLogIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	mustPut(t, s, "chat", "kept")
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(assumeInPlace)
	refuses(t, s, path+"-wal", "stop this server")
	closeStore(t, s)
	s = openStore(t, path)
	defer closeStore(t, s)
	checkFeed(t, s, "chat", map[feed.ID]string{1: "kept"})
}

// A start refuses to create a new file beside the log of a missing one.
func TestStartWithoutTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	mustPut(t, s, "chat", "kept")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	_, err := Open(context.Background(), path, Options{})
	wantError(t, err, "missing", path+"-wal")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	defer closeStore(t, s)
	checkFeed(t, s, "chat", map[feed.ID]string{1: "kept"})
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/storagetest"
	"go.uber.org/goleak"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storagetest.TestStore(t, func(t *testing.T) storagetest.Opener {
		path := filepath.Join(t.TempDir(), "store.db")
		return func(t *testing.T) feed.Store { return openStore(t, path) }
	})
}

// children are the functions of this test binary when it runs as a child of itself.
// The arguments are the child's name and a path.
var children = map[string]func(path string, out io.Writer) error{
	"open":      openChild,
	"append":    appendChild,
	"keys":      keysChild,
	"limit":     limitChild,
	"overwrite": overwriteChild,
}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		if child := children[os.Args[1]]; child != nil {
			if err := child(os.Args[2], os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	goleak.VerifyTestMain(m)
}

// openStore opens a store, which the caller closes.
func openStore(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), path, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// newStore opens a new store for the length of the test.
func newStore(tb testing.TB) *Store {
	tb.Helper()
	s := openStore(tb, filepath.Join(tb.TempDir(), "store.db"))
	tb.Cleanup(func() { closeStore(tb, s) })
	return s
}

func closeStore(tb testing.TB, s *Store) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Error(err)
	}
}

// put appends one event for each data.
func put(ctx context.Context, s *Store, name string, data ...string) ([]feed.Event, error) {
	var b feed.Batch
	for _, d := range data {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: d})
	}
	results, err := s.Append(ctx, []feed.Batch{b})
	if err != nil {
		return nil, err
	}
	return results[0].Events, results[0].Err
}

// mustPut calls put, which has to succeed.
func mustPut(tb testing.TB, s *Store, name string, data ...string) []feed.Event {
	tb.Helper()
	events, err := put(tb.Context(), s, name, data...)
	if err != nil {
		tb.Fatal(err)
	}
	return events
}

// last returns the id at which the feed ends.
func last(tb testing.TB, s *Store, name string) feed.ID {
	tb.Helper()
	bounds, err := s.Bounds(tb.Context(), []string{name})
	if err != nil {
		tb.Fatal(err)
	}
	return bounds[0].Last
}

// pragma returns the value of a pragma of the connection.
func pragma(tb testing.TB, c *conn, name string) any {
	tb.Helper()
	return value(tb, c, "PRAGMA "+name)
}

// value returns the first column of the query's first row.
func value(tb testing.TB, c *conn, query string) any {
	tb.Helper()
	rows, err := c.Query(query, nil)
	if err != nil {
		tb.Fatal(err)
	}
	row := make([]any, len(rows.Columns()))
	values := drivers(row)
	if err := rows.Next(values); err != nil {
		tb.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		tb.Fatal(err)
	}
	return values[0]
}

func TestConnections(t *testing.T) {
	s := newStore(t)
	w, r := <-s.writing, <-s.reading
	defer func() { s.writing <- w; s.reading <- r }()
	if got := pragma(t, w.conn, "journal_mode"); got != "wal" {
		t.Errorf("journal mode is %v, want wal", got)
	}
	if got := pragma(t, w.conn, "synchronous"); got != int64(2) {
		t.Errorf("the writer's synchronous is %v, want 2 (FULL)", got)
	}
	if _, err := r.Exec("DELETE FROM events", nil); err == nil {
		t.Error("a reader can write")
	}
}

// A second store on the file would give the same ids again.
func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "store.db"), filepath.Join(dir, "link.db")
	s := openStore(t, path)
	defer closeStore(t, s)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, link, dir + "/../" + filepath.Base(dir) + "/store.db"} {
		s, err := Open(t.Context(), path, Options{})
		if err == nil {
			closeStore(t, s)
		}
		wantError(t, err, "in use")
	}
	// The attempts have not taken the locks from the store.
	mustPut(t, s, "chat", "x")
	_, err := Open(t.Context(), path, Options{})
	wantError(t, err, "in use")
}

// One of many that open the file at the same time gets it.
func TestOpenAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var wg sync.WaitGroup
	opened := make(chan *Store, 8)
	for range cap(opened) {
		wg.Go(func() {
			if s, err := Open(t.Context(), path, Options{}); err == nil {
				opened <- s
			}
		})
	}
	wg.Wait()
	close(opened)
	if n := len(opened); n != 1 {
		t.Errorf("%d stores are open, want 1", n)
	}
	for s := range opened {
		mustPut(t, s, "chat", "x")
		closeStore(t, s)
	}
}

func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	mustPut(t, s, "chat", "x")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { closeStore(t, s) })
	}
	wg.Wait()
	if _, err := put(t.Context(), s, "chat", "x"); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("append: got %v, want %v", err, feed.ErrStopped)
	}
	if _, err := s.Bounds(t.Context(), nil); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("bounds: got %v, want %v", err, feed.ErrStopped)
	}
	// Everything is in the one file: it can be copied.
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log after close: got %v, want none", err)
	}
}

// A call that waits for the writer ends with its context, and when the store closes.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		w := <-s.writing
		ctx, cancel := context.WithCancel(t.Context())
		answer := make(chan error)
		go func() { _, err := put(ctx, s, "chat", "x"); answer <- err }()
		synctest.Wait()
		cancel()
		if err := <-answer; !errors.Is(err, context.Canceled) || !errors.Is(err, feed.ErrUnavailable) {
			t.Errorf("got %v, want both %v and %v", err, context.Canceled, feed.ErrUnavailable)
		}
		go func() { _, err := put(t.Context(), s, "chat", "x"); answer <- err }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { defer close(closed); closeStore(t, s) }()
		if err := <-answer; !errors.Is(err, feed.ErrStopped) {
			t.Errorf("got %v, want %v", err, feed.ErrStopped)
		}
		s.writing <- w
		<-closed
	})
}

// An append that holds the readers back and a Close that waits for them must
// not wait for each other.
func TestCloseWhileReadersAreHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		limitLog(s, 0)
		gate := make(chan struct{})
		s.now = func() time.Time { <-gate; return time.Now() }
		answer := make(chan error, 1)
		go func() { _, err := put(t.Context(), s, "chat", "x"); answer <- err }()
		synctest.Wait()
		closed := make(chan struct{})
		go func() { defer close(closed); closeStore(t, s) }()
		synctest.Wait()
		close(gate)
		if err := <-answer; err != nil {
			t.Errorf("append: %v", err)
		}
		<-closed
	})
}

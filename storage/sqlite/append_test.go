package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/rejoin/rejoin/feed"
)

func drivers(values []any) []driver.Value {
	row := make([]driver.Value, len(values))
	for i, v := range values {
		row[i] = v
	}
	return row
}

// A clock that is set back must not make times fall: Seek is a binary search by time.
func TestClockSetBack(t *testing.T) {
	s := newStore(t)
	noon := time.Date(2030, 1, 1, 12, 0, 0, 123_456_789, time.UTC)
	var got []time.Time
	for _, at := range []time.Time{noon, noon.Add(-time.Hour), noon.Add(-time.Minute), noon.Add(time.Second)} {
		s.now = func() time.Time { return at }
		got = append(got, mustPut(t, s, "chat", "x")[0].Time)
	}
	first, second := noon.Truncate(time.Millisecond), noon.Add(time.Second).Truncate(time.Millisecond)
	for i, want := range []time.Time{first, first, first, second} {
		if !got[i].Equal(want) {
			t.Errorf("event %d: got %v, want %v", i+1, got[i], want)
		}
	}
	if c, err := s.Seek(t.Context(), "chat", second); err != nil || c != 3 {
		t.Errorf("seek: got %d, %v; want 3", c, err)
	}
	s.now = func() time.Time { return noon.Add(-time.Hour) }
	if got := mustPut(t, s, "news", "x")[0].Time; got.After(first) {
		t.Errorf("a new feed: got %v, want the clock's time", got)
	}
}

func TestCommitError(t *testing.T) {
	tests := []struct {
		code sqlite3.ErrNo
		want error
	}{
		{sqlite3.ErrBusy, feed.ErrUnavailable},
		{sqlite3.ErrLocked, feed.ErrUnavailable},
		{sqlite3.ErrFull, feed.ErrUnavailable},
		{sqlite3.ErrReadonly, feed.ErrUnavailable},
		{sqlite3.ErrConstraint, feed.ErrUnavailable},
		{sqlite3.ErrIoErr, feed.ErrUncertain},
		{sqlite3.ErrNomem, feed.ErrUncertain},
		{sqlite3.ErrCorrupt, feed.ErrUncertain},
		{sqlite3.ErrInterrupt, feed.ErrUncertain},
		{sqlite3.ErrMisuse, feed.ErrUncertain},
	}
	for _, test := range tests {
		cause := sqlite3.Error{Code: test.code}
		err := commitError(cause)
		other := feed.ErrUnavailable
		if test.want == other {
			other = feed.ErrUncertain
		}
		if !errors.Is(err, test.want) || errors.Is(err, other) || !errors.Is(err, cause) {
			t.Errorf("code %d: got %v, want %v", test.code, err, test.want)
		}
	}
	if err := commitError(errors.New("no code")); !errors.Is(err, feed.ErrUncertain) {
		t.Errorf("no code: got %v, want %v", err, feed.ErrUncertain)
	}
}

// fails makes appends that must fail with want, and that must store nothing.
func fails(t *testing.T, s *Store, want error) {
	t.Helper()
	before := last(t, s, "chat")
	for range 3 {
		if _, err := put(t.Context(), s, "chat", strings.Repeat("x", 1<<20)); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	if got := last(t, s, "chat"); got != before {
		t.Errorf("the feed ends at %d, want %d as before", got, before)
	}
}

// goesOn makes an append that must succeed, with the id right after the last.
func goesOn(t *testing.T, s *Store) {
	t.Helper()
	before := last(t, s, "chat")
	if e := mustPut(t, s, "chat", strings.Repeat("x", 1<<20)); e[0].ID != before+1 {
		t.Errorf("got id %d, want %d", e[0].ID, before+1)
	}
}

// Another program, sqlite3 for one, holds the write lock.
func TestBusy(t *testing.T) {
	s := newStore(t)
	goesOn(t, s)
	w := <-s.writing
	pragma(t, w.conn, "busy_timeout = 1")
	s.writing <- w
	other, err := dial(dsn(s.path, "mode=rw"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("BEGIN IMMEDIATE", nil); err != nil {
		t.Fatal(err)
	}
	fails(t, s, feed.ErrUnavailable)
	if _, err := other.Exec("ROLLBACK", nil); err != nil {
		t.Fatal(err)
	}
	goesOn(t, s)
}

// SQLite has no room for another page.
func TestPageLimit(t *testing.T) {
	s := newStore(t)
	goesOn(t, s)
	w := <-s.writing
	pages := pragma(t, w.conn, "page_count").(int64)
	pragma(t, w.conn, "max_page_count = 1") // SQLite raises it to the number that exists
	s.writing <- w
	fails(t, s, feed.ErrUnavailable)
	w = <-s.writing
	if got := pragma(t, w.conn, "page_count"); got != pages {
		t.Errorf("the file has %v pages, want %d as before", got, pages)
	}
	pragma(t, w.conn, "max_page_count = 1000000")
	s.writing <- w
	goesOn(t, s)
}

// A statement fails in the middle of the transaction. All of it is undone, including
// the feeds that it created.
func TestStatementFails(t *testing.T) {
	s := newStore(t)
	goesOn(t, s)
	w := <-s.writing
	if _, err := w.Exec(`CREATE TEMP TRIGGER broken BEFORE INSERT ON events WHEN NEW.data = 'bad'
		BEGIN SELECT RAISE(ABORT, 'broken'); END`, nil); err != nil {
		t.Fatal(err)
	}
	s.writing <- w
	for _, n := range []int{0, 1, 15, 16, 17, 40} {
		drafts := make([]feed.Draft, n)
		for i := range drafts {
			drafts[i] = feed.Draft{Feed: "chat", Data: "good"}
		}
		batches := []feed.Batch{{Drafts: drafts}, {Drafts: []feed.Draft{{Feed: "new", Data: "bad"}}}, {Drafts: drafts}}
		if _, err := s.Append(t.Context(), batches); !errors.Is(err, feed.ErrUnavailable) {
			t.Fatalf("%d before: got %v, want %v", n, err, feed.ErrUnavailable)
		}
	}
	if got := last(t, s, "new"); got != 0 {
		t.Errorf("the new feed ends at %d, want 0", got)
	}
	goesOn(t, s)
	if got := last(t, s, "chat"); got != 2 {
		t.Errorf("the feed ends at %d, want 2", got)
	}
}

// limitLog sets the size at which the log is emptied.
func limitLog(s *Store, bytes int64) {
	w := <-s.writing
	w.walLimit, w.tolerated = bytes, bytes
	s.writing <- w
}

// Readers that never pause must not make the log grow without end.
func TestLogIsBounded(t *testing.T) {
	s := newStore(t)
	limitLog(s, 1<<20)
	mustPut(t, s, "chat", "x")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 * readers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Read(t.Context(), "chat", 0, feed.Limit{Events: 5, Bytes: 1 << 20}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	largest := int64(0)
	for range 50 {
		mustPut(t, s, "chat", strings.Repeat("x", 100_000))
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	cancel()
	wg.Wait()
	if largest > 1<<20+200_000 {
		t.Errorf("the log had %d bytes, the limit is %d", largest, 1<<20)
	}
}

// Another program that reads for long must not hold up appends, nor keep the
// log from being emptied once it is done.
func TestLogInUse(t *testing.T) {
	s := newStore(t)
	limitLog(s, 100_000)
	mustPut(t, s, "chat", "x")
	other, err := dial(dsn(s.path, "mode=ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, query := range []string{"BEGIN", "SELECT last FROM feeds"} {
		if _, err := other.Exec(query, nil); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	began := time.Now()
	for range 10 {
		mustPut(t, s, "chat", strings.Repeat("x", 100_000))
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("10 appends took %v", took)
	}
	large := size()
	if large < 1_000_000 {
		t.Fatalf("the log has %d bytes in spite of the reader", large)
	}
	if _, err := other.Exec("ROLLBACK", nil); err != nil {
		t.Fatal(err)
	}
	smallest := large
	for range 40 {
		mustPut(t, s, "chat", strings.Repeat("x", 100_000))
		smallest = min(smallest, size())
	}
	if smallest > 200_000 {
		t.Errorf("the log has had %d bytes or more since the reader went", smallest)
	}
}

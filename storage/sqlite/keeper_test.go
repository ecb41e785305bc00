package sqlite

import (
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// fastest returns how long the fastest of some calls took.
func fastest(f func()) time.Duration {
	best := time.Hour
	for range 30 {
		began := time.Now()
		f()
		best = min(best, time.Since(began))
	}
	return best
}

// The rows of trimmed events must not slow down a read of the rest.
func TestReadPastTrimmed(t *testing.T) {
	s := newStore(t)
	fill(t, s, "chat", 40_000)
	fill(t, s, "news", 1000)
	if err := s.Trim(t.Context(), "chat", 39_001); err != nil {
		t.Fatal(err)
	}
	read := func(name string, after feed.ID) func() {
		return func() {
			page, err := s.Read(t.Context(), name, after, feed.Limit{Events: 10, Bytes: 1 << 20})
			if err != nil || len(page.Events) != 10 || page.Events[0].ID != page.First {
				t.Fatalf("got %d events of %v, %v", len(page.Events), page.Bounds, err)
			}
		}
	}
	usual := fastest(read("news", 0))
	for _, after := range []feed.ID{0, 1, 20_000, 39_000} {
		if took := fastest(read("chat", after)); took > 5*usual {
			t.Errorf("after %d: a page takes %v, and %v in a feed that was not trimmed", after, took, usual)
		}
	}
}

// A step of sweeping ends early where the events are large.
func TestSweepLargeEvents(t *testing.T) {
	s := newStore(t)
	const size, n = 1 << 20, 12
	for range n {
		mustPut(t, s, "chat", strings.Repeat("x", size))
	}
	if err := s.Trim(t.Context(), "chat", n+1); err != nil {
		t.Fatal(err)
	}
	left := int64(n * size)
	for steps := 1; ; steps++ {
		more, err := s.Sweep(t.Context(), 1000, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.List(t.Context(), "", "", 1)
		if err != nil {
			t.Fatal(err)
		}
		if freed := left - list.Feeds[0].Bytes; freed > sweepBytes+size {
			t.Errorf("step %d has freed %d bytes", steps, freed)
		}
		if left = list.Feeds[0].Bytes; !more {
			break
		}
	}
	if left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

// Rows that are not there, for whatever reason, do not stop a sweep.
func TestSweepMissingRows(t *testing.T) {
	s := newStore(t)
	fill(t, s, "chat", 2000)
	w := <-s.writing
	if _, err := w.Exec("DELETE FROM events WHERE seq < 1500", nil); err != nil {
		t.Fatal(err)
	}
	s.writing <- w
	if err := s.Trim(t.Context(), "chat", 1601); err != nil {
		t.Fatal(err)
	}
	for more, steps := true, 1; more; steps++ {
		var err error
		if more, err = s.Sweep(t.Context(), 50, time.Hour); err != nil || steps > 4 {
			t.Fatalf("step %d: %v", steps, err)
		}
	}
	w = <-s.writing
	defer func() { s.writing <- w }()
	if got := value(t, w.conn, "SELECT count(*) FROM events"); got != int64(400) {
		t.Errorf("%v rows are left, want 400", got)
	}
}

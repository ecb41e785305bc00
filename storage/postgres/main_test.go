package postgres

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/storagetest"
	"github.com/rejoin/rejoin/storage/testserver"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testserver.StopPostgres()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "what was closed has left a goroutine behind:", err)
		code = 1
	}
	os.Exit(code)
}

func TestStore(t *testing.T) {
	t.Parallel()
	storagetest.TestStore(t, func(t *testing.T) storagetest.Opener {
		url := newDatabase(t)
		return func(t *testing.T) feed.Store { return openStore(t, url, Options{}) }
	})
}

func TestNodes(t *testing.T) {
	t.Parallel()
	storagetest.TestNodes(t, func(t *testing.T) storagetest.Opener {
		url := newDatabase(t)
		return func(t *testing.T) feed.Store { return openStore(t, url, Options{}) }
	})
}

// newDatabase makes a database with the tables of an empty store, on the server that
// tests share.
func newDatabase(t testing.TB) string {
	t.Helper()
	return testserver.SharedPostgres(t).NewPrepared(t, func(empty string) error {
		s, err := Open(t.Context(), empty, Options{})
		if err != nil {
			return err
		}
		return s.Close()
	})
}

// openStore opens a store, which the test has to close.
func openStore(t testing.TB, url string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start opens a store for the length of the test.
func start(t testing.TB, url string, o Options) *Store {
	t.Helper()
	s := openStore(t, url, o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// batch returns one batch for one feed.
func batch(name string, data ...string) []feed.Batch {
	var b feed.Batch
	for _, d := range data {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: d})
	}
	return []feed.Batch{b}
}

func publish(t testing.TB, s *Store, name string, data ...string) []feed.Event {
	t.Helper()
	results, err := s.Append(t.Context(), batch(name, data...))
	if err != nil {
		t.Fatal(err)
	}
	if results[0].Err != nil {
		t.Fatal(results[0].Err)
	}
	return results[0].Events
}

func bounds(t testing.TB, s *Store, name string) feed.Bounds {
	t.Helper()
	all, err := s.Bounds(t.Context(), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// stored returns all that a feed holds, and fails the test if that is not 1..N.
func stored(t testing.TB, s *Store, name string) []feed.Event {
	t.Helper()
	page, err := s.Read(t.Context(), name, 0, feed.Limit{Events: 1 << 20, Bytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range page.Events {
		if e.ID != feed.ID(i+1) {
			t.Fatalf("feed %s: event %d has id %d", name, i+1, e.ID)
		}
	}
	if page.Last != feed.ID(len(page.Events)) {
		t.Fatalf("feed %s ends at %d and holds %d events", name, page.Last, len(page.Events))
	}
	return page.Events
}

func wants(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// until returns once ok does, and fails the test if that takes too long.
func until(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited for 30 s")
		}
		time.Sleep(5 * time.Millisecond) // another process gives no signal
	}
}

// ledger records the outcome of each event that a test appended. No two have the same
// data.
type ledger struct {
	acknowledged map[string]feed.Event
	refused      map[string]bool // nothing was stored
	unknown      int
}

func newLedger() *ledger {
	return &ledger{acknowledged: make(map[string]feed.Event), refused: make(map[string]bool)}
}

// enter notes the outcome of an append of one batch.
func (l *ledger) enter(b feed.Batch, results []feed.Result, err error) error {
	if err == nil {
		err = results[0].Err
	}
	for i, d := range b.Drafts {
		switch {
		case err == nil:
			l.acknowledged[d.Data] = results[0].Events[i]
		case errors.Is(err, feed.ErrUnavailable) || errors.Is(err, feed.ErrBusy):
			l.refused[d.Data] = true
		case errors.Is(err, feed.ErrUncertain):
			l.unknown++
		default:
			return err
		}
	}
	return nil
}

// check compares the stored events with the answers.
func (l *ledger) check(events []feed.Event) error {
	seen := make(map[string]bool)
	for _, e := range events {
		if seen[e.Data] {
			return fmt.Errorf("%q is stored twice", e.Data)
		}
		seen[e.Data] = true
		if l.refused[e.Data] {
			return fmt.Errorf("%q is stored, and was refused", e.Data)
		}
		if told, ok := l.acknowledged[e.Data]; ok && told != e {
			return fmt.Errorf("acknowledged as %v, and stored as %v", told, e)
		}
	}
	for data := range l.acknowledged {
		if !seen[data] {
			return fmt.Errorf("%q was acknowledged, and is not stored", data)
		}
	}
	if more := len(seen) - len(l.acknowledged); more > l.unknown {
		return fmt.Errorf("%d events are stored that were not acknowledged, and only %d are unknown", more, l.unknown)
	}
	return nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Appends leave rows behind for feeds in which nothing was stored.
func TestListLeavesOutUnwritten(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	wantStored(t, give(t, s, closing(on("closed", "1"))))
	results, err := s.Append(t.Context(), []feed.Batch{on("chat", "1"), several("x", "refused", "closed"), closing(on("new"))})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, results[1].Err, feed.ErrClosed)
	if got := value(t, url, "SELECT count(*)::text FROM rejoin.feeds WHERE name = 'refused'"); got != "1" {
		t.Fatalf("there are %s rows of the feed, and the test is about one", got)
	}
	for _, prefix := range []string{"", "r"} {
		l, err := s.List(t.Context(), prefix, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, info := range l.Feeds {
			names = append(names, info.Feed)
		}
		if want := []string{"chat", "closed", "new"}; prefix == "" && !slices.Equal(names, want) || prefix != "" && names != nil {
			t.Errorf("prefix %q: got %q", prefix, names)
		}
	}
}

// List may get text that is no feed name, and that Postgres does not accept.
func TestListStrangeNames(t *testing.T) {
	t.Parallel()
	s := start(t, newDatabase(t), Options{})
	for _, name := range []string{"a", "ab", "b"} {
		publish(t, s, name, "x")
	}
	for _, test := range []struct {
		prefix, after string
		want          int
	}{
		{"", "a\x00", 2}, {"", "a\x00b", 2}, {"", "a\xff", 1}, {"", "\xff", 0}, {"", "\x00", 3}, {"", "aé", 1},
		{"a\x00", "", 0}, {"a\xff", "", 0}, {"é", "", 0}, {"\x01", "", 0}, {"a", "a\x7f", 0},
	} {
		l, err := s.List(t.Context(), test.prefix, test.after, 10)
		if err != nil || len(l.Feeds) != test.want {
			t.Errorf("prefix %q, after %q: got %v, %v; want %d", test.prefix, test.after, l.Feeds, err, test.want)
		}
	}
}

// The pages of a busy feed's row are full of its old versions if appends cannot
// update it in place.
func TestAppendsUpdateInPlace(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{PublishConns: 2})
	var updates, inPlace int
	c := connect(t, url)
	until(t, func() bool { // statistics come late
		publish(t, s, "chat", "x")
		err := c.QueryRow(t.Context(), "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'feeds'").Scan(&updates, &inPlace)
		if err != nil {
			t.Fatal(err)
		}
		return updates > 100
	})
	if inPlace < updates*9/10 {
		t.Errorf("%d of %d updates are in place", inPlace, updates)
	}
}

// A trim waits for a feed that is held, up to the lock timeout, and so moves the
// bound of the feed as it is by then.
func TestTrimWaits(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	impatient, s := start(t, url, Options{LockTimeout: 100 * time.Millisecond}), start(t, url, Options{LockTimeout: 20 * time.Second})
	publish(t, s, "chat", "1")
	elsewhere := connect(t, url)
	for _, sql := range []string{
		"BEGIN",
		"UPDATE rejoin.feeds SET last = 2, bytes = 2 WHERE name = 'chat'",
		"INSERT INTO rejoin.events (feed, seq, type, data, json, time) SELECT feed, 2, '', '2', false, time FROM rejoin.events",
	} {
		if _, err := elsewhere.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, impatient.Trim(t.Context(), "chat", 9), feed.ErrBusy)
	trimmed := make(chan error, 1)
	go func() { trimmed <- s.Trim(t.Context(), "chat", 9) }()
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
	})
	if _, err := elsewhere.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-trimmed; err != nil {
		t.Fatal(err)
	}
	if b := bounds(t, s, "chat"); b != (feed.Bounds{First: 3, Last: 2}) {
		t.Errorf("got bounds %v", b)
	}
	sound(t, url)
}

// A sweep leaves out feeds that other transactions hold, and sweeps the rest.
func TestSweepLeavesOutHeld(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	const feeds = 10
	for i := range feeds {
		name := fmt.Sprintf("chat:%d", i)
		publish(t, s, name, "1", "2", "3")
		if err := s.Trim(t.Context(), name, 3); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := connect(t, url)
	for _, sql := range []string{"BEGIN", "UPDATE rejoin.feeds SET updated = updated WHERE name <> 'chat:7'"} {
		if _, err := elsewhere.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		return value(t, url, "SELECT count(*)::text FROM rejoin.events WHERE seq < 3 AND feed = (SELECT id FROM rejoin.feeds WHERE name = 'chat:7')")
	}
	until(t, func() bool {
		began := time.Now()
		more, err := s.Sweep(t.Context(), 100, time.Hour)
		if took := time.Since(began); err != nil || took > 5*time.Second {
			t.Fatalf("sweep: %v after %v", err, took)
		}
		if left() == "2" {
			return false
		}
		return !more // held feeds are not a reason to go on at once
	})
	sound(t, url)
	if _, err := elsewhere.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = s.Sweep(t.Context(), 7, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if got := value(t, url, "SELECT count(*)::text FROM rejoin.events"); got != fmt.Sprint(feeds) {
		t.Errorf("%s events are left, want %d", got, feeds)
	}
	sound(t, url)
}

// While another node sweeps a hundred thousand events of the feed, appends to it
// are as quick as ever, or nearly so.
func TestSweepHoldsUpNobody(t *testing.T) {
	url := newDatabase(t)
	s, sweeper := start(t, url, Options{}), start(t, url, Options{})
	const given = 40_000
	publish(t, s, "chat", "1")
	for _, sql := range []string{
		fmt.Sprintf(`INSERT INTO rejoin.events (feed, seq, time, json, type, data)
			SELECT f.id, n, f.updated, false, '', repeat('x', 200) FROM rejoin.feeds f, generate_series(2, %d) n`, given),
		fmt.Sprintf("UPDATE rejoin.feeds SET last = %d, bytes = 1 + 200 * (%[1]d - 1)", given),
	} {
		execute(t, url, sql)
	}
	quiet := timed(appendUntil(t, s, func(n int) bool { return n == 500 }))
	if err := s.Trim(t.Context(), "chat", given+1); err != nil {
		t.Fatal(err)
	}
	swept := make(chan struct{})
	var steps int
	c := connect(t, url)
	go func() {
		defer close(swept)
		for left := true; left; steps++ {
			if _, err := sweeper.Sweep(t.Context(), 500, time.Hour); err != nil {
				t.Error(err)
				return
			}
			if err := c.QueryRow(t.Context(), "SELECT swept < first FROM rejoin.feeds").Scan(&left); err != nil {
				t.Error(err)
				return
			}
			<-time.After(10 * time.Millisecond) // retention waits, too
		}
	}()
	during := timed(appendUntil(t, s, func(int) bool {
		select {
		case <-swept:
			return true
		default:
			return false
		}
	}))
	t.Logf("p99 of appends: %v, and %v while sweeping (%d appends, %d steps)", quiet.p99, during.p99, during.n, steps)
	if during.p99 > 100*time.Millisecond+5*quiet.p99 {
		t.Errorf("an append in a hundred took more than %v while sweeping", during.p99)
	}
	if steps < given/500 || during.n < 100 {
		t.Errorf("%d steps, and %d appends meanwhile: the test is about more", steps, during.n)
	}
	if got, want := value(t, url, "SELECT count(*)::text FROM rejoin.events"), fmt.Sprint(500+during.n); got != want {
		t.Errorf("%s events are left, want %s", got, want)
	}
	sound(t, url)
}

// appendUntil appends one event after the other, and returns the time of each append.
func appendUntil(t *testing.T, s *Store, done func(n int) bool) (took []time.Duration) {
	t.Helper()
	for n := 0; !done(n); n++ {
		began := time.Now()
		publish(t, s, "chat", "x")
		took = append(took, time.Since(began))
	}
	return took
}

type timing struct {
	n   int
	p99 time.Duration
}

func timed(took []time.Duration) timing {
	slices.Sort(took)
	return timing{len(took), took[len(took)*99/100]}
}

// When the session that holds the lock is lost, another node may run its own
// function, and the context of the first ends.
func TestAloneEndsWithItsSession(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	a, b := start(t, url, Options{}), start(t, url, Options{})
	began := time.Now()
	ran, err := a.RunExclusive(t.Context(), func(ctx context.Context) error {
		execute(t, url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rejoin alone' AND datname = current_database()")
		<-ctx.Done()
		until(t, func() bool {
			ran, err := b.RunExclusive(t.Context(), func(context.Context) error { return nil })
			return ran && err == nil
		})
		return ctx.Err()
	})
	if !ran {
		t.Error("it did not run")
	}
	wants(t, err, feed.ErrUnavailable)
	wants(t, err, context.Canceled)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

// Close ends a function that runs alone, and waits for it.
func TestCloseEndsAlone(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := openStore(t, url, Options{})
	running, ended := make(chan struct{}), make(chan error, 1)
	var over sync.WaitGroup
	over.Go(func() {
		_, err := s.RunExclusive(t.Context(), func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			return ctx.Err()
		})
		ended <- err
	})
	<-running
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	over.Wait()
	wants(t, <-ended, feed.ErrStopped)
	if _, err := s.RunExclusive(t.Context(), func(context.Context) error { return nil }); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("a closed store: got %v", err)
	}
}

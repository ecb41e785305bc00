package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// runSQL runs statements in a session.
func runSQL(t testing.TB, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// idFrom runs a statement that returns the id of an event.
func idFrom(t testing.TB, c *pgx.Conn, sql string, args ...any) (id int64) {
	t.Helper()
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&id); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return id
}

// failsWith runs a statement that fails with this SQLSTATE, and returns the error.
func failsWith(t testing.TB, c *pgx.Conn, want, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := c.Exec(t.Context(), sql, args...)
	if state(err) != want {
		t.Fatalf("%s: got %v, want %s", sql, err, want)
	}
	e, _ := errors.AsType[*pgconn.PgError](err)
	return e
}

// Committed events appear as if a node had appended them. A rollback leaves no hole,
// of a whole transaction or of a part.
func TestAppendInTransaction(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	c := connect(t, url)
	runSQL(t, c, "CREATE TABLE orders (id int)", "BEGIN", "INSERT INTO orders VALUES (7)")
	if got := idFrom(t, c, `SELECT rejoin_append('orders', 'order.created', '{"id":7}')`); got != 1 {
		t.Errorf("got id %d, want 1", got)
	}
	if b := bounds(t, s, "orders"); b != feed.Unwritten {
		t.Errorf("before the commit: got bounds %v", b)
	}
	runSQL(t, c, "COMMIT")
	runSQL(t, c, "BEGIN", "SELECT rejoin_append_text('orders', NULL, 'never')", "SELECT rejoin_append('never', '', '1')", "ROLLBACK")
	runSQL(t, c, "BEGIN",
		"SELECT rejoin_append_text('orders', 'message', E'a\\r\\nb\\rc')",
		"SAVEPOINT s", "SELECT rejoin_append_text('orders', '', 'never')", "SELECT rejoin_append_text('other', '', 'never')", "ROLLBACK TO s",
		"SELECT rejoin_append_text('orders', '', 'after')", "SELECT rejoin_append_text('other', '', 'first')",
		"COMMIT")
	// An exception that a function of the caller handles undoes its part, too.
	runSQL(t, c, `DO $$ BEGIN
		PERFORM rejoin_append_text('orders', '', 'kept');
		BEGIN
			PERFORM rejoin_append_text('orders', '', 'never');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			PERFORM rejoin_append_text('orders', '', 'instead');
		END;
	END $$`)
	runSQL(t, c, "SELECT rejoin_append_text('orders', '', 'last', close => true)")
	publish(t, s, "other", "second")
	got := stored(t, s, "orders")
	want := []feed.Event{
		{Type: "order.created", Data: `{"id": 7}`, JSON: true}, {Data: "a\nb\nc"}, {Data: "after"}, {Data: "kept"}, {Data: "instead"}, {Data: "last"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i, w := range want {
		w.Feed, w.ID, w.Time = "orders", got[i].ID, got[i].Time
		if got[i] != w {
			t.Errorf("got %+v, want %+v", got[i], w)
		}
		if age := time.Since(got[i].Time); age < 0 || age > time.Minute {
			t.Errorf("event %d is %v old", i+1, age)
		}
	}
	if got := stored(t, s, "other"); len(got) != 2 || got[0].Data != "first" {
		t.Errorf("got %v", got)
	}
	if b := bounds(t, s, "orders"); !b.Closed {
		t.Error("the feed is open")
	}
	if b := bounds(t, s, "never"); b != feed.Unwritten {
		t.Errorf("got bounds %v of a feed that was never made", b)
	}
	sound(t, url)
}

// Applications and nodes append to one feed at the same time.
func TestAppendBesideNodes(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	const writers, rounds = 8, 40
	nodes := []*Store{start(t, url, Options{LockTimeout: time.Minute}), start(t, url, Options{LockTimeout: time.Minute})}
	var writing sync.WaitGroup
	kept := make([]int, writers)
	for w := range writers {
		c := connect(t, url)
		rng := rand.New(rand.NewPCG(1, uint64(w)))
		writing.Go(func() {
			for n := range rounds {
				tx, err := c.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				events := 1 + rng.IntN(3)
				for i := range events {
					if _, err := tx.Exec(t.Context(), "SELECT rejoin_append_text('chat', '', $1)", fmt.Sprintf("%d %d %d", w, n, i)); err != nil {
						t.Error(err)
					}
				}
				if rng.IntN(4) == 0 {
					err = tx.Rollback(t.Context())
				} else {
					kept[w] += events
					err = tx.Commit(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i, s := range nodes {
		writing.Go(func() {
			for n := range rounds {
				b := batch("chat", fmt.Sprintf("node %d %d", i, n))
				b[0].NoWait = n%2 == 0
				results, err := s.Append(t.Context(), b)
				for err == nil && errors.Is(results[0].Err, feed.ErrBusy) {
					b[0].NoWait = false
					results, err = s.Append(t.Context(), b)
				}
				if err != nil || results[0].Err != nil {
					t.Error(err, results)
				}
			}
		})
	}
	writing.Wait()
	want := len(nodes) * rounds
	for _, n := range kept {
		want += n
	}
	if got := stored(t, nodes[0], "chat"); len(got) != want {
		t.Errorf("%d events are stored, want %d", len(got), want)
	}
	sound(t, url)
}

// Two transactions that write to two feeds in opposite order wait for each other:
// Postgres ends one, and the other goes on.
func TestAppendDeadlock(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	one, two := connect(t, url), connect(t, url)
	runSQL(t, one, "BEGIN", "SET LOCAL deadlock_timeout = '50ms'", "SELECT rejoin_append_text('a', '', '1')")
	runSQL(t, two, "BEGIN", "SET LOCAL deadlock_timeout = '1h'", "SELECT rejoin_append_text('b', '', '2')")
	waiting := make(chan error)
	go func() {
		_, err := two.Exec(t.Context(), "SELECT rejoin_append_text('a', '', '2')")
		waiting <- err
	}()
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
	})
	failsWith(t, one, "40P01", "SELECT rejoin_append_text('b', '', '1')")
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	runSQL(t, one, "ROLLBACK")
	runSQL(t, two, "COMMIT")
	for _, name := range []string{"a", "b"} {
		if got := stored(t, s, name); len(got) != 1 || got[0].Data != "2" {
			t.Errorf("feed %s: got %v", name, got)
		}
	}
}

// A transaction whose snapshot is older than a change of the feed fails. It never
// decides by the old state.
func TestAppendOldSnapshot(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{KeyWindow: time.Hour})
	const expire = "UPDATE rejoin.keys SET time = time - 3600001 WHERE key = 'old'"
	other := connect(t, url)
	for _, level := range []string{"REPEATABLE READ", "SERIALIZABLE"} {
		for i, test := range []struct{ before, since, then string }{
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2')", "SELECT rejoin_append_text($f, '', '3')"},
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2')", "SELECT rejoin_append_text($f, '', '3', if_last => 1)"},
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2')", "SELECT rejoin_append_text($f, '', '3', if_last => 2)"},
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2', close => true)", "SELECT rejoin_append_text($f, '', '3')"},
			{"SELECT 1", "SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2')"},
			{"SELECT 1", "SELECT rejoin_append_text($f, '', '1', close => true)", "SELECT rejoin_append_text($f, '', '2', if_last => 0)"},
			{"SELECT 1", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')"},
			{"SELECT 1", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'k')"},
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'k')", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'k')"},
			{"SELECT rejoin_append_text($f, '', '1')", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'k', close => true)", "SELECT rejoin_append_text($f, '', '3', idempotency_key => 'k')"},
			{"SELECT rejoin_append_text($f, '', '1', idempotency_key => 'old'); " + expire, "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'old')", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'old')"},
		} {
			on := func(sql string) string { return strings.ReplaceAll(sql, "$f", fmt.Sprintf("'f%d:%.1s'", i, level)) }
			runSQL(t, other, on(test.before))
			c := connect(t, url)
			runSQL(t, c, "BEGIN ISOLATION LEVEL "+level, "SELECT count(*) FROM rejoin.feeds")
			runSQL(t, other, on(test.since))
			failsWith(t, c, "40001", on(test.then))
			// For another feed, and for enqueueing, the snapshot does not matter.
			runSQL(t, c, "ROLLBACK", "BEGIN ISOLATION LEVEL "+level, "SELECT count(*) FROM rejoin.feeds")
			runSQL(t, other, on("SELECT rejoin_append_text('elsewhere', '', 'x')"))
			runSQL(t, c, on("SELECT rejoin_append_text('own:' || $f, '', 'x')"), on("SELECT rejoin_enqueue_text($f, '', 'x')"), "COMMIT")
		}
	}
	// A key in the snapshot is known, whatever has happened to the feed, because keys
	// do not change.
	runSQL(t, other, "SELECT rejoin_append_text('replay', '', '1', idempotency_key => 'k')")
	c := connect(t, url)
	runSQL(t, c, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM rejoin.feeds")
	runSQL(t, other, "SELECT rejoin_append_text('replay', '', '2', close => true)")
	if got := idFrom(t, c, "SELECT rejoin_append_text('replay', '', '1', idempotency_key => 'k')"); got != 1 {
		t.Errorf("a replay has id %d, want 1", got)
	}
	failsWith(t, c, "RJ422", "SELECT rejoin_append_text('replay', '', '2', idempotency_key => 'k')")
	runSQL(t, c, "ROLLBACK")
	if got := len(stored(t, s, "f0:R")); got != 2 {
		t.Errorf("the feed holds %d events, want 2", got)
	}
	sound(t, url)
}

// One transaction waits for another that creates the feed, or stores the key, and
// then decides by the outcome.
func TestAppendWaits(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	for i, test := range []struct {
		first, end, second string
		want               int64
		err                string
	}{
		{"SELECT rejoin_append_text($f, '', '1')", "COMMIT", "SELECT rejoin_append_text($f, '', '2')", 2, ""},
		{"SELECT rejoin_append_text($f, '', '1')", "ROLLBACK", "SELECT rejoin_append_text($f, '', '2')", 1, ""},
		{"SELECT rejoin_append_text($f, '', '1')", "COMMIT", "SELECT rejoin_append_text($f, '', '2', if_last => 0)", 0, "RJ412"},
		{"SELECT rejoin_append_text($f, '', '1')", "ROLLBACK", "SELECT rejoin_append_text($f, '', '2', if_last => 0)", 1, ""},
		{"SELECT rejoin_append_text($f, '', '1', close => true)", "COMMIT", "SELECT rejoin_append_text($f, '', '2')", 0, "RJ409"},
		{"SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", "COMMIT", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", 1, ""},
		{"SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", "ROLLBACK", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", 1, ""},
		{"SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k')", "COMMIT", "SELECT rejoin_append_text($f, '', '2', idempotency_key => 'k')", 0, "RJ422"},
		{"SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k', close => true)", "COMMIT", "SELECT rejoin_append_text($f, '', '1', idempotency_key => 'k', close => true)", 1, ""},
	} {
		for _, exists := range []bool{false, true} {
			name := fmt.Sprintf("f%d:%t", i, exists)
			on := func(sql string) string { return strings.ReplaceAll(sql, "$f", "'"+name+"'") }
			if exists {
				execute(t, url, "INSERT INTO rejoin.feeds (name) VALUES ($1)", name)
			}
			one, two := connect(t, url), connect(t, url)
			runSQL(t, one, "BEGIN", on(test.first))
			var got int64
			done := make(chan error)
			go func() { done <- two.QueryRow(t.Context(), on(test.second)).Scan(&got) }()
			until(t, func() bool {
				return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
			})
			runSQL(t, one, test.end)
			if err := <-done; state(err) != test.err || got != test.want {
				t.Errorf("%s, %s, %s: got %d, %v; want %d, %s", on(test.first), test.end, on(test.second), got, err, test.want, test.err)
			}
		}
	}
	stored(t, s, "f0:true")
	sound(t, url)
}

// An event that a subscriber may have seen has to be on the disk.
func TestTransactionsAreDurable(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	start(t, url, Options{})
	c := connect(t, url)
	for _, test := range []struct{ has, sql, want string }{
		{"off", "SELECT rejoin_append_text('a', '', 'x')", "on"},
		{"local", "SELECT rejoin_append_text('a', '', 'x')", "local"},
		{"remote_apply", "SELECT rejoin_append_text('a', '', 'x')", "remote_apply"},
		{"off", "SELECT rejoin_enqueue_text('a', '', 'x'); SET CONSTRAINTS ALL IMMEDIATE", "on"},
		{"local", "SELECT rejoin_enqueue_text('a', '', 'x'); SET CONSTRAINTS ALL IMMEDIATE", "local"},
		{"off", "SELECT 1", "off"},
	} {
		runSQL(t, c, "SET synchronous_commit = "+test.has, "BEGIN", test.sql)
		var inside, after string
		err := c.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&inside)
		runSQL(t, c, "COMMIT")
		err = errors.Join(err, c.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&after))
		if err != nil || inside != test.want || after != test.has {
			t.Errorf("%s with %s: got %s, then %s, %v", test.sql, test.has, inside, after, err)
		}
	}
	// A part that is rolled back takes its change with it, and the next sets it again.
	runSQL(t, c, "SET synchronous_commit = off", "BEGIN", "SAVEPOINT s", "SELECT rejoin_append_text('a', '', 'x')", "ROLLBACK TO s",
		"SAVEPOINT s", "SELECT rejoin_append_text('a', '', 'x')", "RELEASE s")
	var got string
	if err := c.QueryRow(t.Context(), "SHOW synchronous_commit").Scan(&got); err != nil || got != "on" {
		t.Errorf("after a savepoint: got %s, %v", got, err)
	}
	runSQL(t, c, "COMMIT")
}

// A transaction notifies once for each feed, and once for the queue.
func TestTransactionsNotify(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	start(t, url, Options{})
	c, listener := connect(t, url), connect(t, url)
	runSQL(t, listener, "LISTEN rejoin")
	runSQL(t, c, "BEGIN", "SELECT rejoin_append_text('rolled', '', 'back')", "SELECT rejoin_enqueue_text('rolled', '', 'back')", "ROLLBACK",
		"BEGIN", "SELECT rejoin_append_text(name, '', 'x') FROM generate_series(1, 50), (VALUES ('a'), ('b')) AS f (name)",
		"SAVEPOINT s", "SELECT rejoin_append_text('a', '', 'x')", "RELEASE s",
		"SELECT rejoin_enqueue_text('a', '', 'x') FROM generate_series(1, 50)", "COMMIT", "NOTIFY rejoin, 'end'")
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(got) == 0 || got[len(got)-1] != "end" {
		n, err := listener.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.Payload)
	}
	if want := "append a, append b, queue, end"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

// Postgres refuses to prepare a transaction that has notified.
func TestPrepareTransaction(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "ALTER SYSTEM SET max_prepared_transactions = 2")
	p.Stop(t, testserver.Fast)
	p.Start(t)
	url := p.NewDatabase(t)
	s := start(t, url, Options{})
	c := connect(t, url)
	for _, sql := range []string{"SELECT rejoin_append_text('a', '', 'x')", "SELECT rejoin_enqueue_text('a', '', 'x')"} {
		runSQL(t, c, "BEGIN", sql)
		failsWith(t, c, "0A000", "PREPARE TRANSACTION 'p'")
		runSQL(t, c, "ROLLBACK")
	}
	publish(t, s, "a", "x") // nothing holds the feed
}

// Limits are those of the store that was opened last, and opening one that changes
// nothing writes nothing.
func TestLimits(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	const limits = "SELECT concat_ws(' ', xmin, event_bytes, key_window) FROM rejoin.limits"
	start(t, url, Options{})
	first := value(t, url, limits)
	if !strings.HasSuffix(first, " 60000 86400000") {
		t.Errorf("got the limits %q", first)
	}
	start(t, url, Options{})
	if got := value(t, url, limits); got != first {
		t.Errorf("got the row %q, want that of before, %q", got, first)
	}
	start(t, url, Options{EventBytes: 10, KeyWindow: time.Minute})
	if got := value(t, url, limits); !strings.HasSuffix(got, " 10 60000") {
		t.Errorf("got the limits %q", got)
	}
	c := connect(t, url)
	runSQL(t, c, "SELECT rejoin_append_text('a', '', '1234567890')")
	failsWith(t, c, "RJ413", "SELECT rejoin_append_text('a', '', '12345678901')")
	failsWith(t, c, "RJ413", "SELECT rejoin_enqueue_text('a', '', '12345678901')")
	start(t, url, Options{EventBytes: 11})
	runSQL(t, c, "SELECT rejoin_append_text('a', '', '12345678901')")
}

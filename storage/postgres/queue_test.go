package postgres

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/storage/testserver"
)

// readQueue returns the next rows above a place, of all feeds but those left out.
func readQueue(t testing.TB, c *pgx.Conn, after int64, limit int, leftOut ...string) []queued {
	t.Helper()
	rows, err := c.Query(t.Context(), query("read_queue"), after, append([]string{}, leftOut...), limit)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q queued, err error) {
		return q, row.Scan(&q.place, &q.draft.Feed, &q.draft.Type, &q.draft.Data, &q.draft.JSON, &q.key, &q.close)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// inQueue returns the data of all rows of the queue, in their order.
func inQueue(t testing.TB, c *pgx.Conn) (data []string) {
	t.Helper()
	for _, q := range readQueue(t, c, 0, 1<<20) {
		data = append(data, q.draft.Data)
	}
	return data
}

func wantQueue(t testing.TB, c *pgx.Conn, want string) {
	t.Helper()
	if got := strings.Join(inQueue(t, c), " "); got != want {
		t.Errorf("the queue has %q, want %q", got, want)
	}
}

// Rows are in the order of the commits, in whatever order they were enqueued, and
// whichever part of a transaction was undone.
func TestEnqueue(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	c, one, two := connect(t, url), connect(t, url), connect(t, url)
	enqueue := func(data string) string { return "SELECT rejoin_enqueue_text('chat', 'note', '" + data + "')" }
	runSQL(t, one, "BEGIN", enqueue("1a"))
	runSQL(t, two, "BEGIN", enqueue("2a"), "SAVEPOINT s", enqueue("never"), "ROLLBACK TO s", enqueue("2b"))
	runSQL(t, c, "BEGIN", enqueue("never"), "ROLLBACK", enqueue("0"))
	runSQL(t, one, enqueue("1b"))
	wantQueue(t, c, "0")
	runSQL(t, two, "COMMIT")
	runSQL(t, one, enqueue("1c"), "COMMIT")
	wantQueue(t, c, "0 2a 2b 1a 1b 1c")
	// The feed is neither locked nor made, and no id is used.
	publish(t, s, "chat", "x")
	if b := bounds(t, s, "chat"); b.Last != 1 {
		t.Errorf("got bounds %v", b)
	}

	// Constraints that are made immediate take the place at once and hold it.
	// Transactions that commit meanwhile wait, and come later.
	runSQL(t, c, "TRUNCATE rejoin.queue, rejoin.queue_places")
	runSQL(t, one, "BEGIN", enqueue("1a"), "SAVEPOINT s", "SET CONSTRAINTS ALL IMMEDIATE", enqueue("never"), "ROLLBACK TO s")
	runSQL(t, two, enqueue("2")) // undoing the part has freed the place
	runSQL(t, one, "SET CONSTRAINTS ALL IMMEDIATE", enqueue("1b"))
	done := make(chan error)
	go func() {
		_, err := two.Exec(t.Context(), enqueue("3"))
		done <- err
	}()
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") != "0"
	})
	runSQL(t, one, "SET CONSTRAINTS ALL DEFERRED", enqueue("1c"), "COMMIT")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantQueue(t, c, "2 1a 1b 1c 3")
	if got := value(t, url, "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); got != "0" {
		t.Errorf("%s advisory locks are left", got)
	}
	if !strings.Contains(value(t, url, "SELECT prosrc FROM pg_proc WHERE proname = 'place_queued'"), fmt.Sprintf("(%d)", int64(queueLock))) {
		t.Error("the trigger takes another lock than queueLock")
	}
}

// Whenever one commit had returned before another began, its rows come first, and the
// rows of a transaction stay together and in order.
func TestQueueOrder(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	start(t, url, Options{})
	const writers, rounds = 8, 60
	type commit struct{ began, ended time.Time }
	commits := make([][rounds]commit, writers)
	var writing sync.WaitGroup
	for w := range writers {
		c := connect(t, url)
		rng := rand.New(rand.NewPCG(4, uint64(w)))
		writing.Go(func() {
			for n := range rounds {
				tx, err := c.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: []pgx.TxIsoLevel{"read committed", "repeatable read", "serializable"}[rng.IntN(3)]})
				if err != nil {
					t.Error(err)
					return
				}
				rows := 1 + rng.IntN(4)
				for i := range rows {
					if _, err := tx.Exec(t.Context(), "SELECT rejoin_enqueue_text($1, '', $2)", fmt.Sprint("feed:", rng.IntN(3)), fmt.Sprintf("%d %d %d %d", w, n, i, rows)); err != nil {
						t.Error(err)
					}
				}
				if rng.IntN(5) == 0 {
					_ = tx.Rollback(t.Context())
					continue
				}
				began := time.Now()
				if err := tx.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				commits[w][n] = commit{began, time.Now()}
			}
		})
	}
	// A reader that follows the places misses nothing: no row appears below one that
	// it has seen.
	reader := connect(t, url)
	var seen []queued
	stop := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		for {
			last := false
			select {
			case <-stop:
				last = true
			default:
			}
			after := int64(0)
			if len(seen) > 0 {
				after = seen[len(seen)-1].place
			}
			rows := readQueue(t, reader, after, 7)
			seen = append(seen, rows...)
			if last && len(rows) == 0 {
				return
			}
		}
	})
	writing.Wait()
	close(stop)
	following.Wait()
	all := readQueue(t, connect(t, url), 0, 1<<20)
	if !slices.Equal(dataOf(all), dataOf(seen)) {
		t.Errorf("a reader that follows has seen %d rows, and %d are there", len(seen), len(all))
	}
	var order []commit
	total := 0
	for at := 0; at < len(all); {
		var w, n, i, rows int
		for k := range 4 {
			if at == len(all) {
				break
			}
			var w2, n2 int
			if _, err := fmt.Sscan(all[at].draft.Data, &w2, &n2, &i, &rows); err != nil {
				t.Fatal(err)
			}
			if k == 0 {
				w, n = w2, n2
			}
			if w2 != w || n2 != n || i != k {
				t.Fatalf("row %d is %q, want row %d of transaction %d %d", at, all[at].draft.Data, k, w, n)
			}
			if at++; i == rows-1 {
				break
			}
		}
		order = append(order, commits[w][n])
		total++
	}
	var newest time.Time // the latest begin of a commit so far
	for i, c := range order {
		if c.ended.Before(newest) {
			t.Errorf("transaction %d had committed before an earlier one began to", i)
		}
		if c.began.After(newest) {
			newest = c.began
		}
	}
	want := 0
	for w := range commits {
		for _, c := range commits[w] {
			if !c.ended.IsZero() {
				want++
			}
		}
	}
	if total != want {
		t.Errorf("the queue has %d transactions, want %d", total, want)
	}
}

func dataOf(rows []queued) (data []string) {
	for _, q := range rows {
		data = append(data, q.draft.Data)
	}
	return data
}

// A transaction that stays open, with or without something to enqueue, holds up
// nothing that has committed.
func TestQueueBesideOpenTransactions(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	start(t, url, Options{})
	c, idle, writer := connect(t, url), connect(t, url), connect(t, url)
	runSQL(t, idle, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM rejoin.queue")
	runSQL(t, writer, "BEGIN", "SELECT rejoin_enqueue_text('a', '', 'late')", "SELECT rejoin_append_text('a', '', 'held')")
	runSQL(t, c, "SET statement_timeout = '5s'", "SELECT rejoin_enqueue_text('a', '', '1')", "SELECT rejoin_enqueue_text('a', '', '2')")
	wantQueue(t, c, "1 2")
	runSQL(t, writer, "COMMIT")
	wantQueue(t, c, "1 2 late")
}

// The statements that a node drains the queue with.
func TestDrainStatements(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	c := connect(t, url)
	runSQL(t, c, "SELECT rejoin_enqueue('a', 't', '{\"n\":1}', idempotency_key => 'k', close => true)", "SELECT rejoin_enqueue_text('b', '', '2')",
		"SELECT rejoin_enqueue_text('c', '', '3')", "SELECT rejoin_enqueue_text('a', '', '4')")
	rows := readQueue(t, c, 0, 2)
	if len(rows) != 2 || rows[0].key == nil {
		t.Fatalf("got %v", rows)
	}
	if q := rows[0]; q.draft.Feed != "a" || q.draft.Type != "t" || q.draft.Data != `{"n": 1}` || !q.draft.JSON || *q.key != "k" || !q.close {
		t.Errorf("got %+v", q)
	}
	if q := rows[1]; q.draft.Feed != "b" || q.draft.Type != "" || q.draft.Data != "2" || q.draft.JSON || q.key != nil || q.close {
		t.Errorf("got %+v", q)
	}
	if got := readQueue(t, c, 0, 10, "a", "b"); len(got) != 1 || got[0].draft.Feed != "c" {
		t.Errorf("got %v", got)
	}
	if got := readQueue(t, c, rows[0].place, 10); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	tag, err := c.Exec(t.Context(), query("delete_queue"), []int64{rows[1].place})
	if err != nil || tag.RowsAffected() != 1 {
		t.Errorf("deleted %d rows, %v", tag.RowsAffected(), err)
	}
	tag, err = c.Exec(t.Context(), query("refuse_queue"), []int64{rows[0].place}, []string{"feed closed: a"})
	if err != nil || tag.RowsAffected() != 1 {
		t.Errorf("refused %d rows, %v", tag.RowsAffected(), err)
	}
	wantQueue(t, c, "3 4")
	if got := value(t, url, "SELECT concat_ws('|', feed, type, data, json, idempotency_key, close, enqueued < refused, reason) FROM rejoin.refused"); got != `a|t|{"n": 1}|t|k|t|t|feed closed: a` {
		t.Errorf("got %q", got)
	}
	if got := value(t, url, "SELECT count(*)::text FROM rejoin.queue_places"); got != "2" {
		t.Errorf("%s places are left, want 2", got)
	}
	// With the plan that a node gets, a read walks along the places.
	pooled, err := s.keep.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Release()
	runSQL(t, pooled.Conn(), "PREPARE read AS "+strings.NewReplacer("$1", "$1::bigint", "$3", "$3::int").Replace(query("read_queue")))
	lines, _ := pooled.Query(t.Context(), "EXPLAIN EXECUTE read (0, '{}', 100)", pgx.QueryExecModeSimpleProtocol)
	explained, err := pgx.CollectRows(lines, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(explained, "\n"); !strings.Contains(text, "Index Scan using queue_places_pkey") || !strings.Contains(text, "Index Scan using queue_pkey") || strings.Contains(text, "Sort") {
		t.Errorf("got the plan\n%s", text)
	}
}

// A restored dump keeps the order, and events that are enqueued later come after it.
func TestQueueOfRestored(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	from, to := p.NewDatabase(t), p.NewDatabase(t)
	start(t, from, Options{})
	c := connect(t, from)
	one := connect(t, from)
	runSQL(t, one, "BEGIN", "SELECT rejoin_enqueue_text('a', '', '2')")
	runSQL(t, c, "SELECT rejoin_enqueue_text('a', '', '1')")
	runSQL(t, one, "COMMIT")
	dump, err := exec.Command(program(t, "pg_dump"), from).Output()
	if err != nil {
		t.Fatal(err)
	}
	restore := exec.Command(program(t, "psql"), "-q", "-v", "ON_ERROR_STOP=1", to)
	restore.Stdin = strings.NewReader(string(dump))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	start(t, to, Options{})
	restored := connect(t, to)
	runSQL(t, restored, "SELECT rejoin_enqueue_text('a', '', '3')", "SELECT rejoin_append_text('a', '', 'x')")
	wantQueue(t, restored, "1 2 3")
}

// program returns the path of one of Postgres's programs.
func program(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		t.Fatalf("this test needs %s: apt-get install postgresql", name)
	}
	return found[len(found)-1]
}

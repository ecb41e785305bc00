package postgres

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Enqueued events reach subscribers in the order of the commits.
func TestDrain(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	w := newWatcher(t, start(t, url, Options{}))
	chat := w.follow("chat", feed.From{})
	early, late := connect(t, url), connect(t, url)
	runWith(t, early, "BEGIN")
	runWith(t, early, "SELECT rejoin_enqueue('chat', 'x', '{\"n\": 3}')")
	runWith(t, late, "BEGIN")
	runWith(t, late, "SELECT rejoin_enqueue_text('chat', NULL, '1')")
	runWith(t, late, "SAVEPOINT s")
	runWith(t, late, "SELECT rejoin_enqueue_text('chat', NULL, 'undone')")
	runWith(t, late, "ROLLBACK TO s")
	runWith(t, late, "SELECT rejoin_enqueue_text('chat', NULL, '2')")
	runWith(t, late, "COMMIT")
	// An open transaction holds up nothing.
	events := take(t, chat, 2)
	runWith(t, early, "COMMIT")
	events = append(events, take(t, chat, 1)...)
	for i, e := range events {
		if want := []string{"1", "2", `{"n": 3}`}[i]; e.Data != want || e.ID != feed.ID(i+1) {
			t.Errorf("event %d is %d %q, want %q", i, e.ID, e.Data, want)
		}
	}
	wantQueue(t, early, "")
}

// An event that cannot be numbered is put aside with the reason, and no other event
// waits for it. An event with a key is stored once, by whichever way it comes.
func TestDrainRefused(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	var log lockedBuffer
	s := start(t, url, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	a := connect(t, url)
	runWith(t, a, "SELECT rejoin_append_text('chat', NULL, 'hello', idempotency_key => 'k')")
	runWith(t, a, "SELECT rejoin_append_text('done', NULL, 'the last', close => true)")
	runWith(t, a, "SELECT rejoin_enqueue_text('done', NULL, 'too late')")
	runWith(t, a, "SELECT rejoin_enqueue_text('chat', NULL, 'hello', idempotency_key => 'k')")
	runWith(t, a, "SELECT rejoin_enqueue_text('chat', NULL, 'another', idempotency_key => 'k')")
	runWith(t, a, "SELECT rejoin_enqueue_text('chat', NULL, 'the last', close => true)")
	runWith(t, a, "SELECT rejoin_enqueue_text('chat', NULL, 'too late')")
	newWatcher(t, s)
	until(t, func() bool { return s.Refused() == 3 })
	if b := bounds(t, s, "chat"); b != (feed.Bounds{First: 1, Last: 2, Closed: true}) {
		t.Errorf("the feed is %+v", b)
	}
	rows, err := a.Query(t.Context(), "SELECT feed || ' ' || data || ': ' || reason FROM rejoin.refused ORDER BY place")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	want := "done too late: feed closed: done, chat another: idempotency key reused, chat too late: feed closed: chat"
	if strings.Join(got, ", ") != want {
		t.Errorf("refused were %q", got)
	}
	wantQueue(t, a, "")
	if n := strings.Count(log.String(), "cannot be numbered"); n != 3 {
		t.Errorf("%d were logged", n)
	}
}

// A transaction that holds a feed's row delays that feed alone, and keeps its order.
func TestDrainHeld(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	w := newWatcher(t, start(t, url, Options{}))
	held, free := w.follow("held", feed.From{}), w.follow("free", feed.From{})
	holder, a := connect(t, url), connect(t, url)
	runWith(t, holder, "BEGIN")
	runWith(t, holder, "SELECT rejoin_append_text('held', NULL, '1')")
	runWith(t, a, "SELECT rejoin_enqueue_text('held', NULL, n::text) FROM generate_series(2, $1::int) n", 2*drainEvents)
	runWith(t, a, "SELECT rejoin_enqueue_text('free', NULL, 'x')")
	take(t, free, 1)
	runWith(t, holder, "COMMIT")
	for i, e := range take(t, held, 2*drainEvents) {
		if want := fmt.Sprint(i + 1); e.Data != want {
			t.Fatalf("event %d is %q", i+1, e.Data)
		}
	}
}

// Several nodes drain the queue, and lose their connections meanwhile. Each event is
// numbered once, and the events of a transaction keep their order.
func TestDrainOnce(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	var last *Store
	for range 3 {
		last = start(t, url, Options{Logger: slog.New(slog.DiscardHandler)})
		newWatcher(t, last)
	}
	const writers, rounds, each = 4, 25, 5
	var writing sync.WaitGroup
	for n := range writers {
		a := connect(t, url)
		writing.Go(func() {
			for round := range rounds {
				runWith(t, a, "SELECT rejoin_enqueue_text('chat', NULL, $1::text || ' ' || n) FROM generate_series(1, $2::int) n", fmt.Sprint(n, " ", round), each)
			}
		})
	}
	killer := connect(t, url)
	killing := time.After(2 * time.Second)
	for over := false; !over; {
		select {
		case <-killing:
			over = true
		case <-time.After(20 * time.Millisecond):
			runWith(t, killer, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'rejoin queue'")
		}
	}
	writing.Wait()
	const want = writers * rounds * each
	until(t, func() bool { return bounds(t, last, "chat").Last >= want })
	next := make(map[string]int)
	for _, e := range stored(t, last, "chat") {
		var n, round, i int
		if _, err := fmt.Sscan(e.Data, &n, &round, &i); err != nil {
			t.Fatal(err)
		}
		writer := fmt.Sprint(n)
		if got := round*each + i - 1; got != next[writer] {
			t.Fatalf("writer %d: event %d where %d should be", n, got, next[writer])
		}
		next[writer]++
	}
	wantQueue(t, killer, "")
}

package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// The answer to a COMMIT is lost, but the COMMIT was done. The append reports
// success, with the events as they are stored.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	proxy := newProxy(t, p.Addr())
	s := start(t, proxy.URL(p.NewDatabase(t)), Options{})
	told := newLedger()
	for n := range 20 {
		if n%2 == 0 {
			proxy.arm(dropAnswer)
		}
		b := batch("chat", fmt.Sprint(n), fmt.Sprint(n, "b"))
		results, err := s.Append(t.Context(), b)
		if err != nil {
			t.Fatalf("append %d: %v", n, err)
		}
		if err := told.enter(b[0], results, err); err != nil {
			t.Fatal(err)
		}
	}
	if proxy.fired() != 10 {
		t.Errorf("the proxy dropped %d answers, want 10", proxy.fired())
	}
	if err := told.check(stored(t, s, "chat")); err != nil {
		t.Error(err)
	}
}

// The COMMIT itself is lost, so nothing was stored. The append reports that, whether
// the server has noticed the lost connection or not.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	proxy := newProxy(t, p.Addr())
	s := start(t, proxy.URL(p.NewDatabase(t)), Options{})
	told := newLedger()
	publish(t, s, "chat", "first")
	for n, fault := range []fault{dropCommit, vanishBeforeCommit, dropCommit, vanishBeforeCommit} {
		proxy.arm(fault)
		b := batch("chat", fmt.Sprint(n))
		results, err := s.Append(t.Context(), b)
		wants(t, err, feed.ErrUnavailable)
		if errors.Is(err, feed.ErrUncertain) {
			t.Errorf("append %d: %v", n, err)
		}
		if err := told.enter(b[0], results, err); err != nil {
			t.Fatal(err)
		}
		b = batch("chat", fmt.Sprint(n, "again"))
		results, err = s.Append(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if err := told.enter(b[0], results, err); err != nil {
			t.Fatal(err)
		}
	}
	if err := told.check(stored(t, s, "chat")[1:]); err != nil {
		t.Error(err)
	}
}

// No server can be asked in time. Only then is the outcome unknown.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	proxy := newProxy(t, p.Addr())
	s := start(t, proxy.URL(p.NewDatabase(t)), Options{OutcomeTimeout: 300 * time.Millisecond})
	proxy.arm(dropAnswerAndClose)
	_, err := s.Append(t.Context(), batch("chat", "x"))
	wants(t, err, feed.ErrUncertain)
	if errors.Is(err, feed.ErrUnavailable) {
		t.Errorf("the error claims that nothing was stored: %v", err)
	}
	proxy.open()
	if got := len(stored(t, s, "chat")); got != 1 {
		t.Errorf("the feed holds %d events, want 1", got)
	}
}

// If the id of a transaction does not show the outcome, the events do.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	events := publish(t, s, "chat", "1", "2", "3")
	c := connect(t, url)
	var id int64
	if err := c.QueryRow(t.Context(), "SELECT id FROM rejoin.feeds").Scan(&id); err != nil {
		t.Fatal(err)
	}
	xid := func(sql string) (id string) {
		if err := c.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	done := xid("SELECT xmin FROM rejoin.events LIMIT 1")
	const future = "4000000000"
	if _, err := c.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	aborted := xid("SELECT pg_current_xact_id()::text")
	if v, err := s.ask(t.Context(), &appending{xid: aborted}, false); v != running || err != nil {
		t.Errorf("a running transaction: got %v, %v", v, err)
	}
	if _, err := c.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "DELETE FROM rejoin.events WHERE seq = 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "UPDATE rejoin.feeds SET first = 2"); err != nil {
		t.Fatal(err)
	}
	event := func(seq feed.ID, data string, later time.Duration) []feed.PlannedEvent {
		return []feed.PlannedEvent{{
			Feed:  &feed.FeedRow{ID: id, Last: seq},
			Event: &feed.Event{Feed: "chat", ID: seq, Data: data, Time: events[0].Time.Add(later)},
		}}
	}
	tests := []struct {
		name   string
		xid    string
		events []feed.PlannedEvent
		want   commitState
	}{
		{"committed", done, event(3, "3", 0), committed},
		{"never heard of, as after a crash", future, event(3, "3", 0), rolledBack},
		{"rolled back", aborted, event(3, "3", 0), rolledBack},
		{"the id given again, the numbers not", done, event(4, "4", 0), rolledBack},
		{"the id and the numbers given again, to the same data", done, event(3, "3", time.Millisecond), rolledBack},
		{"the id and the numbers given again, to other data", done, event(3, "other", 0), rolledBack},
		{"trimmed since", done, event(1, "1", 0), forgotten},
		{"too long ago", "3", event(3, "3", 0), committed},
	}
	for _, test := range tests {
		v, err := s.ask(t.Context(), &appending{xid: test.xid, plan: feed.AppendPlan{Events: test.events}}, false)
		if v != test.want || err != nil {
			t.Errorf("%s: got %v, %v; want %v", test.name, v, err, test.want)
		}
	}
}

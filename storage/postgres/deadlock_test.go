package postgres

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Two transactions of applications lock feeds in opposite order, and an append to one
// of the feeds waits between them. Postgres ends whoever looks first, which is the
// append here: it is repeated.
func TestAppendInDeadlock(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: 30 * time.Second})
	publish(t, s, "left", "1")
	publish(t, s, "right", "1")
	lock := func(c *pgx.Conn, name string) error {
		_, err := c.Exec(t.Context(), "SELECT FROM rejoin.feeds WHERE name = $1 FOR NO KEY UPDATE", name)
		return err
	}
	both := [2]*pgx.Conn{connect(t, url), connect(t, url)}
	names := [2]string{"left", "right"}
	for i, c := range both {
		for _, sql := range []string{"SET deadlock_timeout = '3s'", "BEGIN"} {
			if _, err := c.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := lock(c, names[i]); err != nil {
			t.Fatal(err)
		}
	}
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := s.Append(t.Context(), batch("left", "2")); err != nil {
			t.Error(err)
		}
	})
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
	})
	errs := make(chan error, 2)
	for i, c := range both {
		work.Go(func() {
			err := lock(c, names[1-i])
			if _, ended := c.Exec(t.Context(), "ROLLBACK"); ended != nil {
				t.Error(ended)
			}
			errs <- err
		})
	}
	work.Wait()
	if one, other := state(<-errs), state(<-errs); one+other != deadlockDetected {
		t.Errorf("the transactions ended with %q and %q", one, other)
	}
	if got := len(stored(t, s, "left")); got != 2 {
		t.Errorf("the feed holds %d events, want 2", got)
	}
}

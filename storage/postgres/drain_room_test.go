package postgres

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// Appends that wait for held feeds take all connections but one. The queue does not take
// that one from the appends to other feeds.
func TestDrainLeavesRoom(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	s := start(t, url, Options{PublishConns: 2, LockTimeout: 20 * time.Second})
	newWatcher(t, s)
	publish(t, s, "held", "1")
	publish(t, s, "free", "1")
	holder := connect(t, url)
	runWith(t, holder, "BEGIN")
	runWith(t, holder, "SELECT rejoin_append_text('held', NULL, '2')")
	waited := make(chan error, 1)
	go func() {
		_, err := s.Append(t.Context(), batch("held", "3"))
		waited <- err
	}()
	until(t, func() bool { return len(s.slowSlots) == cap(s.slowSlots) })
	writing := make(chan struct{})
	a := connect(t, url)
	go func() {
		defer close(writing)
		for i := range 300 {
			runWith(t, a, "SELECT rejoin_enqueue_text('free', NULL, $1)", fmt.Sprint("queued ", i))
		}
	}()
	var took []time.Duration
	for over := false; !over; {
		select {
		case <-writing:
			over = true
		default:
			began := time.Now()
			publish(t, s, "free", "x")
			took = append(took, time.Since(began))
		}
	}
	runWith(t, holder, "COMMIT")
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if worst := slices.Max(took); worst > 2*time.Second {
		t.Errorf("of %d appends one took %v", len(took), worst)
	}
	wantEnd(t, s, "free", feed.ID(1+len(took)+300))
}

func wantEnd(t *testing.T, s *Store, name string, last feed.ID) {
	t.Helper()
	until(t, func() bool { return bounds(t, s, name).Last >= last })
	if got := bounds(t, s, name).Last; got != last {
		t.Errorf("%s ends with %d, want %d", name, got, last)
	}
}

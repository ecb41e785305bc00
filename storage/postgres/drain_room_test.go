package postgres

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// Appends that wait for held feeds take all connections but one. The queue does not take
// that one from the appends to other feeds.
func TestDrainLeavesRoom(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
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

// A node that falls silent in the middle of a drain keeps the others from it for no
// longer than a moment.
func TestDrainerFallsSilent(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	url := p.NewDatabase(t)
	network := testserver.StartProxy(t, p.Addr())
	var sent sync.Map // by the connections that drain: how many messages since the first
	fallen := make(chan struct{}, 1)
	network.Tap(nil, func(c *testserver.Conn, d testserver.Direction, message []byte) bool {
		n, drains := sent.Load(c)
		switch {
		case drains && n.(int) >= 2:
			return false
		case d == testserver.ToServer && (drains || bytes.Contains(message, []byte("advisory_xact_lock($1)\x00"))):
			// The first prepares the statement, and the next takes the lock.
			if !drains {
				n = 0
			}
			sent.Store(c, n.(int)+1)
			if n == 1 {
				poke(fallen)
			}
		}
		return true
	})
	newWatcher(t, start(t, network.URL(url), Options{StatementTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)}))
	<-fallen
	s := start(t, url, Options{})
	newWatcher(t, s)
	began := time.Now()
	runWith(t, connect(t, url), "SELECT rejoin_enqueue_text('chat', NULL, 'x')")
	wantEnd(t, s, "chat", 1)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it was numbered after %v", took)
	}
	network.Cut(testserver.Reset) // or the silent node would wait for its timeouts to close
}

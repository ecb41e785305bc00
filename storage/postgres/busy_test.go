package postgres

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// A long transaction holds a feed, or is creating one. An append of several batches
// stores the others at once, and reports which it left out.
func TestBusy(t *testing.T) {
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: 600 * time.Millisecond})
	for _, name := range []string{"held", "free", "other"} {
		publish(t, s, name, "1")
	}
	elsewhere := connect(t, url)
	for _, sql := range []string{
		"BEGIN",
		"UPDATE rejoin.feeds SET updated = updated WHERE name = 'held'",
		"INSERT INTO rejoin.feeds (name) VALUES ('made')",
	} {
		if _, err := elsewhere.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	both := feed.Batch{Drafts: []feed.Draft{{Feed: "free", Data: "no"}, {Feed: "held", Data: "no"}, {Feed: "other", Data: "no"}}}
	batches := []feed.Batch{
		batch("held", "2")[0], batch("free", "2")[0], both, batch("made", "1")[0],
		batch("new", "1")[0], {}, batch("free", "3", "4")[0],
	}
	for i := range batches {
		batches[i].NoWait = true
	}
	began := time.Now()
	results, err := s.Append(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("the append took %v: it waited", took)
	}
	for i, busy := range []bool{true, false, true, true, false, false, false} {
		switch r := results[i]; {
		case busy:
			wants(t, r.Err, feed.ErrBusy)
		case r.Err != nil || len(r.Events) != len(batches[i].Drafts):
			t.Errorf("batch %d: got %v", i, r)
		}
	}
	for name, n := range map[string]int{"held": 1, "free": 4, "other": 1, "made": 0, "new": 1} {
		if got := len(stored(t, s, name)); got != n {
			t.Errorf("feed %s holds %d events, want %d", name, got, n)
		}
	}
	if b := bounds(t, s, "made"); b != feed.Unwritten {
		t.Errorf("a feed that is being made has bounds %v", b)
	}

	// Batches that may wait do so as long as they may.
	for _, b := range [][]feed.Batch{batch("held", "2"), batch("made", "1"), {both}} {
		began := time.Now()
		_, err := s.Append(t.Context(), b)
		wants(t, err, feed.ErrUnavailable)
		wants(t, err, feed.ErrBusy)
		if took := time.Since(began); took < 550*time.Millisecond || took > 5*time.Second {
			t.Errorf("waited %v, want 600 ms", took)
		}
	}
	if _, err := elsewhere.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]feed.Batch{batch("held", "2"), batch("made", "1"), {both}} {
		if _, err := s.Append(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if got := len(stored(t, s, "made")); got != 1 {
		t.Errorf("the feed that was made elsewhere holds %d events, want 1", got)
	}
}

// An append that waits goes on as soon as the feed is free, with the number after the
// last that was stored meanwhile.
func TestWaits(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: 30 * time.Second})
	publish(t, s, "chat", "1")
	elsewhere := connect(t, url)
	for _, sql := range []string{
		"BEGIN",
		"UPDATE rejoin.feeds SET last = 2 WHERE name = 'chat'",
		"INSERT INTO rejoin.events (feed, seq, type, data, json, time) SELECT feed, 2, '', '2', false, time FROM rejoin.events",
	} {
		if _, err := elsewhere.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	var waiting sync.WaitGroup
	for range 5 {
		waiting.Go(func() {
			if _, err := s.Append(t.Context(), batch("chat", "later")); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
	})
	if _, err := elsewhere.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if got := stored(t, s, "chat"); len(got) != 7 || got[1].Data != "2" {
		t.Errorf("got %v", got)
	}
}

// However many feeds are held, and however many appends wait for them, the
// appends to other feeds go through.
func TestWaitersLeaveRoom(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: time.Minute, PublishConns: 3})
	for i := range 6 {
		publish(t, s, fmt.Sprintf("held:%d", i), "1")
	}
	elsewhere := connect(t, url)
	if _, err := elsewhere.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.Exec(t.Context(), "SELECT FROM rejoin.feeds FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for i := range 24 {
		waiting.Go(func() {
			_, err := s.Append(ctx, batch(fmt.Sprintf("held:%d", i%6), "2"))
			if err != nil {
				wants(t, err, feed.ErrUnavailable)
			}
		})
	}
	until(t, func() bool { return len(s.slowSlots) == cap(s.slowSlots) })
	for i := range 20 {
		publish(t, s, fmt.Sprintf("free:%d", i%3), "x")
	}
	// Appends that have not begun end with their context.
	cancel()
	if _, err := elsewhere.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
}

// Nodes that append to the same feeds, in any order, never deadlock, and nothing is
// lost or stored twice.
func TestManyNodes(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	var mu sync.Mutex
	told := newLedger()
	var nodes sync.WaitGroup
	for node := range 4 {
		s := start(t, url, Options{LockTimeout: 20 * time.Second})
		for range 2 {
			nodes.Go(func() {
				for n := range 60 {
					batches := make([]feed.Batch, 3)
					for i := range batches {
						for j := range 2 {
							d := feed.Draft{Feed: fmt.Sprintf("chat:%d", (n*7+i*3+j*5+node)%5), Data: fmt.Sprintf("%d.%p.%d.%d.%d", node, &batches, n, i, j)}
							batches[i].Drafts = append(batches[i].Drafts, d)
						}
					}
					results, err := s.Append(t.Context(), batches)
					if err != nil {
						t.Error(err)
						return
					}
					for i, r := range results {
						alone := []feed.Result{r}
						if busy(r) { // what a publisher does then
							alone, err = s.Append(t.Context(), batches[i:i+1])
						}
						mu.Lock()
						if err := told.enter(batches[i], alone, err); err != nil {
							t.Error(err)
						}
						mu.Unlock()
					}
				}
			})
		}
	}
	nodes.Wait()
	if len(told.refused)+told.unknown > 0 {
		t.Errorf("%d events were refused, %d are unknown", len(told.refused), told.unknown)
	}
	s := start(t, url, Options{})
	var all []feed.Event
	for i := range 5 {
		all = append(all, stored(t, s, fmt.Sprintf("chat:%d", i))...)
	}
	if err := told.check(all); err != nil {
		t.Error(err)
	}
}

func TestFeedLocks(t *testing.T) {
	t.Parallel()
	g := newFeedLocks()
	unlock, err := g.lock(t.Context(), nil, []string{"a", "c"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = g.lock(ctx, nil, []string{"a", "b"})
	wants(t, err, feed.ErrUnavailable)
	done := make(chan struct{})
	close(done)
	_, err = g.lock(t.Context(), done, []string{"b", "c", "d"})
	wants(t, err, feed.ErrStopped)
	other, err := g.lock(t.Context(), nil, []string{"b", "d"})
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if len(g.feeds) != 0 {
		t.Errorf("%d locks are left", len(g.feeds))
	}
}

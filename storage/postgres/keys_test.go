package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// on returns a batch about one feed.
func on(name string, data ...string) feed.Batch {
	b := batch(name, data...)[0]
	b.Feed = name
	return b
}

// several returns a batch for several feeds.
func several(data string, names ...string) (b feed.Batch) {
	for _, name := range names {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: data})
	}
	return b
}

func closing(b feed.Batch) feed.Batch {
	b.Close = true
	return b
}

func keyed(name string, b feed.Batch) feed.Batch {
	b.Key = &feed.Key{Name: name, Fingerprint: sha256.Sum256(fmt.Append(nil, b.Close, b.Drafts)), Window: time.Hour}
	return b
}

func noWait(b feed.Batch) feed.Batch {
	b.NoWait = true
	return b
}

// give appends one batch.
func give(t testing.TB, s *Store, b feed.Batch) feed.Result {
	t.Helper()
	results, err := s.Append(t.Context(), []feed.Batch{b})
	if err != nil {
		return feed.Result{Err: err}
	}
	return results[0]
}

func wantStored(t testing.TB, r feed.Result) []feed.Event {
	t.Helper()
	if r.Err != nil || r.Replayed {
		t.Fatalf("got %v, replayed %t; want it stored", r.Err, r.Replayed)
	}
	return r.Events
}

func wantReplayed(t testing.TB, r feed.Result, events []feed.Event) {
	t.Helper()
	if r.Err != nil || !r.Replayed || !slices.Equal(r.Events, events) {
		t.Errorf("got %v, replayed %t, %v; want the first answer, %v", r.Err, r.Replayed, r.Events, events)
	}
}

// A long transaction holds a feed. A batch whose key is known is answered all the
// same. A batch whose key is new waits for the feed.
func TestKeyOfBusyFeed(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: 600 * time.Millisecond})
	known, both := keyed("known", on("held", "1")), keyed("both", several("1", "free", "held"))
	first, second := wantStored(t, give(t, s, known)), wantStored(t, give(t, s, both))
	elsewhere := connect(t, url)
	for _, sql := range []string{"BEGIN", "SELECT FROM rejoin.feeds WHERE name = 'held' FOR UPDATE"} {
		if _, err := elsewhere.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	wantReplayed(t, give(t, s, known), first)
	wantReplayed(t, give(t, s, noWait(known)), first)
	wantReplayed(t, give(t, s, noWait(both)), second)
	wants(t, give(t, s, noWait(keyed("known", on("held", "x")))).Err, feed.ErrKeyReused)
	late := []feed.Batch{
		keyed("new", on("held", "2")), keyed("new", several("2", "free", "held")), closing(on("held")),
		keyed("end", closing(on("held"))),
	}
	for i, b := range late {
		wants(t, give(t, s, noWait(b)).Err, feed.ErrBusy)
		if i < 2 {
			wants(t, give(t, s, b).Err, feed.ErrUnavailable)
		}
	}
	// Batches that do not need the feed do not wait with those that do.
	free := keyed("new", on("free", "2"))
	results, err := s.Append(t.Context(), []feed.Batch{noWait(late[0]), noWait(free), noWait(late[1])})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, results[0].Err, feed.ErrBusy)
	third := wantStored(t, results[1])
	wants(t, results[2].Err, feed.ErrBusy)
	if _, err := elsewhere.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	for _, b := range late {
		wantStored(t, give(t, s, b))
	}
	wantReplayed(t, give(t, s, free), third)
	if b := bounds(t, s, "held"); b != (feed.Bounds{First: 1, Last: 4, Closed: true}) {
		t.Errorf("got bounds %v", b)
	}
	sound(t, url)
}

// A key of batches for several feeds is held by another node's transaction.
func TestBusyKey(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{LockTimeout: 10 * time.Second})
	elsewhere := connect(t, url)
	if _, err := elsewhere.Exec(t.Context(), "SELECT pg_advisory_lock($1)", keyLock("k")); err != nil {
		t.Fatal(err)
	}
	b := keyed("k", several("1", "a", "b"))
	results, err := s.Append(t.Context(), []feed.Batch{noWait(b), noWait(on("a", "1")), noWait(keyed("k", on("a", "2")))})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, results[0].Err, feed.ErrBusy)
	wantStored(t, results[1])
	wantStored(t, results[2])
	var waiting sync.WaitGroup
	answers := make([]feed.Result, 3)
	for i := range answers {
		waiting.Go(func() { answers[i] = give(t, s, b) })
	}
	until(t, func() bool {
		return value(t, url, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1"
	})
	publish(t, s, "a", "4") // a batch that waits for its key holds no feed
	if _, err := elsewhere.Exec(t.Context(), "SELECT pg_advisory_unlock($1)", keyLock("k")); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	first := 0
	for _, r := range answers {
		if r.Err != nil || !slices.Equal(r.Events, answers[0].Events) {
			t.Errorf("got %v, %v; want %v", r.Err, r.Events, answers[0].Events)
		}
		if !r.Replayed {
			first++
		}
	}
	if n := len(stored(t, s, "b")); first != 1 || n != 1 {
		t.Errorf("%d of the answers are not replayed, and %d events are stored; want 1 and 1", first, n)
	}
}

// Batches that have no feed in common come to two nodes with the same key at once:
// one of them is stored.
func TestKeyOfDifferentFeeds(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	nodes := []*Store{start(t, url, Options{}), start(t, url, Options{})}
	const keys, calls = 5, 40
	var mu sync.Mutex
	won := make(map[string]int)
	var publishers sync.WaitGroup
	for i := range keys * calls {
		key := fmt.Sprint("key ", i%keys)
		publishers.Go(func() {
			r := give(t, nodes[i/keys%2], keyed(key, several("x", fmt.Sprint("a", i), fmt.Sprint("b", i))))
			if r.Err != nil {
				wants(t, r.Err, feed.ErrKeyReused)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won[key]++
		})
	}
	publishers.Wait()
	for i := range keys {
		if key := fmt.Sprint("key ", i); won[key] != 1 {
			t.Errorf("%s was stored %d times", key, won[key])
		}
	}
	sound(t, url)
}

// A node is cut off between COMMIT and its answer, and cannot ask any server. The
// repeat through another node gets the stored events, once.
func TestKeyAfterUnknownOutcome(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	proxy := newProxy(t, p.Addr())
	url := p.NewDatabase(t)
	s := start(t, proxy.URL(url), Options{OutcomeTimeout: 200 * time.Millisecond})
	other := start(t, url, Options{})
	for i, b := range []feed.Batch{on("chat", "1", "2"), several("x", "b", "a", "b"), closing(on("chat", "3")), closing(on("new"))} {
		b = keyed(fmt.Sprint("k", i), b)
		proxy.open()
		proxy.arm(dropAnswerAndClose)
		wants(t, give(t, s, b).Err, feed.ErrUncertain)
		r := give(t, other, b)
		if r.Err != nil || !r.Replayed || len(r.Events) != len(b.Drafts) {
			t.Fatalf("the repeat of %v got %v, replayed %t, %v", b, r.Err, r.Replayed, r.Events)
		}
		proxy.open()
		wantReplayed(t, give(t, s, b), r.Events)
	}
	for name, want := range map[string]feed.Bounds{
		"chat": {First: 1, Last: 3, Closed: true}, "a": {First: 1, Last: 1}, "b": {First: 1, Last: 2}, "new": {First: 1, Last: 0, Closed: true},
	} {
		if got := bounds(t, s, name); got != want {
			t.Errorf("feed %s: got %v, want %v", name, got, want)
		}
	}
	sound(t, url)
}

// The answer to a COMMIT is lost, of batches that store no event among others. The
// store finds out their outcomes.
func TestLostAnswerWithoutEvents(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	proxy := newProxy(t, p.Addr())
	url := p.NewDatabase(t)
	s := start(t, proxy.URL(url), Options{})
	publish(t, s, "chat", "1")
	for i, b := range []feed.Batch{
		closing(on("chat")), closing(on("new")), keyed("k", closing(on("other"))),
		keyed("k", closing(on("chat"))), // closed already: the key is all there is
		keyed("k2", on("more", "1")), keyed("k2", several("x", "more", "yet more")),
	} {
		faults := []fault{dropCommit, vanishBeforeCommit}
		for n, fault := range faults[:1+i%2] { // the second takes a while
			proxy.arm(fault)
			err := give(t, s, b).Err
			wants(t, err, feed.ErrUnavailable)
			if errors.Is(err, feed.ErrUncertain) {
				t.Errorf("batch %d, fault %d: %v", i, n, err)
			}
			if b.Close && i < 3 && bounds(t, s, b.Feed).Closed {
				t.Errorf("batch %d, fault %d: closed, and refused", i, n)
			}
		}
		proxy.arm(dropAnswer)
		events := wantStored(t, give(t, s, b))
		if b.Close && !bounds(t, s, b.Feed).Closed {
			t.Errorf("batch %d: not closed", i)
		}
		if b.Key != nil {
			wantReplayed(t, give(t, s, b), events)
		}
	}
	if proxy.fired() != 15 {
		t.Errorf("the proxy has done %d faults, want 15", proxy.fired())
	}
	sound(t, url)
}

// If the id of a transaction does not show the outcome, the closed feed or the key
// does.
func TestVerdictsWithoutEvents(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	s := start(t, url, Options{})
	publish(t, s, "open", "1")
	wantStored(t, give(t, s, closing(keyed("k", on("closed", "1", "2")))))
	c := connect(t, url)
	ids := make(map[string]int64)
	var done string
	for _, name := range []string{"open", "closed"} {
		var id int64
		if err := c.QueryRow(t.Context(), "SELECT id, xmin::text FROM rejoin.feeds WHERE name = $1", name).Scan(&id, &done); err != nil {
			t.Fatal(err)
		}
		ids[name] = id
	}
	k := &feed.KeyRow{}
	var fingerprint []byte
	var firsts, times []int64
	if err := c.QueryRow(t.Context(), "SELECT print, time, firsts, times FROM rejoin.keys").Scan(&fingerprint, &k.Time, &firsts, &times); err != nil {
		t.Fatal(err)
	}
	copy(k.Fingerprint[:], fingerprint)
	k.Starts = []feed.BatchStart{{ID: feed.ID(firsts[0]), Time: times[0]}}
	later := *k
	later.Time++
	closes := func(name string, last feed.ID) feed.AppendPlan {
		row := &feed.FeedRow{ID: ids[name], Last: last, Closed: true}
		return feed.AppendPlan{Feeds: []feed.FeedChange{{Name: name, Row: row, Closes: true}}}
	}
	closed := &feed.FeedRow{ID: ids["closed"]}
	swept := []feed.PlannedEvent{{Feed: closed, Event: &feed.Event{Feed: "closed", ID: 1, Data: "1", Time: time.UnixMilli(times[0])}}}
	keys := func(name string, k *feed.KeyRow) map[feed.KeyName]*feed.KeyRow {
		return map[feed.KeyName]*feed.KeyRow{{Feed: "closed", Name: name}: k}
	}
	tests := []struct {
		name string
		plan feed.AppendPlan
		want commitState
	}{
		{"closed", closes("closed", 2), committed},
		{"not closed", closes("open", 1), rolledBack},
		{"closed by another, behind more", closes("closed", 1), rolledBack},
		{"a key", feed.AppendPlan{Keys: keys("k", k)}, committed},
		{"a key that another has stored", feed.AppendPlan{Keys: keys("k", &later)}, forgotten},
		{"a key that is not there", feed.AppendPlan{Keys: keys("k2", k)}, forgotten},
		{"an event swept since, and a key", feed.AppendPlan{Events: swept, Keys: keys("k", k)}, committed},
		{"an event swept since", feed.AppendPlan{Events: swept}, forgotten},
	}
	if err := s.Trim(t.Context(), "closed", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), 10, time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		tx := &appending{xid: done, plan: test.plan, in: feed.AppendInput{Feeds: map[string]*feed.FeedRow{"closed": closed}}}
		if v, err := s.ask(t.Context(), tx, false); v != test.want || err != nil {
			t.Errorf("%s: got %v, %v; want %v", test.name, v, err, test.want)
		}
	}
}

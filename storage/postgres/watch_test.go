package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/testserver"
)

// runWith runs a statement with arguments, on any goroutine.
func runWith(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// watcher is a hub that compares feeds with its store so seldom that whatever comes
// soon has come by Watch.
type watcher struct {
	t   *testing.T
	hub *feed.Hub
}

const soon = 10 * time.Second

func newWatcher(t *testing.T, s *Store) *watcher {
	t.Helper()
	bus := memory.NewBus()
	hub := feed.NewHub(s, bus, feed.HubOptions{Verify: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(hub.Close)
	until(t, func() bool { return s.listener.state() == nil })
	return &watcher{t, hub}
}

func (w *watcher) follow(name string, from feed.From) *feed.Subscription {
	w.t.Helper()
	s, err := w.hub.Subscribe(w.t.Context(), name, from)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

// take returns the next n events of a subscription.
func take(t *testing.T, s *feed.Subscription, n int) (events []feed.Event) {
	t.Helper()
	timeout := time.After(soon)
	for len(events) < n {
		d, err := s.Next(t.Context(), timeout)
		if err != nil || d.Gap != nil || len(d.Events()) == 0 {
			t.Fatalf("behind %d of %d events: %+v, %v", len(events), n, d, err)
		}
		events = append(events, d.Events()...)
	}
	return events
}

// Events that an application commits in SQL reach subscribers, and events that it
// rolls back do not.
func TestWatchAppends(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	w := newWatcher(t, start(t, url, Options{}))
	chat, news := w.follow("chat", feed.From{}), w.follow("news", feed.From{})
	a := connect(t, url)
	runWith(t, a, "BEGIN")
	runWith(t, a, "SELECT rejoin_append('chat', 'x', '{}')")
	runWith(t, a, "ROLLBACK")
	runWith(t, a, "BEGIN")
	runWith(t, a, "SELECT rejoin_append('chat', 'order.created', '{\"id\": 7}')")
	runWith(t, a, "SAVEPOINT s")
	runWith(t, a, "SELECT rejoin_append_text('chat', '', 'undone')")
	runWith(t, a, "ROLLBACK TO s")
	runWith(t, a, "SELECT rejoin_append_text('news', NULL, E'one\r\ntwo')")
	runWith(t, a, "SELECT rejoin_append_text('chat', NULL, 'second')")
	runWith(t, a, "COMMIT")
	events := take(t, chat, 2)
	if e := events[0]; e.ID != 1 || e.Type != "order.created" || e.Data != `{"id": 7}` || !e.JSON {
		t.Errorf("got %+v", e)
	}
	if e := events[1]; e.ID != 2 || e.Type != "" || e.Data != "second" || e.JSON {
		t.Errorf("got %+v", e)
	}
	if e := take(t, news, 1)[0]; e.ID != 1 || e.Data != "one\ntwo" {
		t.Errorf("got %+v", e)
	}
	runWith(t, a, "SELECT rejoin_append_text('chat', NULL, 'last', close => true)")
	take(t, chat, 1)
	if _, err := chat.Next(t.Context(), time.After(soon)); !errors.Is(err, feed.ErrClosed) {
		t.Errorf("behind the last event of a closed feed: %v", err)
	}
}

// More than one query returns: of one feed, of many feeds, and of many bytes.
func TestWatchMuch(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	w := newWatcher(t, start(t, url, Options{}))
	a := connect(t, url)
	const feeds, events = newsFeeds + 200, 3*newsEvents + 1
	var many []*feed.Subscription
	for i := range feeds {
		many = append(many, w.follow(fmt.Sprintf("many:%d", i), feed.From{}))
	}
	long, large := w.follow("long", feed.From{}), w.follow("large", feed.From{})
	runWith(t, a, "SELECT rejoin_append_text('many:' || n, NULL, 'x') FROM generate_series(0, $1::int - 1) n", feeds)
	for _, s := range many {
		take(t, s, 1)
	}
	runWith(t, a, "SELECT rejoin_append_text('long', NULL, 'x') FROM generate_series(1, $1::int) n", events)
	take(t, long, events)
	const size = 50_000
	runWith(t, a, "SELECT rejoin_append_text('large', NULL, repeat('x', $1::int)) FROM generate_series(1, $2::int) n", size, 2*newsBytes/size)
	take(t, large, 2*newsBytes/size)
}

// A subscriber that comes while an application appends misses nothing, and gets each
// event soon.
func TestWatchComing(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	w := newWatcher(t, start(t, url, Options{}))
	a := connect(t, url)
	for i := range 100 {
		name := fmt.Sprint("feed:", i)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = a.Exec(t.Context(), "SELECT rejoin_append_text($1, NULL, 'x')", name)
		}()
		take(t, w.follow(name, feed.FromCursor(0)), 1)
		<-done
	}
}

// The listener outlives its connection, however often it is lost, and the server.
func TestListenerHeals(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t)
	url := server.NewDatabase(t)
	var log lockedBuffer
	s := start(t, url, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := newWatcher(t, s)
	chat := w.follow("chat", feed.From{})
	a := connect(t, url)
	for i := range 20 {
		runWith(t, a, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%listen'")
		runWith(t, a, "SELECT rejoin_append_text('chat', NULL, $1)", fmt.Sprint(i))
		take(t, chat, 1)
	}
	server.Stop(t, testserver.Immediate)
	until(t, func() bool { return s.listener.state() != nil })
	server.Start(t)
	until(t, func() bool { return s.listener.state() == nil })
	runWith(t, connect(t, url), "SELECT rejoin_append_text('chat', NULL, 'after')")
	take(t, chat, 1)
	if n := strings.Count(log.String(), "listening to Postgres"); n == 0 || n > 8 {
		t.Errorf("%d lines were logged:\n%s", n, log.String())
	}
}

// A node that is configured to be alone logs once that it is not.
func TestListenerNoticesOthers(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	var log lockedBuffer
	newWatcher(t, start(t, url, Options{Alone: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	for range 2 {
		newWatcher(t, start(t, url, Options{}))
	}
	until(t, func() bool { return strings.Contains(log.String(), "another node uses this store") })
	if n := strings.Count(log.String(), "another node"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

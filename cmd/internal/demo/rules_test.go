package demo

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/testserver"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testserver.StopPostgres()
	os.Exit(code)
}

// later is a store for whose lists the time is later than it is.
type later struct {
	feed.RetentionStore
	by    atomic.Int64 // a time.Duration
	lists atomic.Int64
}

func (s *later) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	by := time.Duration(s.by.Load())
	l, err := s.RetentionStore.List(ctx, prefix, after, limit)
	l.Now = l.Now.Add(by)
	s.lists.Add(1)
	return l, err
}

// TestRules: an hour after the last event of an answer or a room, none of its events is
// left, on either store. What stays is what stays of every feed that is deleted: its
// name, its last id, and whether it is closed.
func TestRules(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) feed.RetentionStore{"sqlite": newFile, "postgres": newDatabase} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRules(t, &later{RetentionStore: open(t)})
		})
	}
}

func newDatabase(t *testing.T) feed.RetentionStore {
	t.Helper()
	store, err := postgres.Open(t.Context(), testserver.SharedPostgres(t).NewDatabase(t), postgres.Options{Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func testRules(t *testing.T, store *later) {
	w := openOn(t, store, Options{Pause: time.Microsecond})
	const room = Prefix + "chat:1"
	answer := w.ask()
	w.ended()
	for _, name := range []string{room, room, room, "demo", "demonstration"} {
		if _, err := w.feeds.Publisher.Publish(t.Context(), feed.Draft{Feed: name, Data: "hello"}); err != nil {
			t.Fatal(err)
		}
	}
	said := w.info(answer).Last
	retention, err := feed.NewRetention(w.feeds.Hub, feed.RetentionOptions{Rules: Rules, Every: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(retention.Close)

	store.by.Store(int64(59 * time.Minute))
	w.rounds(store, 2)
	for _, name := range []string{answer, room} {
		if info := w.info(name); info.First != 1 {
			t.Errorf("before the hour is over: %+v", info)
		}
	}
	store.by.Store(int64(61 * time.Minute))
	for deadline := time.Now().Add(30 * time.Second); ; w.rounds(store, 1) { // until the space is free
		a, r := w.info(answer), w.info(room)
		if a.Bytes == 0 && r.Bytes == 0 && a.First == said+1 && a.Last == said && a.Closed && r.First == 4 && r.Last == 3 && !r.Closed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the hour: %+v, %+v", a, r)
		}
	}
	for _, name := range []string{"demo", "demonstration"} {
		if info := w.info(name); info.First != 1 || info.Last != 1 {
			t.Errorf("a feed that is not of the demo: %+v", info)
		}
	}
	store.by.Store(0) // what is said now is new
	w.rounds(store, 2)
	w.returns(answer, room, said)
}

// returns comes back to both feeds with old cursors, and uses their names again.
func (w *world) returns(answer, room string, said feed.ID) {
	w.t.Helper()
	if _, err := w.feeds.Publisher.Publish(w.t.Context(), feed.Draft{Feed: answer, Data: "more"}); !errors.Is(err, feed.ErrClosed) {
		w.t.Errorf("to publish to the answer again: %v", err)
	}
	if e, err := w.feeds.Publisher.Publish(w.t.Context(), feed.Draft{Feed: room, Data: "again"}); err != nil || e[0].ID != 4 {
		w.t.Errorf("to publish to the room again: %+v, %v", e, err)
	}
	for name, want := range map[string]feed.Gap{answer: {After: 1, Resumes: said + 1, Reason: feed.Trimmed}, room: {After: 1, Resumes: 4, Reason: feed.Trimmed}} {
		sub, err := w.feeds.Hub.Subscribe(w.t.Context(), name, feed.FromCursor(1))
		if err != nil {
			w.t.Fatal(err)
		}
		defer sub.Close()
		if d, err := sub.Next(w.t.Context(), nil); err != nil || d.Gap == nil || *d.Gap != want {
			w.t.Errorf("%s: %+v, %v; want %+v", name, d.Gap, err, want)
		}
		d, err := sub.Next(w.t.Context(), nil)
		if ended := errors.Is(err, feed.ErrClosed); ended != (name == answer) || !ended && (err != nil || d.Events()[0].Data != "again") {
			w.t.Errorf("%s: after the gap, %+v, %v", name, d.Events(), err)
		}
	}
}

// rounds waits until retention has begun so many more rounds.
func (w *world) rounds(store *later, n int64) {
	w.t.Helper()
	before := store.lists.Load()
	for deadline := time.Now().Add(30 * time.Second); store.lists.Load() < before+n; time.Sleep(time.Millisecond) { // until it has listed the feeds
		if time.Now().After(deadline) {
			w.t.Fatal("retention does not look at the feeds")
		}
	}
}

func (w *world) info(name string) feed.Info {
	w.t.Helper()
	info, ok, err := w.feeds.Hub.Info(w.t.Context(), name)
	if err != nil || !ok {
		w.t.Fatalf("%s: %t, %v", name, ok, err)
	}
	return info
}

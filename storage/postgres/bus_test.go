package postgres

import (
	"context"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/storagetest"
)

func TestBus(t *testing.T) {
	t.Parallel()
	storagetest.TestBus(t, func(t *testing.T) storagetest.Joiner {
		url := newDatabase(t)
		return func(t *testing.T) feed.Bus { return openWriter(t, url) }
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	storagetest.TestSignals(t, func(t *testing.T) storagetest.Joiner {
		url := newDatabase(t)
		return func(t *testing.T) feed.Bus { return openWriter(t, url) }
	})
}

func TestCluster(t *testing.T) {
	t.Parallel()
	storagetest.TestCluster(t, func(t *testing.T) (feed.Store, storagetest.Joiner) {
		url := newDatabase(t)
		return start(t, url, Options{}), func(t *testing.T) feed.Bus { return openWriter(t, url) }
	})
}

// writer is the bus of one node. It stores the events that it is told, because the
// suites tell events that are in no store.
type writer struct {
	*Bus
	store *Store
}

func openWriter(t *testing.T, url string) *writer {
	t.Helper()
	s := openStore(t, url, Options{})
	b, err := s.OpenBus(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return &writer{b, s}
}

func (w *writer) Tell(ctx context.Context, events []feed.Event) error {
	if err := w.insert(ctx, events); err != nil {
		return err
	}
	return w.Bus.Tell(ctx, events)
}

// insert stores events under the ids that they have.
func (w *writer) insert(ctx context.Context, events []feed.Event) error {
	if len(events) == 0 {
		return nil
	}
	c, err := w.store.replay.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	n := len(events)
	names, ids, times := make([]string, n), make([]int64, n), make([]int64, n)
	json, types, data := make([]bool, n), make([]string, n), make([]string, n)
	for i, e := range events {
		names[i], ids[i], times[i] = e.Feed, int64(e.ID), e.Time.UnixMilli()
		json[i], types[i], data[i] = e.JSON, e.Type, e.Data
	}
	_, err = c.Exec(ctx, `
		INSERT INTO rejoin.feeds (name, last) SELECT name, max(id) FROM unnest($1::text[], $2::bigint[]) AS n (name, id) GROUP BY name
		ON CONFLICT (name) DO UPDATE SET last = greatest(rejoin.feeds.last, excluded.last)`, names, ids)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, `
		INSERT INTO rejoin.events (feed, seq, time, json, type, data)
		SELECT f.id, n.id, n.time, n.json, n.type, n.data
		FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[]) AS n (name, id, time, json, type, data)
		JOIN rejoin.feeds f ON f.name = n.name
		ON CONFLICT DO NOTHING`, names, ids, times, json, types, data)
	return err
}

// Tail passes on what the node's store watches.
func (w *writer) Tail(ctx context.Context, r feed.Receiver) error {
	return w.store.Watch(ctx, watchReceiver{r})
}

func (w *writer) Close() error {
	if err := w.Bus.Close(); err != nil {
		return err
	}
	return w.store.Close()
}

// watchReceiver makes a Receiver of the suites a WatchReceiver.
type watchReceiver struct{ feed.Receiver }

func (watchReceiver) Changed(string) {}

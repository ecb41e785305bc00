package storagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/rejoin/rejoin/feed"
)

// TestNodes tests a store that several nodes may have open at the same time. It calls
// fresh once for each subtest, as TestStore does, and the opener twice.
func TestNodes(t *testing.T, fresh func(t *testing.T) Opener) {
	tests := []struct {
		name string
		run  func(t *testing.T, a, b feed.RetentionStore)
	}{
		{"one content", testOneContent},
		{"a key many times at once", func(t *testing.T, a, b feed.RetentionStore) { raceKey(t, a, b) }},
		{"if last, many at once", func(t *testing.T, a, b feed.RetentionStore) { raceIfLast(t, a, b) }},
		{"trim under load", func(t *testing.T, a, b feed.RetentionStore) { loadAndTrim(t, a, b) }},
		{"alone", testAloneOfTwo},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			open := fresh(t)
			test.run(t, keep(t, open), keep(t, open))
		})
	}
}

// A node sees at once what another node has done.
func testOneContent(t *testing.T, a, b feed.RetentionStore) {
	if a.ID() != b.ID() {
		t.Errorf("one store has the ids %q and %q", a.ID(), b.ID())
	}
	batch := keyed("k", on("chat", "1", "2", "3"))
	events := store(t, a, batch)
	replay(t, b, batch, events)
	refuse(t, b, keyed("k", on("chat", "x")), feed.ErrKeyReused)
	refuse(t, b, ifLast(0, on("chat", "x")), &feed.LastError{Last: 3})
	expect(t, b, "chat", events)
	trim(t, b, "chat", 3)
	wantKept(t, a, "chat", 3, events)
	store(t, b, closing(on("chat")))
	refuse(t, a, on("chat", "x"), feed.ErrClosed)
	wantBounds(t, a, "chat", feed.Bounds{First: 3, Last: 3, Closed: true})
}

// While one node runs its function, the other does not run its own. Afterwards it does,
// even if the first failed.
func testAloneOfTwo(t *testing.T, a, b feed.RetentionStore) {
	failed := errors.New("failed")
	for _, want := range []error{nil, failed} {
		ran, err := a.RunExclusive(t.Context(), func(context.Context) error {
			ran, err := b.RunExclusive(t.Context(), func(context.Context) error {
				t.Error("both nodes run at once")
				return nil
			})
			if ran || err != nil {
				t.Errorf("while another node runs: got %t, %v; want false and no error", ran, err)
			}
			return want
		})
		if !ran || !errors.Is(err, want) {
			t.Errorf("got %t, %v; want true, %v", ran, err, want)
		}
		for _, k := range []feed.RetentionStore{b, a} {
			if ran, err := k.RunExclusive(t.Context(), func(context.Context) error { return nil }); !ran || err != nil {
				t.Errorf("while no node runs its function: got %t, %v; want true", ran, err)
			}
		}
	}
}

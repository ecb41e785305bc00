package sqlite

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// The writer keeps the rows of feeds between transactions. The next append must not
// undo a repair by another program.
func TestRowsOfAnotherWriter(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "chat", "1", "2")
	other, err := dial(dsn(s.path, "mode=rw"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("UPDATE feeds SET last = 7, updated = updated + 3600000", nil); err != nil {
		t.Fatal(err)
	}
	e := mustPut(t, s, "chat", "3")[0]
	if e.ID != 8 || time.Until(e.Time) < 50*time.Minute {
		t.Errorf("got %d of %v, want 8, an hour from now", e.ID, e.Time)
	}
	if _, err := other.Exec("UPDATE feeds SET closed = 1", nil); err != nil {
		t.Fatal(err)
	}
	results, err := s.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "chat", Data: "4"}}}})
	if err != nil || !errors.Is(results[0].Err, feed.ErrClosed) {
		t.Errorf("got %v and %v, want %v", results, err, feed.ErrClosed)
	}
}

// More feeds than the writer keeps rows of.
func TestRowsOfManyFeeds(t *testing.T) {
	s := newStore(t)
	drafts := make([]feed.Draft, feedRowsMost+100)
	for i := range drafts {
		drafts[i] = feed.Draft{Feed: fmt.Sprintf("chat:%d", i), Data: "x"}
	}
	for round := range feed.ID(3) {
		results, err := s.Append(t.Context(), []feed.Batch{{Drafts: drafts}})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range results[0].Events {
			if e.Feed != drafts[i].Feed || e.ID != round+1 {
				t.Fatalf("event %d: got %d of %s, want %d of %s", i, e.ID, e.Feed, round+1, drafts[i].Feed)
			}
		}
		mustPut(t, s, "chat", "x")
		w := <-s.writing
		kept := len(w.feeds.rows)
		s.writing <- w
		if kept > feedRowsMost {
			t.Errorf("%d rows are kept, want %d at most", kept, feedRowsMost)
		}
	}
}

// A feed that was asked about before it existed has the time of its closing, not
// of the question.
func TestRowOfNoFeed(t *testing.T) {
	s := newStore(t)
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return noon }
	results, err := s.Append(t.Context(), []feed.Batch{{Feed: "chat", Drafts: []feed.Draft{{Feed: "chat", Data: "x"}}, IfLast: new(feed.ID(5))}})
	if err != nil || results[0].Err == nil {
		t.Fatalf("got %v and %v, want a refusal", results, err)
	}
	s.now = func() time.Time { return noon.Add(time.Hour) }
	if _, err := s.Append(t.Context(), []feed.Batch{{Feed: "chat", Close: true}}); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), "", "", 10)
	if err != nil || len(list.Feeds) != 1 || !list.Feeds[0].Updated.Equal(noon.Add(time.Hour)) {
		t.Errorf("got %v and %v, want one feed of %v", list.Feeds, err, noon.Add(time.Hour))
	}
}

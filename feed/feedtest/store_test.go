package feedtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func fill(t *testing.T, s *Store, name string, n int) {
	t.Helper()
	var b feed.Batch
	for range n {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: "12345678"})
	}
	if _, err := s.Append(t.Context(), []feed.Batch{b}); err != nil {
		t.Fatal(err)
	}
}

func ids(events []feed.Event) (ids []feed.ID) {
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

func TestStoreRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Store)
		after  feed.ID
		limit  feed.Limit
		bounds feed.Bounds
		want   []feed.ID
	}{
		{"all", nil, 0, feed.Limit{Events: 10, Bytes: 1000}, feed.Bounds{First: 1, Last: 5}, []feed.ID{1, 2, 3, 4, 5}},
		{"two", nil, 2, feed.Limit{Events: 2, Bytes: 1000}, feed.Bounds{First: 1, Last: 5}, []feed.ID{3, 4}},
		{"at least one", nil, 2, feed.Limit{Events: 2, Bytes: 1}, feed.Bounds{First: 1, Last: 5}, []feed.ID{3}},
		{"bytes", nil, 0, feed.Limit{Events: 9, Bytes: 16}, feed.Bounds{First: 1, Last: 5}, []feed.ID{1, 2}},
		{"at the end", nil, 5, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 1, Last: 5}, nil},
		{"past the end", nil, 9, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 1, Last: 5}, nil},
		{"trimmed", func(s *Store) { _ = s.Trim(t.Context(), "a", 4) }, 1, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 4, Last: 5}, []feed.ID{4, 5}},
		{"trimmed past the end", func(s *Store) { _ = s.Trim(t.Context(), "a", 99) }, 1, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 6, Last: 5}, nil},
		{"deleted", func(s *Store) { _ = s.Trim(t.Context(), "a", 6) }, 0, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 6, Last: 5}, nil},
		{"rolled back", func(s *Store) { s.Rollback("a", 2) }, 0, feed.Limit{Events: 9, Bytes: 99}, feed.Bounds{First: 1, Last: 2}, []feed.ID{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewStore()
			fill(t, s, "a", 5)
			if c.change != nil {
				c.change(s)
			}
			p, err := s.Read(t.Context(), "a", c.after, c.limit)
			if err != nil || p.Bounds != c.bounds || !slices.Equal(ids(p.Events), c.want) {
				t.Errorf("got %v of %v, %v; want %v of %v", ids(p.Events), p.Bounds, err, c.want, c.bounds)
			}
			fill(t, s, "a", 1)
			if last := s.History("a").Last; last != c.bounds.Last+1 {
				t.Errorf("the next event has the id %d after %d", last, c.bounds.Last)
			}
		})
	}
}

func TestStoreUnwritten(t *testing.T) {
	s := NewStore()
	all, err := s.Bounds(t.Context(), []string{"a"})
	p, _ := s.Read(t.Context(), "a", 0, feed.Limit{Events: 1, Bytes: 1})
	c, _ := s.Seek(t.Context(), "a", time.Now())
	if err != nil || all[0] != feed.Unwritten || p.Bounds != feed.Unwritten || c != 0 {
		t.Errorf("got %v, %v, %v, %d", all, err, p.Bounds, c)
	}
}

func TestStoreSeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		began := time.Now()
		for range 3 {
			fill(t, s, "a", 1)
			time.Sleep(time.Second)
		}
		for after, want := range map[time.Duration]feed.ID{-time.Hour: 0, 0: 0, 1: 1, time.Second: 1, 2 * time.Second: 2, time.Hour: 3} {
			if got, _ := s.Seek(t.Context(), "a", began.Add(after)); got != want {
				t.Errorf("seek %v: got %d, want %d", after, got, want)
			}
		}
	})
}

// A gate that fails an append before the commit leaves no trace; one that
// fails it afterwards leaves the events.
func TestStoreGate(t *testing.T) {
	for at, want := range map[Point]feed.ID{AppendAsked: 0, AppendCommitted: 1} {
		s := NewStore()
		broken := errors.New("broken")
		seen := s.Through(func(_ context.Context, c Call) error {
			if c.At == at {
				return broken
			}
			return nil
		})
		_, err := seen.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "a"}}}})
		if last := s.History("a").Last; !errors.Is(err, broken) || last != want {
			t.Errorf("%s: got %v and %d events, want %d", at, err, last, want)
		}
	}
}

// A refused batch is refused alone, and uses up no ids.
func TestStoreRefuse(t *testing.T) {
	s := NewStore()
	s.Refuse(func(b feed.Batch) error {
		if b.Drafts[0].Type == "bad" {
			return feed.ErrInvalid
		}
		return nil
	})
	results, err := s.Append(t.Context(), []feed.Batch{
		{Drafts: []feed.Draft{{Feed: "a"}}},
		{Drafts: []feed.Draft{{Feed: "a", Type: "bad"}}},
		{Drafts: []feed.Draft{{Feed: "a"}}},
	})
	if err != nil || !errors.Is(results[1].Err, feed.ErrInvalid) || results[2].Events[0].ID != 2 {
		t.Errorf("got %v, %v", results, err)
	}
}

// A copy has nothing that came after it, and neither has the store after Replace.
func TestStoreReplace(t *testing.T) {
	s := NewStore()
	fill(t, s, "a", 4)
	_ = s.Trim(t.Context(), "a", 2)
	older := s.Copy()
	for range 2 {
		key := &feed.Key{Name: "k", Window: time.Hour}
		batches := []feed.Batch{{Feed: "a", Drafts: []feed.Draft{{Feed: "a", Data: "new"}}, Key: key, Close: true}}
		if r, err := s.Append(t.Context(), batches); err != nil || r[0].Replayed || r[0].Events[0].ID != 5 {
			t.Fatalf("got %v, %v, want a new event 5", r, err)
		}
		fill(t, s, "b", 1)
		_ = s.Trim(t.Context(), "a", 4)
		if now := s.Copy().Bounds("a"); now != (feed.Bounds{First: 4, Last: 5, Closed: true}) {
			t.Errorf("the store holds %v", now)
		}
		s.Replace(older)
		want := feed.Bounds{First: 2, Last: 4}
		if p := s.History("a"); p.Bounds != want || older.Bounds("a") != want || !slices.Equal(ids(p.Events), []feed.ID{2, 3, 4}) {
			t.Errorf("got %v of %v, the copy has %v, want %v", ids(p.Events), p.Bounds, older.Bounds("a"), want)
		}
		if b := s.History("b").Bounds; b != feed.Unwritten || older.Bounds("b") != feed.Unwritten {
			t.Errorf("b is %v, and %v in the copy", b, older.Bounds("b"))
		}
	}
}

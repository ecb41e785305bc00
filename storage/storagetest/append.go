package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

func testIDs(t *testing.T, open Opener) {
	s := start(t, open)
	var want []feed.Event
	for _, n := range []int{1, 1, 3, 1, 2} {
		want = append(want, publish(t, s, numbered("chat", len(want), n))...)
	}
	for i, e := range want {
		if e.ID != feed.ID(i+1) || e.Data != fmt.Sprint(i+1) {
			t.Errorf("event %d: got id %d and data %q", i+1, e.ID, e.Data)
		}
	}
	expect(t, s, "chat", want)
	expect(t, s, "news", nil)
}

// Several feeds in a batch, several batches for a feed: each result has its events in the
// order of the drafts, and so has each feed.
func testBatches(t *testing.T, open Opener) {
	s := start(t, open)
	batches := []feed.Batch{
		{Drafts: slices.Concat(drafts("a", "1"), drafts("b", "1"), drafts("a", "2"))},
		{Drafts: drafts("c", "1")},
		{Drafts: slices.Concat(drafts("b", "2", "3"), drafts("a", "3"))},
		{Drafts: drafts("a", "4", "5")},
	}
	stored := make(map[string][]feed.Event)
	for round := range 2 {
		results, err := s.Append(t.Context(), batches)
		if err != nil || len(results) != len(batches) {
			t.Fatalf("append: got %d results, %v; want %d", len(results), err, len(batches))
		}
		for i, r := range results {
			if r.Err != nil {
				t.Fatalf("batch %d: %v", i, r.Err)
			}
			if err := answers(r.Events, batches[i].Drafts); err != nil {
				t.Fatalf("round %d, batch %d: %v", round, i, err)
			}
			for _, e := range r.Events {
				stored[e.Feed] = append(stored[e.Feed], e)
			}
		}
	}
	for name, events := range stored {
		expect(t, s, name, events)
	}
}

func testEmpty(t *testing.T, open Opener) {
	s := start(t, open)
	if results, err := s.Append(t.Context(), nil); err != nil || len(results) != 0 {
		t.Errorf("no batch: got %v, %v; want no result and no error", results, err)
	}
	results, err := s.Append(t.Context(), []feed.Batch{{}, {Drafts: drafts("chat", "x")}, {}})
	if err != nil || len(results) != 3 {
		t.Fatalf("batches without drafts: got %v, %v; want three results", results, err)
	}
	for i, n := range []int{0, 1, 0} {
		if r := results[i]; r.Err != nil || len(r.Events) != n {
			t.Errorf("batch %d: got %v, want %d events", i, r, n)
		}
	}
	expect(t, s, "chat", results[1].Events)
}

// One append may have more events, and more feeds, than a statement of the store can have
// parameters.
func testLarge(t *testing.T, open Opener) {
	s := start(t, open)
	const events, feeds = 10_000, 1_500
	name := func(i int) string { return fmt.Sprintf("feed-%d", i) }
	var batch feed.Batch
	for i := range events {
		batch.Drafts = append(batch.Drafts, feed.Draft{Feed: name(i % feeds), Data: fmt.Sprint(i)})
	}
	stored := make(map[string][]feed.Event)
	for _, e := range publish(t, s, batch.Drafts) {
		stored[e.Feed] = append(stored[e.Feed], e)
	}
	for i := 0; i < feeds; i += 97 {
		expect(t, s, name(i), stored[name(i)])
	}
	publish(t, s, numbered("one", 0, events))
	if page := read(t, s, "one", 0, everything); len(page.Events) != events {
		t.Errorf("read %d events, want %d", len(page.Events), events)
	}
}

// Data is stored byte for byte: nothing is trimmed, normalised, reformatted or taken for
// an escape.
func testBytes(t *testing.T, open Opener) {
	s := start(t, open)
	ds := []feed.Draft{
		{Data: ""},
		{Data: "", Type: "empty.data"},
		{Data: "two\nlines"},
		{Data: "\n"},
		{Data: "\n\nlines around\n\n"},
		{Data: "  spaces around\t "},
		{Data: "controls \x01\x02\x1b\x7f\v\f"},
		{Data: `'; DROP TABLE events; --`},
		{Data: `quotes ' '' " "" and $1 ? :a @b %s %00`},
		{Data: `backslashes \ \\ \n \x00 \u0000 \'`},
		{Data: "caf\u00e9 and cafe\u0301"},
		{Data: "\ufeffbyte order mark, \u2028 line separator, \U0001F680, \U0010FFFF, \ufffd"},
		{Data: `{"b": 1,  "a":2, "a": 1.50e+03, "s":"\u0041\/"}`, JSON: true},
		{Data: ` [12345678901234567890, 0.1] ` + "\n", JSON: true},
		{Data: `{"same":"bytes"}`, JSON: true},
		{Data: `{"same":"bytes"}`, JSON: false},
		{Data: "null", JSON: true},
		{Data: `""`, JSON: true},
		{Data: "0", Type: "0"},
		{Data: "longest type", Type: strings.Repeat("T", 100)},
		{Data: "type", Type: "a_B.c:D/e-f"},
		{Data: strings.Repeat("x", feed.DefaultEventBytes)},
		{Data: strings.Repeat("\U0001F680\n", 6000)},
	}
	for i := range ds {
		ds[i].Feed = "chat"
	}
	together := publish(t, s, ds)
	expect(t, s, "chat", together)
	for i := range ds {
		ds[i].Feed = "news"
		publish(t, s, ds[i:i+1])
	}
	for i, e := range read(t, s, "news", 0, everything).Events {
		if err := answers([]feed.Event{e}, ds[i:i+1]); err != nil {
			t.Error(err)
		}
	}
}

// Names are compared byte by byte, even if a database would collate them otherwise.
func testNames(t *testing.T, open Opener) {
	s := start(t, open)
	longest := strings.Repeat("n", 255)
	names := []string{
		"chat", "Chat", "CHAT", "chat:1", "chat:10", "chat.1", "chat_1", "chat-1", "chatA1",
		"1", "01", "1.0", "1e0", "0x1", "a@b~c", "null", "NaN", "k", longest, longest[:254],
	}
	for i, name := range names {
		publish(t, s, numbered(name, 0, i+1))
	}
	bounds, err := s.Bounds(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if want := (feed.Bounds{First: 1, Last: feed.ID(i + 1)}); bounds[i] != want {
			t.Errorf("feed %s: got %v, want %v", name, bounds[i], want)
		}
		if page := read(t, s, name, 0, everything); len(page.Events) != i+1 {
			t.Errorf("feed %s: read %d events, want %d", name, len(page.Events), i+1)
		}
	}
}

// The time of an event is that of its commit: between the call and its return,
// rounded.
func testTimes(t *testing.T, open Opener) {
	s := start(t, open)
	var all []feed.Event
	for range 20 {
		before := time.Now().Truncate(time.Millisecond)
		events := publish(t, s, slices.Concat(numbered("chat", 0, 2), numbered("news", 0, 1)))
		after := time.Now()
		for _, e := range events {
			if e.Time.Before(before) || e.Time.After(after) {
				t.Errorf("event has time %v, and was appended from %v to %v", e.Time, before, after)
			}
		}
		all = append(all, events[:2]...)
	}
	if !slices.IsSortedFunc(all, func(a, b feed.Event) int { return a.Time.Compare(b.Time) }) {
		t.Error("times fall within a feed")
	}
	if diff := cmp.Diff(all, read(t, s, "chat", 0, everything).Events); diff != "" {
		t.Errorf("times are read otherwise than they were answered (-answered +read):\n%s", diff)
	}
}

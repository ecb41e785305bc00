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

func testRead(t *testing.T, open Opener) {
	s := start(t, open)
	page := read(t, s, "nowhere", 0, everything)
	if page.Bounds != feed.Unwritten || len(page.Events) != 0 {
		t.Errorf("feed never written to: got %v, want an empty page", page)
	}
	page = read(t, s, "nowhere", 7, everything)
	if page.Bounds != feed.Unwritten || len(page.Events) != 0 {
		t.Errorf("feed never written to, after 7: got %v, want an empty page", page)
	}
	// The neighbours must not show in pages of the feed between them.
	publish(t, s, numbered("a", 0, 10))
	events := publish(t, s, numbered("b", 0, 10))
	publish(t, s, numbered("c", 0, 10))
	for _, after := range []feed.ID{0, 1, 5, 9, 10, 11, 1 << 40, feed.MaxID - 1, feed.MaxID} {
		page := read(t, s, "b", after, everything)
		if diff := cmp.Diff(events[min(after, 10):], page.Events, sameEmpty); diff != "" {
			t.Errorf("after %d (-want +got):\n%s", after, diff)
		}
		if want := (feed.Bounds{First: 1, Last: 10}); page.Bounds != want {
			t.Errorf("after %d: got bounds %v, want %v", after, page.Bounds, want)
		}
	}
}

func testReadLimits(t *testing.T, open Opener) {
	s := start(t, open)
	ds := drafts("chat", strings.Repeat("x", 100), "", strings.Repeat("é", 50), "tiny", strings.Repeat("x", 5000), "last")
	publish(t, s, ds)
	tests := []struct {
		after         feed.ID
		events, bytes int
		want          int
	}{
		{0, 1, 1 << 30, 1},
		{0, 2, 1 << 30, 2},
		{0, 6, 1 << 30, 6},
		{0, 7, 1 << 30, 6},
		{2, 3, 1 << 30, 3},
		{0, 1 << 30, 1 << 30, 6},
		{0, 10, 1, 1}, // at least one, however large
		{4, 10, 1, 1}, // 5,000 bytes
		{0, 10, 99, 1},
		{0, 10, 100, 1}, // the first has them: it stops
		{0, 10, 101, 3}, // the empty one adds none; é is two bytes
		{0, 10, 200, 3},
		{0, 10, 201, 4},
		{0, 10, 205, 5},
		{0, 10, 5204, 5},
		{0, 10, 5205, 6},
		{1, 10, 1, 2}, // the empty one has no byte yet
		{1, 1, 1, 1},
		{5, 10, 1, 1},
		{6, 1, 1, 0},
	}
	for _, test := range tests {
		page := read(t, s, "chat", test.after, feed.Limit{Events: test.events, Bytes: test.bytes})
		if len(page.Events) != test.want {
			t.Errorf("after %d, at most %d events and %d bytes: got %d events, want %d",
				test.after, test.events, test.bytes, len(page.Events), test.want)
		}
	}
	// Small pages have the same events as one large page.
	publish(t, s, numbered("long", 0, 1000))
	var paged []feed.Event
	for {
		page := read(t, s, "long", feed.ID(len(paged)), feed.Limit{Events: 256, Bytes: 500})
		if len(page.Events) == 0 {
			break
		}
		paged = append(paged, page.Events...)
	}
	expect(t, s, "long", paged)
}

// testEnds tests a store that is a [feed.Comparer]: Ends agrees with the bounds and
// the events that other methods return.
func testEnds(t *testing.T, open Opener) {
	s := start(t, open)
	c, ok := s.(feed.Comparer)
	if !ok {
		t.Skip("not a feed.Comparer")
	}
	ends := func(places ...feed.Place) []feed.End {
		t.Helper()
		got, err := c.Ends(t.Context(), places)
		if err != nil || len(got) != len(places) {
			t.Fatalf("got %d ends of %d places, %v", len(got), len(places), err)
		}
		return got
	}
	ends()
	ends(feed.Place{Feed: "a"})
	epoch := c.Epoch()
	var events []feed.Event
	for i := range 5 {
		events = append(events, publish(t, s, numbered("a", i, 1))...)
		time.Sleep(2 * time.Millisecond) // so that the times differ
	}
	publish(t, s, numbered("other", 0, 7))
	if err := s.(feed.RetentionStore).Trim(t.Context(), "a", 3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), []feed.Batch{{Feed: "closed", Close: true}}); err != nil {
		t.Fatal(err)
	}
	of := func(then time.Time) feed.End {
		return feed.End{Bounds: feed.Bounds{First: 3, Last: 5}, Newest: events[4].Time, Then: then}
	}
	none := feed.End{Bounds: feed.Unwritten}
	empty := none
	empty.Closed = true
	got := ends(feed.Place{Feed: "nowhere", ID: 1}, feed.Place{Feed: "a"}, feed.Place{Feed: "a", ID: 2},
		feed.Place{Feed: "a", ID: 3}, feed.Place{Feed: "a", ID: 5}, feed.Place{Feed: "a", ID: 4},
		feed.Place{Feed: "a", ID: 6}, feed.Place{Feed: "a", ID: 1<<64 - 1}, feed.Place{Feed: "closed", ID: 1})
	want := []feed.End{none, of(time.Time{}), of(time.Time{}), of(events[2].Time), of(events[4].Time), of(events[3].Time),
		of(time.Time{}), of(time.Time{}), empty}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
	places := make([]feed.Place, 3000)
	for i := range places {
		places[i] = feed.Place{Feed: "a", ID: feed.ID(i % 7)}
	}
	for i, e := range ends(places...) {
		if id := i % 7; e.Bounds != want[1].Bounds || e.Then.IsZero() != (id < 3 || id > 5) {
			t.Fatalf("place %d: got %v", i, e)
		}
	}
	if now := c.Epoch(); now != epoch {
		t.Errorf("the epoch of a store that is what it was goes from %d to %d", epoch, now)
	}
}

func testBounds(t *testing.T, open Opener) {
	s := start(t, open)
	bounds := func(names ...string) []feed.Bounds {
		t.Helper()
		got, err := s.Bounds(t.Context(), names)
		if err != nil {
			t.Fatalf("bounds: %v", err)
		}
		if len(got) != len(names) {
			t.Fatalf("got %d bounds for %d feeds", len(got), len(names))
		}
		return got
	}
	bounds()
	if got := bounds("nowhere"); got[0] != feed.Unwritten {
		t.Errorf("got %v for a feed never written to, want %v", got[0], feed.Unwritten)
	}
	publish(t, s, numbered("two", 0, 2))
	publish(t, s, numbered("three", 0, 3))
	up := func(last feed.ID) feed.Bounds { return feed.Bounds{First: 1, Last: last} }
	got := bounds("three", "nowhere", "two", "three", "nowhere", "two", "two")
	want := []feed.Bounds{up(3), up(0), up(2), up(3), up(0), up(2), up(2)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bounds (-want +got):\n%s", diff)
	}
	// Thousands of feeds, every third one written to.
	var names []string
	var ds []feed.Draft
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("many:%d", i))
		if i%3 == 0 {
			ds = append(ds, numbered(names[i], 0, 1+i%2)...)
		}
	}
	publish(t, s, ds)
	slices.Reverse(names)
	for i, got := range bounds(names...) {
		n := len(names) - 1 - i
		want := feed.Unwritten
		if n%3 == 0 {
			want = up(feed.ID(1 + n%2))
		}
		if got != want {
			t.Fatalf("feed %s: got %v, want %v", names[i], got, want)
		}
	}
}

func testSeek(t *testing.T, open Opener) {
	s := start(t, open)
	seek := func(name string, at time.Time) feed.ID {
		t.Helper()
		c, err := s.Seek(t.Context(), name, at)
		if err != nil {
			t.Fatalf("seek %s: %v", name, err)
		}
		return c
	}
	if got := seek("nowhere", time.Now()); got != 0 {
		t.Errorf("feed never written to: got %d, want 0", got)
	}
	// Groups of events of one time each, some of them more than one
	// millisecond apart.
	var events []feed.Event
	for _, n := range []int{1, 3, 1, 40, 2, 1} {
		events = append(events, publish(t, s, numbered("chat", len(events), n))...)
		publish(t, s, numbered("noise", 0, 5))
		waitUntil(events[len(events)-1].Time.Add(time.Duration(1+n%3) * time.Millisecond))
	}
	first, last := events[0].Time, events[len(events)-1].Time
	times := []time.Time{first.AddDate(-50, 0, 0), time.Unix(0, 0), last.AddDate(1000, 0, 0), {}}
	for _, e := range events {
		for _, d := range []time.Duration{0, 1, -1, time.Millisecond, -time.Millisecond, 999_999} {
			times = append(times, e.Time.Add(d), e.Time.Add(d).In(time.FixedZone("", 3600)))
		}
	}
	for _, at := range times {
		want := slices.IndexFunc(events, func(e feed.Event) bool { return !e.Time.Before(at) })
		if want < 0 {
			want = len(events)
		}
		if got := seek("chat", at); got != feed.ID(want) {
			t.Errorf("time %v: got cursor %d, want %d", at, got, want)
		}
	}
}

// waitUntil returns once the clock has reached at.
func waitUntil(at time.Time) { <-time.After(time.Until(at)) }

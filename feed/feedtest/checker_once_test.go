package feedtest

import (
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
)

func result(replayed bool, id feed.ID) feed.Result {
	return feed.Result{Events: events(id, id), Replayed: replayed}
}

// Stories about keys, closes and trims. A story without a fault has an empty want.
func TestCheckerOfKeysAndCloses(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(*story)
		want string
	}{
		{"closed", func(s *story) { s.close(10); s.f.Saw(events(1, 10)...); s.f.SawClosed() }, ""},
		{"closed, and told again", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.close(10)
			s.f.SawClosed()
			s.f.Resume(10)
			s.f.Opened(10)
			s.f.SawClosed()
		}, ""},
		{"told that it is closed by a store that was rolled back", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.close(10)
			s.rollback(9)
			s.f.SawClosed()
			s.f.Resume(10)
			s.f.Opened(10)
			s.f.SawGap(ahead(10, 10))
		}, ""},
		{"told too early", func(s *story) {
			s.close(10)
			s.f.Saw(events(1, 9)...)
			s.f.SawClosed()
			s.f.Resume(9)
			s.f.Opened(9)
			s.f.Saw(event(10))
			s.f.SawClosed()
		}, "learned at 9 that the feed is closed, which it was at [10]"},
		{"told of an open feed", func(s *story) { s.f.Saw(events(1, 10)...); s.f.SawClosed() }, "which it was at []"},
		{"never told", func(s *story) { s.close(10); s.f.Saw(events(1, 10)...) }, "learned that the feed is closed: false"},
		{"told, and the feed goes on", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.close(10)
			s.f.SawClosed()
			s.rollback(10)
		}, "learned that the feed is closed: true"},
		{"an event after it was told", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.close(10)
			s.f.SawClosed()
			s.f.Saw(event(11))
		}, "after the news"},
		{"an event after the close", func(s *story) {
			s.close(10)
			s.Acked(event(11))
			s.page.Last, s.page.Events = 11, events(1, 11)
			s.f.Saw(events(1, 11)...)
			s.f.SawClosed()
		}, "event 11 was stored after the close at 10"},
		{"a close that is not stored", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.close(10)
			s.f.SawClosed()
			s.page.Closed = false
		}, "closed is false, should be true"},
		{"a close that nobody asked for", func(s *story) { s.f.Saw(events(1, 10)...); s.page.Closed = true }, "closed is true, should be false"},
		{"two closes", func(s *story) { s.close(10); s.close(10); s.f.Saw(events(1, 10)...); s.f.SawClosed() }, "was closed at 10 and at 10"},
		{"a refusal", func(s *story) { s.f.Saw(events(1, 10)...); s.close(10); s.RefusedClosed("a"); s.f.SawClosed() }, ""},
		{"a refusal of an open feed", func(s *story) { s.f.Saw(events(1, 10)...); s.RefusedClosed("a") }, "which it never was"},

		{"a key", func(s *story) {
			s.keyed(result(false, 11))
			s.keyed(result(true, 11))
			s.keyed(result(true, 11))
			s.f.Saw(events(1, 11)...)
		}, ""},
		{"a key that is replayed by who was not answered", func(s *story) {
			s.Keyed("a", "k", feed.Draft{Feed: "a", Type: "note", Data: "data 11"})
			s.Stored(event(11))
			s.keyed(result(true, 11))
			s.f.Saw(events(1, 11)...)
		}, ""},
		{"a key that was rolled back", func(s *story) {
			s.keyed(result(false, 11))
			s.rollback(9)
			other := event(11)
			other.ID = 10
			s.keyed(feed.Result{Events: []feed.Event{other}})
			s.page.Last, s.page.Events = 10, append(events(1, 9), other)
			s.f.Saw(append(events(1, 9), other)...)
		}, ""},
		{"a key that closes", func(s *story) {
			s.f.Saw(events(1, 10)...)
			for _, replayed := range []bool{false, true} {
				s.Keyed("a", "close")
				s.AckedKey("a", "close", feed.Result{Replayed: replayed})
			}
			s.close(10)
			s.f.SawClosed()
		}, ""},
		{"a key that is new twice", func(s *story) {
			s.keyed(result(false, 11))
			s.keyed(result(false, 11))
			s.f.Saw(events(1, 11)...)
		}, "was new again"},
		{"a key that is stored twice", func(s *story) {
			s.keyed(result(false, 11))
			again := event(11)
			again.ID = 12
			s.Stored(again)
			s.page.Last, s.page.Events = 12, append(s.page.Events, again)
			s.f.Saw(s.page.Events...)
		}, "the key k is stored as event 11 and as 12"},
		{"a key that is answered otherwise", func(s *story) {
			s.keyed(result(false, 11))
			s.keyed(result(true, 10))
			s.f.Saw(events(1, 11)...)
		}, "and then with 1 others"},
		{"a key that is answered with more", func(s *story) {
			s.keyed(result(false, 11))
			s.keyed(feed.Result{Events: events(10, 11), Replayed: true})
			s.f.Saw(events(1, 11)...)
		}, "and then with 2 others"},
		{"a key that was known before", func(s *story) { s.keyed(result(true, 11)); s.f.Saw(events(1, 11)...) }, "known before it was used"},
		{"a key that was answered and not stored", func(s *story) {
			s.keyed(result(false, 11))
			s.f.Saw(events(1, 10)...)
			s.page.Last, s.page.Events = 10, events(1, 10)
		}, "event 11 was acknowledged"},

		{"gone", func(s *story) {
			s.f.Saw(events(1, 3)...)
			s.trim(6)
			s.f.Gone(6)
			s.f.SawGap(trimmed(3, 6))
			s.f.Saw(events(6, 10)...)
		}, ""},
		{"gone, on another connection", func(s *story) {
			s.trim(6)
			s.f.Gone(6)
			s.f.Resume(0)
			s.f.Opened(0)
			s.f.Saw(events(1, 10)...)
		}, ""},
		{"gone, and back with an older store", func(s *story) {
			s.trim(6)
			s.f.Gone(6)
			s.Untrimmed("a")
			s.page.First, s.page.Events = 1, events(1, 10)
			s.f.Saw(events(1, 10)...)
		}, ""},
		{"served too late", func(s *story) {
			s.trim(6)
			s.f.Saw(events(1, 3)...)
			s.f.Gone(6)
			s.f.Saw(events(4, 10)...)
		}, "event 4, long after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory()
			c.tell(&s)
			s.End("a", s.page)
			err := s.Err()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want a fault with %q", err, c.want)
			}
		})
	}
}

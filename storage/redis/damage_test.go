package redis_test

import (
	"math"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

const exhausted = "18446744073709551615-18446744073709551615"

// damage is a change that an operator makes by hand to the keys of a feed.
type damage struct {
	name  string
	do    func(t *testing.T, feed, wake string)
	reset bool // by deleting a stream
}

func damages(c *goredis.Client) []damage {
	add := func(t *testing.T, key, id string, fields ...string) {
		t.Helper()
		if err := c.XAdd(t.Context(), &goredis.XAddArgs{Stream: key, ID: id, Values: fields}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return []damage{
		{"feed of the wrong type", func(t *testing.T, feed, _ string) {
			c.Del(t.Context(), feed)
			c.Set(t.Context(), feed, "x", 0)
		}, true},
		{"wake of the wrong type", func(t *testing.T, _, wake string) {
			c.Del(t.Context(), wake)
			c.SAdd(t.Context(), wake, "x")
		}, true},
		{"both of the wrong type", func(t *testing.T, feed, wake string) {
			c.Del(t.Context(), wake, feed)
			c.HSet(t.Context(), wake, "x", "y")
			c.HSet(t.Context(), feed, "x", "y")
		}, true},
		{"exhausted feed", func(t *testing.T, feed, _ string) { add(t, feed, exhausted, "x", "y") }, true},
		{"exhausted wake", func(t *testing.T, _, wake string) { add(t, wake, exhausted, "x", "y") }, true},
		{"exhausted feed without entries", func(t *testing.T, feed, _ string) {
			add(t, feed, exhausted, "x", "y")
			c.XTrimMaxLen(t.Context(), feed, 0)
		}, true},
		{"feed far ahead", func(t *testing.T, feed, _ string) { add(t, feed, "9000000-0", "1700000000000:", "y") }, true},
		{"feed past all ids", func(t *testing.T, feed, _ string) { add(t, feed, "18446744073709551615-0", "1700000000000:", "y") }, true},
		{"garbage under the next id", func(t *testing.T, feed, _ string) { add(t, feed, "2-0", "x", "y", "z", "") }, true},
		{"a forged next event", func(t *testing.T, feed, _ string) { add(t, feed, "2-0", "1700000000000:", "forged") }, true},
		{"an id between two", func(t *testing.T, feed, _ string) { add(t, feed, "1-7", "x", "y") }, false},
		{"forged and announced", func(t *testing.T, feed, wake string) {
			add(t, feed, "2-0", "1700000000000:", "forged")
			add(t, wake, "*", "chat", "2-2-12345")
		}, true},
		{"garbage on the wake stream", func(t *testing.T, _, wake string) {
			add(t, wake, "*", "x", "y")
			add(t, wake, "*", "chat", "5-3-0")
			add(t, wake, "*", "chat", "0-0-0")
			add(t, wake, "*", "chat", "1-18446744073709551615-0")
			add(t, wake, "*", strings.Repeat("x", 300), "1-2-0")
			add(t, wake, "*", "", "")
		}, false},
		{"news of what is not there", func(t *testing.T, _, wake string) {
			add(t, wake, "*", "chat", "2-9223372036854775807-0")
			add(t, wake, "*", "chat", "9223372036854775807-9223372036854775807-0")
		}, false},
		{"a wake stream from the future", func(t *testing.T, _, wake string) { add(t, wake, "99999999999999-5", "x", "y") }, false},
	}
}

// A change of our keys by hand reaches no subscriber, and its effect ends with the
// next event at the latest.
func TestDamage(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	c := direct(t, server.URL())
	for _, test := range damages(c) {
		t.Run(test.name, func(t *testing.T) {
			o := options()
			w := newWorld()
			n := join(t, w, server.URL(), o, "chat", "news")
			n.up(5 * time.Second)
			teller := open(t, server.URL(), o)
			defer teller.Close()
			if err := tell(teller, w.commit("chat", 1)); err != nil {
				t.Fatal(err)
			}
			n.arrives(time.Second)
			key := keysOf(t, c, o, "feed:chat")[0]
			test.do(t, key, strings.TrimSuffix(key, "feed:chat")+"wake")

			for range 3 {
				if err := tell(teller, w.commit("chat", 1)); err != nil {
					t.Errorf("tell: %v", err)
				}
			}
			n.arrives(2500 * time.Millisecond)
			flows(t, teller, n, "chat")
			if err := tell(teller, w.commit("news", 1)); err != nil {
				t.Errorf("tell of another feed: %v", err)
			}
			n.arrives(2 * time.Second)
			if s := teller.Stats(); (s.Resets > 0) != test.reset {
				t.Errorf("%d streams were deleted, want some: %t", s.Resets, test.reset)
			}
			if err := n.bus.Ping(t.Context()); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

// A store that was set back to an older state meets its own future in Redis:
// events that never happened, under ids that are given again.
func TestRollback(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat")
	n.up(5 * time.Second)
	if err := tell(teller, n.world.commit("chat", 50)); err != nil {
		t.Fatal(err)
	}
	n.arrives(time.Second)
	n.world.rollback("chat", 45)
	n.mu.Lock()
	n.cursors["chat"] = 45 // as a hub does when it compares
	n.mu.Unlock()
	// Redis still has old events under the first of these ids, and none under the
	// last. In both cases the new event must arrive.
	if err := tell(teller, n.world.commit("chat", 10)); err != nil {
		t.Fatal(err)
	}
	n.arrives(time.Second)
	flows(t, teller, n, "chat")
	if s := teller.Stats(); s.Resets == 0 || s.Refused == 0 {
		t.Errorf("stats: %+v", s)
	}
}

// A node takes from Redis only what a feed can hold.
func TestDecoding(t *testing.T) {
	server := testserver.StartRedis(t)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat")
	flows(t, teller, n, "chat")
	// A broken node tells invalid events with the right checksums. The receiving node
	// refuses them. A carriage return would end a line in a browser.
	for _, e := range []feed.Event{
		{Data: "a\rdata: b"}, {Data: "a\x00"}, {Data: "\xff"}, {Type: "feed.open"}, {Type: "a b"}, {Type: "error"},
		{Time: time.UnixMilli(math.MaxInt64 / 2)}, {Time: time.UnixMilli(-5)},
	} {
		e.Feed, e.ID = "chat", n.world.last("chat")+1
		n.world.commit("chat", 1)
		_, before, _ := n.counts()
		if err := tell(teller, []feed.Event{e}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Second, "the node is sent to the store", func() bool {
			_, grew, _ := n.counts()
			return grew > before
		})
	}
}

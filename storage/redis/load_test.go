package redis_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
	"go.uber.org/goleak"
)

// Nodes that write to one feed overtake each other between commit and tell.
// Redis refuses what comes late, and readers get it from the store.
func TestOvertaking(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	n := join(t, newWorld(), server.URL(), o, "chat")
	n.up(5 * time.Second)
	const tellers, publishers, each = 2, 4, 200
	var stats redis.Stats
	var work sync.WaitGroup
	buses := make([]*redis.Bus, tellers)
	for i := range buses {
		buses[i] = open(t, server.URL(), o)
		defer buses[i].Close()
		for range publishers {
			work.Go(func() {
				for range each {
					if err := tell(buses[i], n.world.commit("chat", 1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	work.Wait()
	n.arrives(2 * time.Second)
	flows(t, buses[0], n, "chat")
	for _, b := range buses {
		s := b.Stats()
		stats.Refused += s.Refused
		stats.Resets += s.Resets
	}
	if stats.Resets != 0 {
		t.Errorf("%d streams were deleted although nothing was wrong with them", stats.Resets)
	}
	live, grew, _ := n.counts()
	t.Logf("of %d events %d were refused, %d arrived by the bus, %d times by the store", tellers*publishers*each, stats.Refused, live, grew)
}

// A node is held up until the wake stream has been trimmed past its position. It gets
// a call of Missed.
func TestTrimmedPast(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat", "news")
	flows(t, teller, n, "chat")
	_, _, before := n.counts()
	n.mu.Lock()
	for _, name := range []string{"chat", "news"} {
		if err := tell(teller, n.world.commit(name, 1)); err != nil {
			t.Error(err)
		}
	}
	others := newWorld()
	for range 6000 {
		if err := tell(teller, others.commit("nobody's", 1)); err != nil {
			t.Error(err)
			break
		}
	}
	n.mu.Unlock()
	eventually(t, 3*time.Second, "the node hears that it missed something", func() bool {
		_, _, missed := n.counts()
		return missed > before
	})
	n.arrives(time.Second)
	flows(t, teller, n, "news")
}

// Streams are bounded in length, and expire when nothing has been told for a while.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	url := testserver.RedisURL(t)
	o := options()
	o.StreamLength, o.Expiry = 50, time.Second
	teller, n := pair(t, url, o, "chat")
	c := direct(t, url)
	for range 20 {
		if err := tell(teller, n.world.commit("chat", 100)); err != nil {
			t.Fatal(err)
		}
	}
	n.arrives(time.Second)
	if got := c.XLen(t.Context(), keysOf(t, c, o, "feed:chat")[0]).Val(); got < 50 || got > 250 {
		t.Errorf("the stream has %d entries, want about 50", got)
	}
	eventually(t, 5*time.Second, "everything is gone", func() bool { return len(keysOf(t, c, o, "")) == 0 })
	flows(t, teller, n, "chat")
	n.up(time.Second)
}

// A bus that is closed leaves nothing behind.
func TestNothingLeft(t *testing.T) {
	server := testserver.StartRedis(t)
	before := goleak.IgnoreCurrent()
	for range 10 {
		o := options()
		n := join(t, newWorld(), server.URL(), o, "chat")
		flows(t, n.bus, n, "chat")
		n.stop()
	}
	goroutinesEnd(t, before)
	c := direct(t, server.URL())
	eventually(t, 5*time.Second, "all connections are closed", func() bool {
		list, err := c.ClientList(t.Context()).Result()
		return err == nil && strings.Count(list, "\n") == 1
	})
}

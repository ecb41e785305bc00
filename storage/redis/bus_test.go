package redis_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/storagetest"
	"github.com/rejoin/rejoin/storage/testserver"
)

func TestBus(t *testing.T) {
	t.Parallel()
	url := testserver.RedisURL(t)
	storagetest.TestBus(t, func(t *testing.T) storagetest.Joiner {
		o := redis.Options{StoreID: named(rand.Text()), Prefix: "test"}
		return func(t *testing.T) feed.Bus { return open(t, url, o) }
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	url := testserver.RedisURL(t)
	storagetest.TestSignals(t, func(t *testing.T) storagetest.Joiner {
		o := redis.Options{StoreID: named(rand.Text()), Prefix: "test"}
		return func(t *testing.T) feed.Bus { return open(t, url, o) }
	})
}

func TestNodes(t *testing.T) {
	t.Parallel()
	url := testserver.RedisURL(t)
	storagetest.TestCluster(t, func(t *testing.T) (feed.Store, storagetest.Joiner) {
		o := options()
		return feedtest.NewStore(), func(t *testing.T) feed.Bus { return open(t, url, o) }
	})
}

func open(t testing.TB, url string, o redis.Options) *redis.Bus {
	t.Helper()
	b, err := redis.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRoundTrips: the time of a Tell counts, and so does one that fails.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	teller, n := pair(t, server.URL(), options(), "chat")
	n.up(5 * time.Second)
	flows(t, teller, n, "chat")
	_, before, _ := teller.RoundTrips().Read()
	const pause = 300 * time.Millisecond
	if err := direct(t, server.URL()).ClientPause(t.Context(), pause).Err(); err != nil {
		t.Fatal(err)
	}
	if err := tell(teller, n.world.commit("chat", 1)); err != nil {
		t.Error(err)
	}
	server.Kill()
	if err := tell(teller, n.world.commit("chat", 1)); err == nil {
		t.Error("a Redis that was killed has answered")
	}
	// The pause may have begun a moment before the call.
	if _, after, sum := teller.RoundTrips().Read(); after < before+2 || sum < pause.Seconds()/2 {
		t.Errorf("%d round trips became %d, and took %v s", before, after, sum)
	}
	if _, count, _ := n.bus.RoundTrips().Read(); count == 0 {
		t.Error("a node that reads events from Redis has no round trips")
	}
}

package redis_test

import (
	"crypto/rand"
	"testing"

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

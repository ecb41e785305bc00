package redis

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
)

// keyspace names the keys of one store.
type keyspace struct {
	storeID string
	wakes   []string // the wake stream of each shard
	feeds   []string // the prefix of the feeds' keys in each shard
	signals string   // a channel

	kept []atomic.Int64 // when the expiry of each wake stream was last extended, in Unix seconds
}

// checkPart reports whether s can be a part of all keys.
func checkPart(what, s string) error {
	// Redis Cluster hashes only the part of a key in its first braces.
	if s == "" || strings.ContainsAny(s, "{}") {
		return fmt.Errorf("the %s %q is empty or has a brace in it", what, s)
	}
	return nil
}

func newKeyspace(prefix, storeID string, shards int) *keyspace {
	k := &keyspace{
		storeID: storeID,
		wakes:   make([]string, shards),
		feeds:   make([]string, shards),
		signals: prefix + ":" + storeID + ":signals",
		kept:    make([]atomic.Int64, shards),
	}
	for i := range shards {
		shard := prefix + ":" + storeID + ":{" + strconv.Itoa(i) + "}:"
		k.wakes[i] = shard + "wake"
		k.feeds[i] = shard + "feed:"
	}
	return k
}

// keys returns the keys for the store's current id.
func (b *Bus) keys() *keyspace {
	id := b.storeID()
	if k := b.current.Load(); k.storeID == id {
		return k
	}
	b.moving.Lock()
	defer b.moving.Unlock()
	k := b.current.Load()
	if k.storeID != id {
		b.logger.Info("the store's id has changed: it was restarted or replaced; its events now have other keys", "before", k.storeID, "now", id)
		k = newKeyspace(b.prefix, id, len(k.wakes))
		b.current.Store(k)
	}
	return k
}

// shard returns the shard of a feed: FNV-1a, on which all nodes and all versions of
// this program have to agree.
func (k *keyspace) shard(name string) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return int(h % uint32(len(k.wakes)))
}

func (k *keyspace) feed(shard int, name string) string { return k.feeds[shard] + name }

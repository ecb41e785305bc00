package redis

import (
	"fmt"
	"strconv"
	"strings"
)

// keyspace names the keys of one store.
type keyspace struct {
	wakes   []string // the wake stream of each shard
	feeds   []string // what the keys of each shard's feeds begin with
	signals string   // a channel
}

func newKeyspace(prefix, storeID string, shards int) (keyspace, error) {
	for what, s := range map[string]string{"prefix": prefix, "store id": storeID} {
		// Redis hashes what stands in the first braces of a key.
		if s == "" || strings.ContainsAny(s, "{}") {
			return keyspace{}, fmt.Errorf("the %s %q is empty or has a brace in it", what, s)
		}
	}
	k := keyspace{
		wakes:   make([]string, shards),
		feeds:   make([]string, shards),
		signals: prefix + ":" + storeID + ":signals",
	}
	for i := range shards {
		shard := prefix + ":" + storeID + ":{" + strconv.Itoa(i) + "}:"
		k.wakes[i] = shard + "wake"
		k.feeds[i] = shard + "feed:"
	}
	return k, nil
}

// shard returns the shard of a feed. All nodes have to agree on it, and all
// versions of this program: it is FNV-1a, for good.
func (k *keyspace) shard(name string) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return int(h % uint32(len(k.wakes)))
}

func (k *keyspace) feed(shard int, name string) string { return k.feeds[shard] + name }

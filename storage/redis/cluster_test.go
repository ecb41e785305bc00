package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/storagetest"
	"github.com/rejoin/rejoin/storage/testserver"
)

const slots = 16384

// startCluster starts a cluster of masters that share the slots evenly.
func startCluster(t *testing.T, masters int) []*testserver.Redis {
	t.Helper()
	servers := make([]*testserver.Redis, masters)
	for i := range servers {
		servers[i] = testserver.StartRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-require-full-coverage", "no", "--cluster-port", strconv.Itoa(testserver.FreePort(t)))
		c := direct(t, servers[i].URL())
		from, to := i*slots/masters, (i+1)*slots/masters-1
		if err := c.ClusterAddSlotsRange(t.Context(), from, to).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	first := direct(t, servers[0].URL())
	for _, s := range servers[1:] {
		host, port, _ := strings.Cut(s.Addr(), ":")
		myself, err := direct(t, s.URL()).ClusterNodes(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		_, bus, _ := strings.Cut(myself, "@")
		bus, _, _ = strings.Cut(bus, " ")
		if err := first.Do(t.Context(), "cluster", "meet", host, port, bus).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers {
		c := direct(t, s.URL())
		eventually(t, 20*time.Second, "the cluster is complete", func() bool {
			info, err := c.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots))
		})
	}
	return servers
}

func TestCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t, 3)
	url := "redis+cluster://" + servers[0].Addr() + "," + servers[1].Addr()

	t.Run("suite", func(t *testing.T) {
		storagetest.TestBus(t, func(t *testing.T) storagetest.Joiner {
			o := options()
			return func(t *testing.T) feed.Bus { return open(t, url, o) }
		})
	})
	t.Run("signals", func(t *testing.T) {
		storagetest.TestSignals(t, func(t *testing.T) storagetest.Joiner {
			o := options()
			return func(t *testing.T) feed.Bus { return open(t, url, o) }
		})
	})
	feeds := make([]string, 40)
	for i := range feeds {
		feeds[i] = fmt.Sprintf("feed:%d", i)
	}
	o := options()
	teller, n := pair(t, url, o, feeds...)
	e := hear(t, url, o)
	n.up(5 * time.Second)
	for _, name := range feeds {
		flows(t, teller, n, name)
	}
	e.hears(teller, 5*time.Second)

	t.Run("a user of its own", func(t *testing.T) {
		for _, s := range servers {
			allow(t, s, "+cluster|slots", "+asking")
		}
		o := options()
		url := "redis+cluster://rejoin:x@" + servers[0].Addr()
		teller, n := pair(t, url, o, "chat", "news", "more")
		for _, name := range []string{"chat", "news", "more"} {
			flows(t, teller, n, name)
		}
		hear(t, url, o).hears(teller, 5*time.Second)
	})
	t.Run("a slot moves", func(t *testing.T) {
		for range 2 { // there and back
			move(t, servers, o.Prefix+":"+o.StoreID()+":{3}:wake", func() {
				for _, name := range feeds {
					if err := tell(teller, n.world.commit(name, 1)); err != nil {
						t.Error(err)
					}
				}
				n.arrives(2 * time.Second)
			})
		}
		for _, name := range feeds {
			flows(t, teller, n, name)
		}
		if s := n.bus.Stats(); s.Reconnects > 0 {
			t.Errorf("stats: %+v\n%s", s, n.log)
		}
	})
	t.Run("the slot of the signals moves", func(t *testing.T) {
		for range 2 {
			move(t, servers, o.Prefix+":"+o.StoreID()+":signals", func() { e.hears(teller, 2*time.Second) })
		}
	})
	t.Run("a server is away", func(t *testing.T) {
		testServerAway(t, servers[2], teller, n, feeds)
		e.hears(teller, 3*time.Second)
	})
	t.Run("the server of the signals is away", func(t *testing.T) {
		away := owner(t, servers, o.Prefix+":"+o.StoreID()+":signals")
		away.Pause()
		defer away.Resume()
		time.Sleep(3 * time.Second) // the fault has to last
		if err := sendSignal(teller); err == nil {
			t.Error("signal without its server: no error")
		}
		away.Resume()
		e.hears(teller, 3*time.Second)
	})
}

// owner returns the server that has the slot of a key.
func owner(t *testing.T, servers []*testserver.Redis, key string) *testserver.Redis {
	t.Helper()
	for _, s := range servers {
		if direct(t, s.URL()).Exists(t.Context(), key).Err() == nil {
			return s
		}
	}
	t.Fatalf("no server has the slot of %s", key)
	return nil
}

func testServerAway(t *testing.T, server *testserver.Redis, teller *redis.Bus, n *node, feeds []string) {
	server.Pause()
	defer server.Resume()
	// Two thirds of the feeds are not affected.
	reached := 0
	for _, name := range feeds {
		live, _, _ := n.counts()
		if err := tell(teller, n.world.commit(name, 1)); err == nil {
			eventually(t, time.Second, "the event arrives", func() bool { now, _, _ := n.counts(); return now > live })
			reached++
		} else if len(feeds)-reached > 30 {
			break // each of these takes as long as a tell may
		}
	}
	if reached == 0 {
		t.Error("no feed flows while one of three servers is away")
	}
	server.Resume()
	n.up(5 * time.Second)
	n.arrives(2 * time.Second)
	for _, name := range feeds {
		flows(t, teller, n, name)
	}
}

// move gives the slot of a key, with all keys in it, to another server. It calls
// check at the start of the move, when all keys have moved, and when the slot has
// moved.
func move(t *testing.T, servers []*testserver.Redis, key string, check func()) {
	t.Helper()
	clients := make(map[string]*goredis.Client)
	ids := make(map[string]string)
	for _, s := range servers {
		clients[s.Addr()] = direct(t, s.URL())
		id, err := clients[s.Addr()].Do(t.Context(), "cluster", "myid").Text()
		if err != nil {
			t.Fatal(err)
		}
		ids[s.Addr()] = id
	}
	slot := int(clients[servers[0].Addr()].ClusterKeySlot(t.Context(), key).Val())
	var from, to string
	for _, s := range servers {
		err := clients[s.Addr()].Exists(t.Context(), key).Err()
		if err == nil {
			from = s.Addr()
		} else {
			to = s.Addr()
		}
	}
	do := func(addr string, args ...any) {
		if err := clients[addr].Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v on %s: %v", args, addr, err)
		}
	}
	do(to, "cluster", "setslot", slot, "importing", ids[from])
	do(from, "cluster", "setslot", slot, "migrating", ids[to])
	check()
	host, port, _ := strings.Cut(to, ":")
	keys := clients[from].ClusterGetKeysInSlot(t.Context(), slot, 1000).Val()
	for _, k := range keys {
		do(from, "migrate", host, port, k, 0, 5000)
	}
	check()
	// The new owner learns of the move first: until then it redirects clients back to
	// the old owner.
	for _, addr := range []string{to, from} {
		do(addr, "cluster", "setslot", slot, "node", ids[to])
	}
	for addr := range clients {
		do(addr, "cluster", "setslot", slot, "node", ids[to])
	}
	check()
}

// The master fails, and a replica takes its place, which may be older.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := testserver.StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := testserver.StartRedis(t, "--replicaof", host+" "+port)
	sentinel := testserver.StartSentinel(t, "main", master)
	url := "redis+sentinel://" + sentinel.Addr() + "/main"
	o := options()
	teller, n := pair(t, url, o, "chat", "news")
	e := hear(t, url, o)
	c := direct(t, sentinel.URL())
	eventually(t, 15*time.Second, "the sentinel knows the replica", func() bool {
		list, err := c.Do(t.Context(), "sentinel", "replicas", "main").Slice()
		return err == nil && len(list) == 1
	})
	flows(t, teller, n, "chat")
	e.hears(teller, 5*time.Second)

	master.Kill()
	began := time.Now()
	_ = tell(teller, n.world.commit("news", 1)) // no server takes it
	r := direct(t, replica.URL())
	eventually(t, 20*time.Second, "the replica is master", func() bool {
		info, err := r.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	})
	promoted := time.Now()
	n.arrives(3 * time.Second)
	flows(t, teller, n, "chat")
	t.Logf("failover took %v, events flowed %v after it", promoted.Sub(began).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	e.hears(teller, 3*time.Second)
	n.up(3 * time.Second)
}

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// The bounds for 99 of 100 deliveries.
const (
	boundHealth = 250 * time.Millisecond
	boundRedis  = 2 * time.Second
	boundStore  = 5 * time.Second // after it is back
)

// blow is a fault to lay on a world.
type blow struct {
	name   string
	target string // no two blows of a schedule have the same
	bound  time.Duration
	stops  bool // the bound counts from the end of it
	// away is the nodes whose store is away meanwhile; nil for none.
	away func(w *tortureWorld) []*tortureNode
	// lay breaks something, waits for as long as it is to last, and mends it.
	lay func(w *tortureWorld, d time.Duration, random *rand.Rand)
}

// blows returns all that can be done to the world and is wanted, by family: each
// is as likely to be struck as the others.
func (w *tortureWorld) blows() [][]blow {
	families := [][]blow{}
	if w.postgres != nil {
		families = append(families, postgresBlows, []blow{listenersKilled}, []blow{copyBlow})
	}
	if len(w.redis) > 0 {
		families = append(families, redisBlows)
	}
	var nodes, links, nets []blow
	for i, n := range w.nodes {
		nodes = append(nodes, nodeBlows(i)...)
		for _, way := range n.ways() {
			links = append(links, linkBlows(i, way)...)
		}
		if n.net != nil {
			nets = append(nets, w.netBlows(i)...)
		}
	}
	if w.disk != "" {
		families = append(families, []blow{{name: "disk full", target: "disk", bound: boundStore, stops: true, lay: fillDisk}})
	}
	families = append(families, nodes, links, nets)
	only := regexp.MustCompile(*tortureFaults)
	var all [][]blow
	for _, family := range families {
		family = slices.DeleteFunc(slices.Clone(family), func(b blow) bool { return !only.MatchString(b.name) })
		if len(family) > 0 {
			all = append(all, family)
		}
	}
	return all
}

// redisDo runs a command in a Redis, which may be in no state to answer.
func redisDo(r *testserver.Redis, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, port, _ := strings.Cut(r.Addr(), ":")
	out, _ := exec.CommandContext(ctx, "redis-cli", append([]string{"-p", port}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func onRedis(name string, lay func(w *tortureWorld, d time.Duration)) blow {
	return blow{name: "redis " + name, target: "redis", bound: boundRedis, lay: func(w *tortureWorld, d time.Duration, _ *rand.Rand) { lay(w, d) }}
}

var redisBlows = []blow{
	onRedis("killed", func(w *tortureWorld, d time.Duration) {
		w.redis[0].Kill()
		time.Sleep(d) // the fault has to last, here and below
		w.redis[0].Start()
	}),
	onRedis("emptied", func(w *tortureWorld, d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			redisDo(w.redis[0], "FLUSHALL")
			time.Sleep(100 * time.Millisecond)
		}
	}),
	onRedis("stopped", func(w *tortureWorld, d time.Duration) {
		w.redis[0].Pause()
		time.Sleep(d)
		w.redis[0].Resume()
	}),
	onRedis("paused for clients", func(w *tortureWorld, d time.Duration) {
		redisDo(w.redis[0], "CLIENT", "PAUSE", fmt.Sprint(d.Milliseconds()), "ALL")
		time.Sleep(d)
	}),
	onRedis("full", func(w *tortureWorld, d time.Duration) {
		redisDo(w.redis[0], "SETRANGE", "ballast", "4000000", "x")
		redisDo(w.redis[0], "CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "2mb")
		if answer := redisDo(w.redis[0], "SET", "more", "x"); !strings.Contains(answer, "OOM") {
			w.t.Errorf("Redis is not full: %s", answer)
		}
		time.Sleep(d)
		redisDo(w.redis[0], "CONFIG", "SET", "maxmemory", "0")
		redisDo(w.redis[0], "DEL", "ballast")
	}),
	onRedis("evicting", func(w *tortureWorld, d time.Duration) {
		redisDo(w.redis[0], "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
		before := redisInfo(w.redis[0], "stats", "evicted_keys")
		for end := time.Now().Add(d); time.Now().Before(end); {
			// Less than it has: something goes. Then enough for the streams to come again.
			used := redisInfo(w.redis[0], "memory", "used_memory")
			redisDo(w.redis[0], "CONFIG", "SET", "maxmemory", fmt.Sprint(max(1, used-30_000)))
			time.Sleep(100 * time.Millisecond)
			redisDo(w.redis[0], "CONFIG", "SET", "maxmemory", "0")
			time.Sleep(50 * time.Millisecond)
		}
		redisDo(w.redis[0], "CONFIG", "SET", "maxmemory-policy", "noeviction")
		if redisInfo(w.redis[0], "stats", "evicted_keys") == before {
			w.t.Error("Redis has evicted nothing")
		}
	}),
	onRedis("connections killed", func(w *tortureWorld, d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			redisDo(w.redis[0], "CLIENT", "KILL", "TYPE", "normal")
			time.Sleep(100 * time.Millisecond)
		}
	}),
	onRedis("replica promoted without its tail", func(w *tortureWorld, d time.Duration) {
		old, replica := w.redis[0], w.redis[1]
		host, port, _ := strings.Cut(old.Addr(), ":")
		redisDo(replica, "REPLICAOF", host, port)
		synced := func() bool { return strings.Contains(redisDo(replica, "INFO", "replication"), "master_link_status:up") }
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && !synced(); {
			time.Sleep(20 * time.Millisecond) // until it has what there is
		}
		if !synced() {
			w.t.Error("the replica has not come up")
		}
		redisDo(replica, "REPLICAOF", "NO", "ONE")
		time.Sleep(d) // what comes now is the tail
		old.Kill()
		for _, n := range w.nodes {
			n.toRedis.Point(replica.Addr())
			n.toRedis.Cut(testserver.Reset)
		}
		old.Start()
		w.redis[0], w.redis[1] = replica, old
	}),
}

// redisInfo returns a number that Redis tells of itself.
func redisInfo(r *testserver.Redis, section, name string) (n int) {
	for line := range strings.Lines(redisDo(r, "INFO", section)) {
		if _, err := fmt.Sscanf(line, name+":%d", &n); err == nil {
			return n
		}
	}
	return 0
}

func allNodes(w *tortureWorld) []*tortureNode { return w.nodes }

func oneNode(i int) func(w *tortureWorld) []*tortureNode {
	return func(w *tortureWorld) []*tortureNode { return w.nodes[i : i+1] }
}

func onPostgres(name string, lay func(w *tortureWorld, d time.Duration)) blow {
	return blow{name: "postgres " + name, target: "postgres", bound: boundStore, stops: true, away: allNodes, lay: func(w *tortureWorld, d time.Duration, _ *rand.Rand) { lay(w, d) }}
}

var postgresBlows = []blow{
	onPostgres("restarted, smart", func(w *tortureWorld, d time.Duration) {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			w.postgres.Stop(w.t, testserver.Smart)
		}()
		time.Sleep(d)
		// Nodes do not go by themselves.
		w.postgres.Stop(w.t, testserver.Fast)
		<-stopped
		w.postgres.Start(w.t)
	}),
	onPostgres("restarted, fast", func(w *tortureWorld, d time.Duration) {
		w.postgres.Stop(w.t, testserver.Fast)
		time.Sleep(d)
		w.postgres.Start(w.t)
	}),
	onPostgres("restarted, immediate", func(w *tortureWorld, d time.Duration) {
		w.postgres.Stop(w.t, testserver.Immediate)
		time.Sleep(d)
		w.postgres.Start(w.t)
	}),
	onPostgres("killed", func(w *tortureWorld, d time.Duration) {
		w.postgres.Kill(w.t)
		time.Sleep(d)
		w.postgres.Start(w.t)
	}),
	onPostgres("stopped", func(w *tortureWorld, d time.Duration) {
		w.postgres.Pause(w.t)
		time.Sleep(d)
		w.postgres.Resume(w.t)
	}),
}

// nodeBlows are what is done to a node itself.
func nodeBlows(i int) []blow {
	on := func(name string, stops bool, lay func(n *tortureNode, d time.Duration)) blow {
		return blow{name: "node " + name, target: fmt.Sprintf("node %d", i), bound: boundRedis, stops: stops, lay: func(w *tortureWorld, d time.Duration, _ *rand.Rand) {
			n := w.nodes[i]
			lay(n, d)
			n.start()
		}}
	}
	return []blow{
		on("killed", false, func(n *tortureNode, d time.Duration) {
			n.stop(syscall.SIGKILL)
			time.Sleep(d)
		}),
		on("terminated", false, func(n *tortureNode, d time.Duration) {
			n.stop(syscall.SIGTERM)
			time.Sleep(d / 4)
		}),
		on("stopped", true, func(n *tortureNode, d time.Duration) {
			n.signal(syscall.SIGSTOP)
			time.Sleep(d)
			n.signal(syscall.SIGCONT)
		}),
	}
}

// listenersKilled ends the connections on which nodes listen to Postgres, all the time.
var listenersKilled = blow{name: "postgres listeners killed", target: "postgres", bound: boundRedis, lay: func(w *tortureWorld, d time.Duration, _ *rand.Rand) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		_, _ = w.sql("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%listen'")
		time.Sleep(100 * time.Millisecond)
	}
}}

// way is the way from a node to a server.
type way struct {
	to    string // the server, as the names of blows have it
	proxy *testserver.Proxy
	bound time.Duration
	// Nothing travels while it is broken, for it leads to the store.
	stops bool
}

// ways returns the node's ways to its servers.
func (n *tortureNode) ways() []way {
	all := []way{{"redis", n.toRedis, boundRedis, false}, {"listener", n.toListener, boundRedis, false}, {"postgres", n.toPostgres, boundStore, true}}
	return slices.DeleteFunc(all, func(w way) bool { return w.proxy == nil })
}

// linkBlows are what is done to the bytes between a node and a server.
func linkBlows(i int, to way) []blow {
	on := func(name string, lay func(p *testserver.Proxy, d time.Duration, random *rand.Rand)) blow {
		b := blow{name: to.to + " link " + name, target: fmt.Sprintf("%s link %d", to.to, i), bound: to.bound, stops: to.stops}
		if to.stops {
			b.away = oneNode(i)
		}
		b.lay = func(_ *tortureWorld, d time.Duration, random *rand.Rand) {
			lay(to.proxy, d, random)
			to.proxy.Heal()
		}
		return b
	}
	lasting := func(f testserver.Fault) func(p *testserver.Proxy, d time.Duration, random *rand.Rand) {
		return func(p *testserver.Proxy, d time.Duration, _ *rand.Rand) {
			p.Set(f)
			time.Sleep(d)
		}
	}
	swallowsReplies := testserver.Fault{ToClient: testserver.Flow{Lose: true}}
	return []blow{
		on("slow", func(p *testserver.Proxy, d time.Duration, random *rand.Rand) {
			delay := 20*time.Millisecond + time.Duration(random.Int64N(int64(200*time.Millisecond)))
			p.Set(testserver.Both(testserver.Flow{Delay: delay}))
			time.Sleep(d)
		}),
		on("reset", func(p *testserver.Proxy, d time.Duration, random *rand.Rand) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				for _, c := range p.Conns() {
					if random.IntN(2) == 0 {
						c.Cut(testserver.Reset)
					}
				}
				time.Sleep(time.Duration(random.Int64N(int64(150 * time.Millisecond))))
			}
		}),
		on("without replies", lasting(swallowsReplies)),
		// In short bursts, many a command is on its way at the beginning of one,
		// and its sender hears of the loss at once.
		on("losing replies", func(p *testserver.Proxy, d time.Duration, random *rand.Rand) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				p.Set(swallowsReplies)
				time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
				p.Heal()
				time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
			}
		}),
		on("hanging", lasting(blackHole)),
		on("refused", lasting(testserver.Fault{Refuse: true})),
		on("cut off", func(p *testserver.Proxy, d time.Duration, _ *rand.Rand) {
			p.Set(testserver.Fault{Refuse: true})
			p.Cut(testserver.Reset)
			time.Sleep(d)
		}),
	}
}

// netBlows are losses of packets in the namespace of a node, one way or both.
func (w *tortureWorld) netBlows(i int) []blow {
	on := func(name string, stops bool, bound time.Duration, losses ...[2]string) blow {
		return blow{name: "partition " + name, target: fmt.Sprintf("net %d", i), bound: bound, stops: stops, lay: func(w *tortureWorld, d time.Duration, _ *rand.Rand) {
			n := w.nodes[i].net
			for _, l := range losses {
				if err := n.lose(l[0], l[1]); err != nil {
					w.t.Error(err)
				}
			}
			time.Sleep(d)
			lost, err := n.heal()
			if err != nil {
				w.t.Error(err)
			}
			w.partitions.Add(1)
			w.lost.Add(int64(lost))
		}}
	}
	all := []blow{
		on("of a node from all", true, boundStore, [2]string{"in", "iif eth0"}, [2]string{"out", "oif eth0"}),
		on("of a node's clients, requests lost", true, boundStore, [2]string{"in", "tcp dport 8080"}),
		on("of a node's clients, answers lost", true, boundStore, [2]string{"out", "tcp sport 8080"}),
	}
	for _, to := range w.nodes[i].ways() {
		_, port, _ := strings.Cut(to.proxy.Addr(), ":")
		here := []blow{
			on("of a node from "+to.to, to.stops, to.bound, [2]string{"in", "tcp sport " + port}, [2]string{"out", "tcp dport " + port}),
			on("of a node from "+to.to+", requests lost", to.stops, to.bound, [2]string{"out", "tcp dport " + port}),
			on("of a node from "+to.to+", replies lost", to.stops, to.bound, [2]string{"in", "tcp sport " + port}),
		}
		if to.stops {
			for j := range here {
				here[j].away = oneNode(i)
			}
		}
		all = append(all, here...)
	}
	return all
}

func fillDisk(w *tortureWorld, d time.Duration, _ *rand.Rand) {
	filler := filepath.Join(w.disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<20), 0o600); err == nil {
		w.t.Error("the disk does not fill up")
	}
	time.Sleep(d)
	if err := os.Remove(filler); err != nil {
		w.t.Error(err)
	}
}

package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

// pair returns a bus that tells and a node that follows feeds, on one server.
func pair(t *testing.T, url string, o redis.Options, feeds ...string) (*redis.Bus, *node) {
	t.Helper()
	n := join(t, newWorld(), url, o, feeds...)
	teller := open(t, url, o)
	t.Cleanup(func() { teller.Close() })
	return teller, n
}

// A server dies and comes back empty. As soon as it is back, the node notices the
// events published meanwhile, and events flow again.
func TestRestartedEmpty(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	teller, n := pair(t, server.URL(), options(), "chat", "news")
	n.up(5 * time.Second)
	for range 3 {
		flows(t, teller, n, "chat")
		server.Kill()
		eventually(t, 3*time.Second, "the outage is noticed", func() bool { return n.bus.Ping(t.Context()) != nil })
		if err := tell(teller, n.world.commit("news", 1)); err == nil {
			t.Error("tell without a server: no error")
		}
		server.Start()
		back := time.Now()
		n.arrives(1500 * time.Millisecond)
		flows(t, teller, n, "chat")
		t.Logf("events flow %v after the server is back", time.Since(back).Round(time.Millisecond))
	}
	n.up(time.Second)
	if away, back := n.log.count("bus unavailable"), n.log.count("bus available again"); away != 3 || back != 3 {
		t.Errorf("3 outages left %d and %d lines in the log:\n%s", away, back, n.log)
	}
}

func TestAbsentAtStart(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	server.Kill()
	began := time.Now()
	teller, n := pair(t, server.URL(), options(), "chat")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("open took %v without a server", took)
	}
	for range 20 {
		_ = tell(teller, n.world.commit("chat", 1)) // it can't succeed
	}
	if err := n.bus.Ping(t.Context()); err == nil {
		t.Error("ping without a server: no error")
	}
	server.Start()
	n.arrives(1500 * time.Millisecond)
	flows(t, teller, n, "chat")
}

// Everything is deleted while all connections stay open. The nodes learn what may be
// lost, and later events flow.
func TestFlushAll(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat", "news")
	c := direct(t, server.URL())
	flows(t, teller, n, "chat")
	for i := range 3 {
		_, _, before := n.counts()
		// This may be gone before any node has read it.
		if err := tell(teller, n.world.commit("news", 1)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			for _, key := range keysOf(t, c, o, "wake") {
				c.Del(t.Context(), key)
			}
		} else if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 3*time.Second, "the node hears that it missed something", func() bool {
			_, _, missed := n.counts()
			return missed > before
		})
		n.arrives(time.Second)
		flows(t, teller, n, "chat")
		flows(t, teller, n, "news")
	}
}

// The stream of a feed is deleted, or loses entries. The node reads the store.
func TestStreamDeleted(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat")
	c := direct(t, server.URL())
	flows(t, teller, n, "chat")
	key := keysOf(t, c, o, "feed:chat")[0]
	c.Del(t.Context(), key)
	flows(t, teller, n, "chat")

	// A node that is behind finds the stream trimmed past it.
	n.mu.Lock()
	n.cursors["chat"] = 0
	n.mu.Unlock()
	_, before, _ := n.counts()
	if err := tell(teller, n.world.commit("chat", 1)); err != nil {
		t.Fatal(err)
	}
	n.arrives(time.Second)
	if _, grew, _ := n.counts(); grew == before {
		t.Error("a hole before what was told was not reported")
	}
}

// A server freezes with its connections open. The nodes notice, and none waits for
// it. When the server goes on, so do the events.
func TestFrozen(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	teller, n := pair(t, server.URL(), options(), "chat")
	flows(t, teller, n, "chat")
	server.Pause()
	frozen := time.Now()
	for range 3 {
		began := time.Now()
		err := tell(teller, n.world.commit("chat", 1))
		if took := time.Since(began); err == nil || took > 1500*time.Millisecond {
			t.Errorf("tell to a frozen server took %v: %v", took, err)
		}
	}
	eventually(t, time.Until(frozen.Add(4*time.Second)), "the frozen server is noticed", func() bool {
		return n.bus.Ping(t.Context()) != nil
	})
	// The fault lasts this long.
	time.Sleep(time.Until(frozen.Add(5 * time.Second)))
	server.Resume()
	n.arrives(1500 * time.Millisecond)
	flows(t, teller, n, "chat")
	n.up(time.Second)
}

// Tail has to end while it waits for a server that does not answer.
func TestTailEndsWhileFrozen(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	_, n := pair(t, server.URL(), options(), "chat")
	n.up(5 * time.Second)
	server.Pause()
	n.stop() // it checks how long this takes
	server.Resume()
}

// Without memory, Redis takes nothing more. Tell fails, and the tail goes on.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, "--maxmemory-policy", "noeviction")
	teller, n := pair(t, server.URL(), options(), "chat")
	c := direct(t, server.URL())
	flows(t, teller, n, "chat")
	if err := c.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := tell(teller, n.world.commit("chat", 1)); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("tell without memory: got %v, want OOM", err)
	}
	if err := teller.Ping(t.Context()); err == nil {
		t.Error("ping after a failed tell: no error")
	}
	if err := n.bus.Ping(t.Context()); err != nil {
		t.Errorf("ping of a node that only tails: %v", err)
	}
	c.ConfigSet(t.Context(), "maxmemory", "0")
	// The next event that is told shows the node what it lacks.
	if err := tell(teller, n.world.commit("chat", 1)); err != nil {
		t.Errorf("tell with memory again: %v", err)
	}
	n.arrives(time.Second)
	flows(t, teller, n, "chat")
	if s := teller.Stats(); s.TellErrors != 1 || !s.Up {
		t.Errorf("stats: %+v", s)
	}
}

// Redis evicts any keys. No event is lost.
func TestEviction(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, "--maxmemory-policy", "allkeys-random")
	feeds := make([]string, 50)
	for i := range feeds {
		feeds[i] = fmt.Sprintf("feed:%d", i)
	}
	teller, n := pair(t, server.URL(), options(), feeds...)
	n.up(5 * time.Second)
	c := direct(t, server.URL())
	memory, err := c.InfoMap(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	used, _ := strconv.Atoi(memory["Memory"]["used_memory"])
	c.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(used+150_000))
	for i := range 2000 {
		e := n.world.commit(feeds[i%len(feeds)], 1)
		if err := tell(teller, e); err != nil && !strings.Contains(err.Error(), "OOM") {
			t.Fatal(err)
		}
	}
	n.arrives(3 * time.Second)
	live, grew, missed := n.counts()
	evicted, err := c.Info(t.Context(), "stats").Result()
	if err != nil || strings.Contains(evicted, "evicted_keys:0\r") {
		t.Errorf("nothing was evicted: the test tests nothing (%v)", err)
	}
	t.Logf("%d events by the bus, %d times by the store, %d times missed", live, grew, missed)
}

// The server comes and goes.
func TestFlapping(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	teller, n := pair(t, server.URL(), options(), "chat")
	for range 10 {
		_ = tell(teller, n.world.commit("chat", 1))
		server.Kill()
		_ = tell(teller, n.world.commit("chat", 1))
		server.Start()
		_ = tell(teller, n.world.commit("chat", 1))
	}
	n.arrives(5 * time.Second)
	flows(t, teller, n, "chat")
	if got := strings.Count(n.log.String(), "\n"); got > 25 {
		t.Errorf("10 outages left %d lines in the log", got)
	}
}

// A replica takes no events, and passes on those of its master.
func TestReplica(t *testing.T) {
	t.Parallel()
	master := testserver.StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := testserver.StartRedis(t, "--replicaof", host+" "+port)
	o := options()
	n := join(t, newWorld(), replica.URL(), o, "chat")
	teller := open(t, master.URL(), o)
	defer teller.Close()
	flows(t, teller, n, "chat")
	if err := tell(n.bus, n.world.commit("chat", 1)); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("tell to a replica: got %v, want READONLY", err)
	}
	flows(t, teller, n, "chat")
}

// Buses with different stores or prefixes do not share events.
func TestApart(t *testing.T) {
	t.Parallel()
	url := testserver.RedisURL(t)
	o := options()
	other, prefix := o, o
	other.StoreID = named(o.StoreID() + "2")
	prefix.Prefix += "2"
	w := newWorld()
	n := join(t, w, url, o, "chat")
	teller := open(t, url, o)
	defer teller.Close()
	flows(t, teller, n, "chat")
	_, _, missed := n.counts()
	for _, o := range []redis.Options{other, prefix} {
		stranger := open(t, url, o)
		defer stranger.Close()
		for id := range feed.ID(10) {
			e := feed.Event{Feed: "chat", ID: id + 1, Data: "not ours", Time: time.UnixMilli(1).UTC()}
			if err := tell(stranger, []feed.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	flows(t, teller, n, "chat") // a node checks what it receives
	if _, grew, now := n.counts(); grew != 0 || now != missed {
		t.Errorf("a stranger's events were noticed: grew %d times, missed %d times", grew, now-missed)
	}
}

// A Tell whose context has already ended does not count as a failure of Redis.
func TestTellWithoutBudget(t *testing.T) {
	t.Parallel()
	b := open(t, testserver.RedisURL(t), options())
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := newWorld()
	if err := b.Tell(ctx, w.commit("chat", 1)); err == nil {
		t.Error("tell under an ended context: no error")
	}
	if err := tell(b, w.commit("chat", 1)); err != nil {
		t.Errorf("the next tell: %v", err)
	}
}

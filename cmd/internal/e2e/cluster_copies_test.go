package e2e

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// TestClusterCopy has a copy of a database run beside the original, on one Redis
// and one prefix, or on one Postgres server. Both give the same ids to different
// events, and each one's subscribers see their own.
func TestClusterCopy(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterCopy)
}

func testClusterCopy(t *testing.T, original *cluster) {
	first := original.startNode(original.bus())
	for range 5 {
		original.mustPublish(first, "chat", "of both")
	}
	first.kill()
	original.nodes = nil
	copied := newClusterOn(t, testserver.SharedPostgres(t).CopyDatabase(t, original.store))
	copied.redis = original.redis
	both := []*cluster{original, copied}
	for _, c := range both {
		c.start(2)
		c.follow("chat", 2, c.nodes...)
	}
	var stops []func()
	for i, c := range both {
		stops = append(stops, c.publish(traffic{feed: "chat", publishers: 2, events: 50, size: 10 * i}, c.nodes...))
	}
	for _, stop := range stops {
		stop()
	}
	for i, c := range both {
		f := c.verdict("chat")
		t.Log(f)
		if page := c.readFeed("chat"); page.Last != 205 {
			t.Errorf("the feed of store %d has %d events", i, page.Last)
		}
	}
	original.demandStreams("chat", 2)
}

// TestClusterPromotion has nodes fail over to a standby that was promoted. It is
// another store to them, whose events have other keys in Redis, and they meet there.
func TestClusterPromotion(t *testing.T) {
	t.Parallel()
	onEachServer(t, testClusterPromotion)
}

func testClusterPromotion(t *testing.T, c *cluster, primary *testserver.Postgres) {
	standby := primary.StartStandby(t)
	c.store = strings.Replace(c.store, primary.Addr(), primary.Addr()+","+standby.Addr(), 1)
	c.start(2)
	c.follow("chat", 2, c.nodes...)
	c.publish(traffic{feed: "chat", publishers: 2, events: 10}, c.nodes...)()

	primary.Stop(t, testserver.Fast) // once the standby has everything
	standby.Promote(t)
	for _, n := range c.nodes {
		n.awaitReady()
		for deadline := time.Now().Add(30 * time.Second); c.redis != nil && !strings.Contains(n.log.String(), "now have other keys"); {
			if time.Now().After(deadline) {
				t.Fatalf("the node does not move:\n%s", n.log)
			}
			time.Sleep(10 * time.Millisecond) // until it compares its feeds
		}
		n.awaitBus("up", 30*time.Second)
	}
	c.publish(traffic{feed: "chat", publishers: 2, events: 10}, c.nodes...)()
	f := c.verdict("chat")
	t.Log(f)
	if f.events != 80 || f.reconnects > 0 {
		t.Errorf("want 80 events, and no stream cut")
	}
	c.demandStreams("chat", 2)
}

// demandStreams demands that Redis, if there is one, has so many streams of a feed.
func (c *cluster) demandStreams(name string, count int) {
	c.t.Helper()
	if c.redis == nil {
		return
	}
	if keys := c.keys("rejoin:*:feed:" + name); len(keys) != count {
		c.t.Errorf("the streams of %s are %q", name, keys)
	}
}

// TestStoreCauseIsLogged starts a node whose store can be reached, and cannot be
// used, and lets the reason change.
func TestStoreCauseIsLogged(t *testing.T) {
	t.Parallel()
	postgres := testserver.StartPostgres(t)
	raw := postgres.NewDatabase(t)
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	postgres.Exec(t, name, "CREATE ROLE app LOGIN PASSWORD 'hunter2'")
	postgres.Exec(t, name, "GRANT CREATE ON DATABASE "+name+" TO app")
	postgres.Exec(t, name, "ALTER ROLE app SET default_transaction_read_only = on")
	u.User = url.UserPassword("app", "hunter2")
	n := serveNode(t, built(t, false), u.String(), "memory")
	logs := func(words ...string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // until the next try
			for _, line := range n.log.lines() {
				has := true
				for _, word := range words {
					has = has && strings.Contains(line, word)
				}
				if has {
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("no line has %q:\n%s", words, n.log)
			}
		}
	}
	at := "postgres://" + postgres.Addr() + "/" + name
	logs("waiting for it", "read-only transaction", at)
	said := len(n.log.lines())
	time.Sleep(time.Second) // two more tries, with nothing to say
	if lines := n.log.lines(); len(lines) > said {
		t.Errorf("the node repeats itself:\n%s", n.log)
	}
	postgres.Stop(t, testserver.Fast)
	logs("for another reason", "connection refused", at)
	postgres.Start(t)
	postgres.Exec(t, name, "ALTER ROLE app RESET default_transaction_read_only")
	n.awaitReady()
	logs("the store is there")
	// While Postgres starts, the reason may change more than once.
	if lines := n.log.lines(); len(lines) > 20 || strings.Contains(n.log.String(), "hunter2") {
		t.Errorf("%d lines were logged:\n%s", len(lines), n.log)
	}
}

package e2e

import (
	"context"
	"flag"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/storage/testserver"
)

var listenerKillsFor = flag.Duration("listener-kills-for", 7*time.Second, "for how long the tests kill the connections on which nodes listen to Postgres")

// TestListenerKilled kills the connections on which nodes without Redis hear of each
// other, all the time and under load. What is published meanwhile comes soon, and no
// stream ends.
func TestListenerKilled(t *testing.T) {
	t.Parallel()
	c := newClusterWithoutRedis(t)
	c.start(3)
	c.follow("chat", 2, c.nodes...)
	c.follow("quiet", 1, c.nodes...)
	admin, err := pgx.Connect(t.Context(), c.store)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	stopChat := c.publish(traffic{feed: "chat", publishers: 2, pause: 50 * time.Millisecond}, c.nodes...)
	stopQuiet := c.publish(traffic{feed: "quiet", publishers: 1, pause: 700 * time.Millisecond}, c.nodes[0])
	killed, enough := 0, int(listenerKillsFor.Seconds())
	began := time.Now()
	for ; time.Since(began) < *listenerKillsFor || killed < enough && time.Since(began) < time.Minute; time.Sleep(500 * time.Millisecond) { // they may listen meanwhile
		var n int
		if err := admin.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE '%listen'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		killed += n
	}
	stopChat()
	stopQuiet()
	f := c.verdict("chat", "quiet")
	t.Logf("%d connections killed: %v", killed, f)
	if killed < enough {
		t.Errorf("%d connections were killed, want %d at least", killed, enough)
	}
	if f.worst > promptly || f.reconnects > 0 {
		t.Errorf("an event was not delivered within %v, or streams were cut", promptly)
	}
	for i, n := range c.nodes {
		n.awaitBus("up", 30*time.Second)
		if lines := len(n.log.lines()); lines > mostLines {
			t.Errorf("node %d logged %d lines:\n%s", i, lines, n.log)
		}
	}
}

// TestListenerSilent loses everything between the listeners of two nodes and Postgres,
// with the connections standing: nothing ends, and nothing comes. The nodes notice it
// and say so, and their hubs get the events from the store.
func TestListenerSilent(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	c := newClusterOn(t, p.NewDatabase(t))
	network := testserver.StartProxy(t, p.Addr())
	deaf := []*process{c.startNode(network.URL(c.store)), c.startNode(network.URL(c.store))}
	hearing := c.startNode("postgres")
	for _, n := range c.nodes {
		n.awaitBus("up", 30*time.Second)
	}
	c.follow("chat", 2, c.nodes...)
	c.follow("quiet", 1, c.nodes...)
	stopChat := c.publish(traffic{feed: "chat", publishers: 1, pause: 50 * time.Millisecond}, c.nodes...)
	stopQuiet := c.publish(traffic{feed: "quiet", publishers: 1, pause: 900 * time.Millisecond}, hearing)
	lasts(300 * time.Millisecond) // of health, before

	network.Set(blackHole)
	began := time.Now()
	var noticing sync.WaitGroup
	for _, n := range deaf {
		noticing.Go(func() {
			n.awaitBus("down", 30*time.Second)
			t.Logf("a node noticed it within %v", time.Since(began).Round(time.Millisecond))
		})
	}
	noticing.Wait()
	lasts(2 * time.Second) // while the nodes know
	if r, err := hearing.readiness(); err != nil || r.Bus != "up" {
		t.Errorf("the node whose listener works answers %+v, %v", r, err)
	}
	network.Heal()
	for _, n := range deaf {
		n.awaitBus("up", 30*time.Second)
	}
	stopChat()
	stopQuiet()
	f := c.verdict("chat", "quiet")
	t.Log(f)
	if f.worst > promptly || f.reconnects > 0 {
		t.Errorf("an event was not delivered within %v, or streams were cut", promptly)
	}
}

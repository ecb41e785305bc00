package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/storage/testserver"
)

// TestClusterPostgresRestart takes Postgres away under two nodes that are
// published to, in each way that it can go, and brings it back: every open
// stream lives on, nothing acknowledged is lost, nothing refused is stored,
// what is uncertain is there once or not at all, and the nodes are ready again
// by themselves.
func TestClusterPostgresRestart(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(testing.TB, *testserver.Postgres){
		"fast":      func(t testing.TB, p *testserver.Postgres) { p.Stop(t, testserver.Fast) },
		"immediate": func(t testing.TB, p *testserver.Postgres) { p.Stop(t, testserver.Immediate) },
		"killed":    func(t testing.TB, p *testserver.Postgres) { p.Kill(t) },
	} {
		test := func(t *testing.T, c *cluster, p *testserver.Postgres) { testPostgresRestart(t, c, p, stop) }
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a server of its own
			if name == "killed" {
				onEachServer(t, test)
				return
			}
			p := testserver.StartPostgres(t) // it is the bus as well, and goes with it
			test(t, newClusterOn(t, p.NewDatabase(t)), p)
		})
	}
}

func testPostgresRestart(t *testing.T, c *cluster, p *testserver.Postgres, stop func(testing.TB, *testserver.Postgres)) {
	const away = 3 * time.Second
	c.start(2, "REJOIN_SUBSCRIBE_HEARTBEAT=300ms")
	c.follow("chat", 2, c.nodes...)
	for i := range 20 {
		c.mustPublish(c.nodes[0], "quiet", fmt.Sprintf("before %d", i+1))
	}
	early := newRetriers(c, "chat", "early", 2)
	early.await(100)
	logged := len(c.nodes[0].log.lines()) + len(c.nodes[1].log.lines())

	stop(t, p)
	gone := time.Now()
	for _, n := range c.nodes {
		if ready, err := n.readiness(); err != nil || ready.status != http.StatusServiceUnavailable || ready.Store != "down" {
			t.Errorf("without its store the node answers %+v, %v", ready, err)
		}
	}
	late := newRetriers(c, "chat", "late", 1)
	fresh := hold(c.nodes[0], "quiet", "")
	behind := hold(c.nodes[1], "quiet", "5")
	time.Sleep(time.Until(gone.Add(away))) // the outage has to last
	late.awaitRefused(10)
	for _, h := range []*held{fresh, behind} {
		h.awaitKeepAlive(t)
	}
	p.Start(t)
	back := time.Now()
	for _, n := range c.nodes {
		n.awaitReady()
	}
	t.Logf("ready %v after Postgres", time.Since(back))
	c.mustPublish(c.nodes[0], "quiet", "after")
	early.await(50)
	late.await(20)
	early.stop()
	late.stop()
	t.Logf("before it went: %v; and since: %v", early, late)
	// "Now" was while Postgres was away: what was stored just before may be shown.
	fresh.demandEnd(t, 21)
	behind.demand(t, 6, 21)

	f := c.verdict("chat", "quiet")
	t.Log(f)
	if f.reconnects > 0 {
		t.Errorf("streams were cut %d times", f.reconnects)
	}
	// What stands behind an event whose commit nobody could answer for waits
	// until the store can be asked.
	if f.worst > back.Sub(gone)+promptly {
		t.Errorf("an event took %v to be delivered", f.worst)
	}
	early.judge(t)
	late.judge(t)
	if lines := len(c.nodes[0].log.lines()) + len(c.nodes[1].log.lines()) - logged; lines > len(c.nodes)*mostLines {
		t.Errorf("the nodes logged %d lines:\n%s", lines, c.nodes[0].log)
	}
}

// TestClusterHeldFeed has a transaction elsewhere hold the row of one feed: the
// others are published to as if nothing were, and what is published to that one
// waits and is stored once.
func TestClusterHeldFeed(t *testing.T) {
	t.Parallel()
	onEachBus(t, testHeldFeed)
}

func testHeldFeed(t *testing.T, c *cluster) {
	const waiting = 8
	c.start(2)
	for _, name := range []string{"held", "free"} {
		c.mustPublish(c.nodes[0], name, "first")
		c.follow(name, 1, c.nodes...)
	}
	elsewhere, err := pgx.Connect(t.Context(), c.store)
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close(context.Background())
	begin, err := elsewhere.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begin.Exec(t.Context(), "UPDATE rejoin.feeds SET updated = updated WHERE name = 'held'"); err != nil {
		t.Fatal(err)
	}
	waits := newRetriers(c, "held", "of the held feed", waiting)
	stopFree := c.publish(traffic{feed: "free", publishers: 4, pause: 20 * time.Millisecond}, c.nodes...)
	time.Sleep(2 * time.Second) // the transaction is a long one
	// Publishes that waited with those of the held feed would be refused as they are, after
	// five seconds.
	c.await("free", 100, 20*time.Second)
	waits.mu.Lock()
	if waits.acked > 0 {
		t.Errorf("%d events were acknowledged in a feed that is held", waits.acked)
	}
	waits.mu.Unlock()
	if err := begin.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits.await(2 * waiting)
	waits.stop()
	stopFree()
	t.Log(c.verdict("held", "free"))
	if got := len(c.readFeed("held").Events); got != 1+waits.acked {
		t.Errorf("the feed that was held has %d events, want %d", got, 1+waits.acked)
	}
	for _, err := range waits.faults {
		t.Error(err)
	}
}

// TestClusterEmptyDatabase starts three nodes at once on an empty database:
// they agree on one store, and tell each other of events over one bus. The
// store is as good as never looked at for what the bus lost: it is the bus that
// has to have carried them.
func TestClusterEmptyDatabase(t *testing.T) {
	t.Parallel()
	onEachBus(t, testEmptyDatabase)
}

func testEmptyDatabase(t *testing.T, c *cluster) {
	c.store = testserver.SharedPostgres(t).NewDatabase(t)
	for range 3 {
		cmd := exec.Command(built(t, false), "serve", "--listen", "127.0.0.1:0", "--store", c.store, "--bus", c.bus())
		cmd.Env = append(os.Environ(), "REJOIN_LOG_FORMAT=json", "REJOIN_BUS_VERIFY=1m")
		c.nodes = append(c.nodes, launch(t, cmd))
	}
	for _, n := range c.nodes {
		n.url = n.listening()
		n.awaitReady()
		n.awaitBus("up", 30*time.Second)
		if lines := n.log.lines(); len(lines) > 5 {
			t.Errorf("a node logged %d lines to start:\n%s", len(lines), n.log)
		}
	}
	c.follow("chat", 2, c.nodes...)
	c.publish(traffic{feed: "chat", publishers: 2, events: 20}, c.nodes...)()
	f := c.verdict("chat")
	t.Log(f)
	if f.worst > promptly {
		t.Errorf("an event took %v to be delivered", f.worst)
	}
}

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// heldFor is longer than an append waits for a feed.
var heldFor = flag.Duration("held-for", 6500*time.Millisecond, "for how long a transaction holds a feed in the tests of SQL")

// onEachNodes runs a test on three nodes with Redis, on three without, and on one whose
// bus is memory. Applications write in SQL, whatever the bus.
func onEachNodes(t *testing.T, test func(t *testing.T, c *cluster)) {
	for _, bus := range sqlBuses {
		t.Run(bus, func(t *testing.T) {
			t.Parallel()
			test(t, newSQLCluster(t, bus))
		})
	}
}

var sqlBuses = []string{"redis", "postgres", "memory"}

// newSQLCluster starts nodes that compare their feeds with the store once a minute: until
// then they know only of what they are notified of.
func newSQLCluster(t testing.TB, bus string) *cluster {
	t.Helper()
	const verifySeldom = "REJOIN_BUS_VERIFY=1m"
	c := newClusterWithoutRedis(t)
	switch bus {
	case "redis":
		c.redis = testserver.StartRedis(t)
		c.start(3, verifySeldom)
	case "postgres":
		c.start(3, verifySeldom)
	case "memory":
		c.startNode("memory", verifySeldom)
	}
	return c
}

// application is a program that writes its rows and events in transactions of its own,
// over one connection.
type application struct {
	*pgx.Conn
	c *cluster
}

// newApplication connects an application to the cluster's database.
func (c *cluster) newApplication() *application {
	c.t.Helper()
	db, err := pgx.Connect(c.t.Context(), c.store)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { db.Close(context.Background()) })
	return &application{Conn: db, c: c}
}

// do runs a statement.
func (a *application) do(sql string, args ...any) {
	a.c.t.Helper()
	if _, err := a.Exec(a.c.t.Context(), sql, args...); err != nil {
		a.c.t.Errorf("%s: %v", sql, err)
	}
}

const (
	appends  = "SELECT rejoin_append_text($1, NULL, $2)"
	enqueues = "SELECT rejoin_enqueue_text($1, NULL, $2)"
)

// arrivals are when events were committed, by feed and data.
type arrivals struct {
	mu        sync.Mutex
	committed map[string]map[string]time.Time
}

func (a *arrivals) commit(name, data string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.committed == nil {
		a.committed = make(map[string]map[string]time.Time)
	}
	if a.committed[name] == nil {
		a.committed[name] = make(map[string]time.Time)
	}
	a.committed[name][data] = time.Now()
}

// judge demands that a feed holds what was committed to it, once each, and nothing else.
// It returns how long each took to reach each subscriber, which must have been stopped.
func (a *arrivals) judge(c *cluster, name string) (delays []time.Duration) {
	c.t.Helper()
	left := maps.Clone(a.committed[name])
	for _, e := range c.readFeed(name).Events {
		at, ok := left[e.Data]
		if !ok {
			c.t.Errorf("%s: event %d %q was not committed, or is there twice", name, e.ID, e.Data)
			continue
		}
		delete(left, e.Data)
		for _, s := range c.subscribers {
			if s.feed == name {
				delays = append(delays, max(0, s.arrived[e.ID].Sub(at)))
			}
		}
	}
	for data := range left {
		c.t.Errorf("%s: %q was committed and is not there", name, data)
	}
	return delays
}

// count returns how many events have been committed to a feed.
func (a *arrivals) count(name string) feed.ID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return feed.ID(len(a.committed[name]))
}

// TestSQLPromptly has an application append and enqueue. Every node delivers what it
// commits when it is notified of that, and what it rolls back is nowhere, and leaves no
// hole. BenchmarkSQL measures how soon.
func TestSQLPromptly(t *testing.T) {
	t.Parallel()
	onEachNodes(t, testSQLPromptly)
}

func testSQLPromptly(t *testing.T, c *cluster) {
	const commits, waiting = 100, 15
	feeds := map[string]string{"appended": appends, "enqueued": enqueues}
	for name := range feeds {
		c.follow(name, 1, c.nodes...)
	}
	var a arrivals
	var work sync.WaitGroup
	for name, sql := range feeds {
		app := c.newApplication()
		work.Go(func() {
			for i := range commits {
				data := fmt.Sprintf("event %d", i)
				app.do("BEGIN")
				app.do(sql, name, data)
				switch i % 4 {
				case 1: // a savepoint that is rolled back
					app.do("SAVEPOINT s")
					app.do(sql, name, "undone with a savepoint")
					app.do("ROLLBACK TO SAVEPOINT s")
				case 2: // a savepoint that is not
					app.do("SAVEPOINT s")
					app.do(sql, name, data+", the second")
					app.do("RELEASE SAVEPOINT s")
				}
				app.do("COMMIT")
				a.commit(name, data)
				if i%4 == 2 {
					a.commit(name, data+", the second")
				}
				if i%4 == 3 {
					app.do("BEGIN")
					app.do(sql, name, "undone")
					app.do("ROLLBACK")
				}
				time.Sleep(5 * time.Millisecond) // it is for the delay, not for the load
			}
		})
	}
	work.Wait()
	app := c.newApplication()
	began := time.Now()
	for i := range waiting {
		for name, sql := range feeds {
			data := fmt.Sprintf("event %d of those that wait for the one before", i)
			app.do(sql, name, data)
			a.commit(name, data)
			c.await(name, a.count(name), 30*time.Second)
		}
	}
	// A node that is not notified looks at its feeds every minute, and at the queue every
	// five seconds.
	if took := time.Since(began); took > waiting*5*time.Second/2 {
		t.Errorf("%d events of each feed, one after the other, took %v", waiting, took)
	}
	if f := c.verdict(slices.Collect(maps.Keys(feeds))...); f.reconnects > 0 {
		t.Errorf("streams were cut: %v", f)
	}
	for name := range feeds {
		a.judge(c, name)
	}
}

// TestSQLHeldFeed has a transaction of an application hold a feed for long. That feed
// waits. All others are published to and delivered meanwhile, on every node: over HTTP,
// also in batches over several, and in SQL, also by transactions that enqueue to the held
// feed as well.
func TestSQLHeldFeed(t *testing.T) {
	t.Parallel()
	c := newClusterWithoutRedis(t) // how a node hears of what is not held is of no matter
	c.start(3)
	free := []string{"free", "wide.0", "wide.1", "queued"}
	for _, name := range append(free, "held") {
		c.follow(name, 1, c.nodes...)
	}
	holder := c.newApplication()
	holder.do("BEGIN")
	holder.do(appends, "held", "of the holder")
	var a arrivals
	waiting := newRetriers(c, "held", "to the held feed", 2)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer func() { cancel(); work.Wait() }()
	for i, n := range c.nodes {
		work.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				c.publishWide(&a, n, free[1:3], fmt.Sprintf("batch-%d-of-node-%d", j, i))
				time.Sleep(50 * time.Millisecond) // it is for the delay, not for the load
			}
		})
	}
	for i := range 2 {
		app := c.newApplication()
		work.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				data := fmt.Sprintf("transaction %d of application %d", j, i)
				app.do("BEGIN")
				app.do(enqueues, "held", data)
				app.do(enqueues, "queued", data)
				app.do("COMMIT")
				a.commit("held", data)
				a.commit("queued", data)
				time.Sleep(30 * time.Millisecond) // the same
			}
		})
	}
	stopFree := c.publish(traffic{feed: "free", publishers: 2, pause: 50 * time.Millisecond}, c.nodes...)
	lasts(*heldFor)
	// With the held feed, each publish would wait for the holder, or be refused after five
	// seconds.
	for _, name := range free {
		c.await(name, 50, 30*time.Second)
	}
	if waits := c.reached("held", 1); waits {
		t.Error("an event of the held feed was delivered")
	}
	holder.do("COMMIT")
	cancel()
	work.Wait()
	stopFree()
	waiting.stop()
	c.await("held", feed.ID(1+len(a.committed["held"])+waiting.acked), 30*time.Second)
	f := c.verdict(append(free, "held")...)
	if f.reconnects > 0 {
		t.Errorf("streams were cut: %v", f)
	}
	for _, name := range []string{"wide.0", "wide.1", "queued"} {
		a.judge(c, name)
	}
	for _, err := range waiting.faults {
		t.Error(err)
	}
	c.demandOrder("held", "transaction", 2)
}

// demandOrder demands of the events "<kind> <n> of application <i>" of a feed that those
// of each application come in their order, without a hole.
func (c *cluster) demandOrder(name, kind string, applications int) {
	c.t.Helper()
	next := make([]int, applications)
	for _, e := range c.readFeed(name).Events {
		var n, i int
		if _, err := fmt.Sscanf(e.Data, kind+" %d of application %d", &n, &i); err != nil {
			continue // it is of another publisher
		}
		if n != next[i] {
			c.t.Errorf("%s: event %d is %q, want number %d", name, e.ID, e.Data, next[i])
		}
		next[i] = n + 1
	}
	for i, n := range next {
		if n == 0 {
			c.t.Errorf("%s has no event of application %d", name, i)
		}
	}
}

// publishWide publishes a batch with an event for each of the feeds.
func (c *cluster) publishWide(a *arrivals, n *process, names []string, data string) {
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintf(&lines, "{\"feed\":%q,\"data\":%q}\n", name, data)
	}
	answer, err := keyed{path: "/v1/events", media: "application/x-ndjson", key: data, body: lines.String()}.send(http.DefaultClient, n.url)
	if err != nil || answer.status != http.StatusCreated {
		c.t.Errorf("publish a batch: %d %s, %v", answer.status, answer.detail, err)
		return
	}
	for _, name := range names {
		a.commit(name, data)
	}
}

// TestSQLDeadlock has two transactions append to two feeds in opposite order. Postgres
// ends one of them, and no other client notices: not the publishers of other feeds, and
// those who publish to these go on.
func TestSQLDeadlock(t *testing.T) {
	t.Parallel()
	c := newClusterWithoutRedis(t)
	c.start(2)
	feeds := []string{"left", "right", "other"}
	for _, name := range feeds {
		c.mustPublish(c.nodes[0], name, "the first")
		c.follow(name, 1, c.nodes...)
	}
	var stops []func()
	for _, name := range feeds {
		stops = append(stops, c.publish(traffic{feed: name, publishers: 2, pause: 20 * time.Millisecond}, c.nodes...))
	}
	var dead, done atomic.Int64
	const rounds = 2
	for round := range rounds {
		var locked, both sync.WaitGroup
		locked.Add(2)
		meet := make(chan struct{})
		for i := range 2 {
			app := c.newApplication()
			names := []string{feeds[i], feeds[1-i]}
			both.Go(func() {
				app.do("BEGIN")
				app.do(appends, names[0], fmt.Sprintf("transaction %d of round %d", i, round))
				locked.Done()
				<-meet
				_, err := app.Exec(t.Context(), appends, names[1], fmt.Sprintf("transaction %d of round %d", i, round))
				fault, _ := errors.AsType[*pgconn.PgError](err)
				switch {
				case err == nil:
					app.do("COMMIT")
					done.Add(1)
				case fault != nil && fault.Code == "40P01":
					app.do("ROLLBACK")
					dead.Add(1)
				default:
					t.Errorf("an append that may deadlock: %v", err)
				}
			})
		}
		locked.Wait()
		c.mu.Lock()
		before := feed.ID(len(c.acked["other"]))
		c.mu.Unlock()
		c.await("other", before+8, 30*time.Second) // while two feeds are held
		close(meet)
		both.Wait()
	}
	for _, stop := range stops {
		stop()
	}
	if dead.Load() != rounds || done.Load() != rounds {
		t.Errorf("%d transactions were ended by a deadlock and %d committed, want %d and %d", dead.Load(), done.Load(), rounds, rounds)
	}
	f := c.verdict(feeds...)
	t.Log(f)
	for _, name := range feeds[:2] {
		sql := 0
		for _, e := range c.readFeed(name).Events {
			if strings.HasPrefix(e.Data, "transaction") {
				sql++
			}
		}
		if sql != rounds {
			t.Errorf("%s has %d events of the transactions, want %d", name, sql, rounds)
		}
	}
}

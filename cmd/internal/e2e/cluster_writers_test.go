package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

var writerKills = flag.Int("writer-kills", 3, "how many nodes the test of writers in SQL kills")

// writers are the programs that publish to one feed in TestSQLWriters.
const writers = 8

// TestSQLWriters has applications append and enqueue beside rows of their own, and others
// publish over HTTP, all to one feed of three nodes without Redis, which are killed and
// started again meanwhile. In the end the feed holds what committed: each event once,
// those of a transaction in their order, and transactions that followed each other in
// theirs.
func TestSQLWriters(t *testing.T) {
	t.Parallel()
	w := &sqlWriters{cluster: newClusterWithoutRedis(t)}
	w.newApplication().do("CREATE TABLE orders (data text PRIMARY KEY)")
	for range 3 {
		w.nodes = append(w.nodes, nil)
		w.startAt(len(w.nodes)-1, net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t))))
	}
	w.follow("chat", 2, w.nodes...)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); work.Wait() })
	for i := range writers {
		appends, enqueues := w.newApplication(), w.newApplication()
		work.Go(func() { w.write(ctx, appends, "append", i, "SELECT rejoin_append_text('chat', NULL, $1)") })
		work.Go(func() { w.write(ctx, enqueues, "enqueue", i, "SELECT rejoin_enqueue_text('chat', NULL, $1)") })
		work.Go(func() { w.post(ctx, i) })
	}
	for round := range *writerKills {
		time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond) // a random moment
		i := round % len(w.nodes)
		at := strings.TrimPrefix(w.node(i).url, "http://")
		w.node(i).kill()
		w.startAt(i, at)
	}
	awaitThat(t, "enough is tried", w.tried)
	cancel()
	work.Wait()
	w.awaitEmptyQueue()
	f := w.verdict("chat")
	w.judge()
	t.Logf("%v; %d transactions", f, len(w.transactions))
	if t.Failed() {
		for _, n := range w.nodes {
			t.Log(n.log)
		}
	}
}

// sqlWriters is a cluster with applications that write in SQL.
type sqlWriters struct {
	*cluster
	nodesMu sync.Mutex

	txMu         sync.Mutex
	transactions []*sqlTransaction // that committed
}

// tried reports whether enough transactions of each kind have committed.
func (w *sqlWriters) tried() bool {
	w.txMu.Lock()
	defer w.txMu.Unlock()
	kinds := make(map[string]int)
	for _, tx := range w.transactions {
		kinds[tx.kind]++
	}
	return kinds["append"] >= 5*writers && kinds["enqueue"] >= 5*writers
}

// sqlTransaction is a transaction of an application.
type sqlTransaction struct {
	kind             string
	events           []string
	began, committed time.Time // before BEGIN was sent, and after COMMIT was answered
	low, high        feed.ID   // of its events
}

func (w *sqlWriters) node(i int) *process {
	w.nodesMu.Lock()
	defer w.nodesMu.Unlock()
	return w.nodes[i]
}

// startAt starts the node i at an address that stays its own.
func (w *sqlWriters) startAt(i int, address string) {
	p := serveAt(w.t, built(w.t, false), address, w.store, "postgres")
	p.awaitReady()
	w.nodesMu.Lock()
	defer w.nodesMu.Unlock()
	w.nodes[i] = p
}

// write runs transactions one after another. One of four is rolled back, and one has a
// savepoint that is.
func (w *sqlWriters) write(ctx context.Context, app *application, kind string, writer int, sql string) {
	random := rand.New(rand.NewPCG(uint64(writer), uint64(len(kind))))
	for n := 0; ctx.Err() == nil; n++ {
		tx := &sqlTransaction{kind: kind, began: time.Now()}
		event := func(data string) {
			app.do("INSERT INTO orders VALUES ($1)", data)
			app.do(sql, data)
		}
		app.do("BEGIN")
		for i := range 1 + random.IntN(3) {
			tx.events = append(tx.events, fmt.Sprintf("%s %d of %s writer %d", strconv.Itoa(n), i, kind, writer))
			event(tx.events[i])
		}
		switch random.IntN(4) {
		case 0:
			app.do("ROLLBACK")
			continue
		case 1:
			app.do("SAVEPOINT s")
			event(fmt.Sprintf("undone %d of %s writer %d", n, kind, writer))
			app.do("ROLLBACK TO SAVEPOINT s")
		}
		app.do("COMMIT")
		tx.committed = time.Now()
		w.txMu.Lock()
		w.transactions = append(w.transactions, tx)
		w.txMu.Unlock()
		time.Sleep(rand.N(30 * time.Millisecond)) // it is not for the load
	}
}

// post publishes over HTTP, to any node, which may be dead.
func (w *sqlWriters) post(ctx context.Context, writer int) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		_ = w.publishOne(client, w.node(n%len(w.nodes)), "chat", fmt.Sprintf("http %d of writer %d", n, writer)) // the checker knows of it
		time.Sleep(rand.N(30 * time.Millisecond))                                                                // it is not for the load
	}
}

// awaitEmptyQueue waits until all that was enqueued is numbered.
func (w *sqlWriters) awaitEmptyQueue() {
	w.t.Helper()
	app := w.newApplication()
	left := -1
	for deadline := time.Now().Add(time.Minute); left != 0; time.Sleep(10 * time.Millisecond) { // until a node has looked
		if err := app.QueryRow(w.t.Context(), "SELECT (SELECT count(*) FROM rejoin.queue) + (SELECT count(*) FROM rejoin.refused)").Scan(&left); err != nil {
			w.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d events are not numbered", left)
		}
	}
}

// judge compares the feed with the application's table and with what the applications
// know. The checker has looked at what came over HTTP.
func (w *sqlWriters) judge() {
	t := w.t
	t.Helper()
	ids := make(map[string]feed.ID)
	for _, e := range w.readFeed("chat").Events {
		if strings.HasPrefix(e.Data, "http ") {
			continue
		}
		if old, twice := ids[e.Data]; twice {
			t.Errorf("%q is event %d and event %d", e.Data, old, e.ID)
		}
		ids[e.Data] = e.ID
	}
	rows, err := w.newApplication().Query(t.Context(), "SELECT data FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	orders, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range orders {
		if _, ok := ids[data]; !ok {
			t.Errorf("%q committed and is no event", data)
		}
	}
	if len(ids) != len(orders) {
		t.Errorf("there are %d events for %d rows", len(ids), len(orders))
	}
	byKind := make(map[string][]*sqlTransaction)
	for _, tx := range w.transactions {
		for _, data := range tx.events {
			if ids[data] <= tx.high {
				t.Errorf("%q is event %d, behind event %d of its transaction", data, ids[data], tx.high)
			}
			if tx.low == 0 {
				tx.low = ids[data]
			}
			tx.high = ids[data]
		}
		byKind[tx.kind] = append(byKind[tx.kind], tx)
	}
	for _, all := range byKind {
		demandCommitOrder(t, all)
	}
}

// demandCommitOrder demands of each two transactions, of which one began when the other
// had committed, that the events of the other come first.
func demandCommitOrder(t testing.TB, all []*sqlTransaction) {
	t.Helper()
	slices.SortFunc(all, func(a, b *sqlTransaction) int { return a.committed.Compare(b.committed) })
	byBegin := slices.SortedFunc(slices.Values(all), func(a, b *sqlTransaction) int { return a.began.Compare(b.began) })
	var last *sqlTransaction // the one with the largest id of those that had committed
	followed := 0
	for _, tx := range byBegin {
		for ; len(all) > 0 && all[0].committed.Before(tx.began); all = all[1:] {
			if last == nil || all[0].high > last.high {
				last = all[0]
			}
		}
		if last == nil {
			continue
		}
		followed++
		if last.high > tx.low {
			t.Errorf("%q committed before %q began, and is event %d, and that is event %d", last.events, tx.events, last.high, tx.low)
		}
	}
	if followed == 0 {
		t.Error("no transaction followed another")
	}
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
)

// TestClusterRetention has nodes look after one store that has much to be given
// up, and kills the one that is at it. One node at a time does it, events are
// published to the feed meanwhile, readers that it overtakes are told, and another
// node takes over in its next round. Two have their rounds at the same time, and one
// some seconds later. BenchmarkRetention measures what it costs publishers.
func TestClusterRetention(t *testing.T) {
	t.Parallel()       // it waits for rounds of the retention
	c := newCluster(t) // the other bus makes no difference, and takes as long
	const kept = 200
	r := &retentionTest{cluster: c, slow: make(chan struct{})}
	r.fill()
	w := watchRetention(t, c.store)
	w.hold()
	for i := range 3 {
		if i == 2 {
			time.Sleep(3 * time.Second) // its rounds are as far behind
		}
		n := serveNode(t, built(t, false), withParameter(c.store, fmt.Sprintf("application_name=node-%d", i)), c.bus(),
			fmt.Sprintf("REJOIN_RETENTION=feeds=hot events=%d, feeds=brief age=1s", kept))
		n.awaitReady()
		c.nodes = append(c.nodes, n)
	}
	// The bound of what may go is judged at the end, by what is there.
	c.checker.Trimming("hot", feed.MaxID)
	for i := range 2 {
		r.read(fmt.Sprintf("the slow reader of node %d", i), "start", i, r.slow)
		r.read(fmt.Sprintf("the reader of node %d", i), "-100", i, nil)
	}
	stop := r.publishOn()
	defer stop()

	w.letGo()
	runner := w.awaitSweep()
	time.Sleep(200 * time.Millisecond) // the other round at the same time would begin
	began, at := time.Now(), w.nodes()
	c.nodes[runner].kill()
	r.alive = c.nodes[(runner+1)%3]
	first := r.first("hot")
	if len(at) > 1 {
		t.Errorf("one round was that of several nodes: %v", at)
	}
	if left := w.unswept("hot"); left == 0 {
		t.Errorf("it was killed with the feed trimmed to %d and %d events to be freed: not in the middle of it", first, left)
	}
	close(r.slow)
	for r.first("hot") == first || w.unswept("hot") > 0 {
		if time.Since(began) > time.Minute {
			t.Fatalf("nobody looks after the feeds since node %d was killed: %d is the first of hot, as before, %d wait to be freed\n%s", runner, first, w.unswept("hot"), r.alive.log)
		}
		time.Sleep(50 * time.Millisecond) // until the other node has taken over
	}
	took := time.Since(began)
	r.judgeBrief()
	stop()
	w.stop()
	r.judge(kept)
	t.Logf("node %d was killed, another took over within %v; %d looks, which found at it: %v; publish p99 %v and %v at worst",
		runner, took.Round(time.Millisecond), w.looks, w.seen, p99(r.took).Round(time.Millisecond), slices.Max(r.took).Round(time.Millisecond))
	if by := w.swept(); len(by) < 2 {
		t.Errorf("two nodes should have been at it, one after the other: %v", by)
	}
}

func withParameter(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

// retentionTest is a cluster whose feeds are trimmed by their age and size.
type retentionTest struct {
	*cluster
	alive   *process      // one of the nodes that are not killed
	slow    chan struct{} // when it closes, the slow readers read on
	readers []*retentionReader
	count   atomic.Int64
}

// retentionReader follows the feed hot, from whichever node there is.
type retentionReader struct {
	*replayer
	who    string
	source *eventSource
	stop   func()
	stall  <-chan struct{} // nil for one that does not
}

// fill publishes, before anybody looks after the feeds, what is too much for
// the buffers of a connection, and then what takes some time to be freed.
func (r *retentionTest) fill() {
	n := r.startNode("memory")
	for range 20 {
		r.publish("hot", 30, 20_000)
	}
	for range 25 {
		r.publish("hot", 1000, 1)
	}
	r.publish("brief", 10, 1)
	n.kill()
	r.nodes = nil
}

func (r *retentionTest) read(who, from string, node int, stall <-chan struct{}) {
	reader := &retentionReader{who: who, stall: stall, replayer: &replayer{tr: &trimming{c: r.cluster}, seen: r.checker.Follow(who, "hot")}}
	connections := 0
	reader.source = &eventSource{
		narrow: stall != nil,
		url: func() string {
			if connections++; connections > 1 {
				reader.seen.Resume(reader.seen.Cursor())
			}
			return r.nodes[(node+connections-1)%len(r.nodes)].url + "/v1/feeds/hot/events?envelope=true&from=" + from
		},
		take: func(b rawBlock) {
			reader.take(b)
			if b.kind == "" && stall != nil {
				<-stall
			}
		},
	}
	reader.stop = reader.source.start(r.t)
	r.readers = append(r.readers, reader)
}

// publish publishes a batch to any node, whichever answers.
func (r *retentionTest) publish(name string, events, size int) {
	label := fmt.Sprintf("batch-%d", r.count.Add(1))
	var lines strings.Builder
	drafts := make([]feed.Event, events)
	for i := range drafts {
		drafts[i] = feed.Event{Feed: name, Data: fmt.Sprintf("%s %d %0*d", label, i, size, 0)}
		fmt.Fprintf(&lines, "{\"data\":%q}\n", drafts[i].Data)
	}
	k := keyed{path: "/v1/feeds/" + name + "/events", media: "application/x-ndjson", key: label, body: lines.String()}
	began := time.Now()
	for try := rand.IntN(2); ; try++ {
		a, err := k.send(http.DefaultClient, r.nodes[try%len(r.nodes)].url)
		if err != nil && time.Since(began) < 10*time.Second {
			continue // the node was killed
		}
		var answer struct{ Events []struct{ ID feed.ID } }
		if err == nil {
			err = json.Unmarshal([]byte(a.detail), &answer)
		}
		if err != nil || a.status != http.StatusCreated || len(answer.Events) != events {
			r.t.Errorf("publish to %s: %d %s, %v", name, a.status, a.detail, err)
			return
		}
		for i := range drafts {
			drafts[i].ID = answer.Events[i].ID
		}
		r.checker.Acked(drafts...)
		r.acknowledge(name, drafts[events-1].ID, began, time.Now())
		return
	}
}

// publishOn goes on publishing, a little, until it is stopped. What it takes
// is what counts.
func (r *retentionTest) publishOn() (stop func()) {
	r.mu.Lock()
	r.took = nil
	r.mu.Unlock()
	end := make(chan struct{})
	var work sync.WaitGroup
	for _, name := range []string{"hot", "hot", "brief"} {
		work.Go(func() {
			for {
				r.publish(name, 1, 1)
				select {
				case <-time.After(50 * time.Millisecond):
				case <-end:
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(end); work.Wait() })
}

// first returns the oldest id that a feed has, as a node that lives says.
func (r *retentionTest) first(name string) feed.ID {
	r.t.Helper()
	var info struct{ First feed.ID }
	if text := call(r.t, http.MethodGet, r.alive.url+"/v1/feeds/"+name, "", "", http.StatusOK); json.Unmarshal([]byte(text), &info) != nil {
		r.t.Fatal(text)
	}
	return info.First
}

// judgeBrief looks at the feed whose events live for a second, while it is
// published to: a second later all of it may be gone.
func (r *retentionTest) judgeBrief() {
	r.t.Helper()
	h := readHistory(r.t, r.alive.url, "brief")
	for deadline := time.Now().Add(time.Minute); h.First <= 10 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond) // the round may come to it after hot
		h = readHistory(r.t, r.alive.url, "brief")
	}
	r.t.Logf("brief has %d to %d", h.First, h.Last)
	if h.First <= 10 || h.First > h.Last {
		r.t.Errorf("brief has %d to %d: the old ones should be gone, and the newest not", h.First, h.Last)
	}
}

// judge is the verdict, once nothing is published any more.
func (r *retentionTest) judge(kept feed.ID) {
	t := r.t
	t.Helper()
	h := readHistory(t, r.alive.url, "hot")
	t.Logf("hot has %d to %d", h.First, h.Last)
	if h.Last-h.First+1 < kept {
		t.Errorf("hot has %d to %d, fewer than the rule keeps", h.First, h.Last)
	}
	for _, reader := range r.readers {
		reader.await(t, h.Last)
		reader.stop()
	}
	r.checker.End("hot", h.page(t))
	if err := r.checker.Err(); err != nil {
		t.Error(err)
	}
	for _, reader := range r.readers {
		if slow := reader.stall != nil; slow != (reader.tr.gaps.Load() > 0) {
			t.Errorf("%s saw %d gaps: %v", reader.who, reader.tr.gaps.Load(), reader.source)
		}
	}
}

func (r *retentionReader) await(t testing.TB, last feed.ID) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); r.seen.Cursor() < last; {
		if time.Now().After(deadline) {
			t.Errorf("%s has %d of %d: %v", r.who, r.seen.Cursor(), last, r.source)
			return
		}
		time.Sleep(5 * time.Millisecond) // until it has caught up
	}
}

// retentionWatch looks into the database for who gives up events.
type retentionWatch struct {
	t     *testing.T
	db    *pgx.Conn // of the test
	sweep chan int  // the first node that was seen at it
	stop  func()

	mu    sync.Mutex
	seen  map[string]int
	looks int
}

func watchRetention(t *testing.T, store string) *retentionWatch {
	t.Helper()
	w := &retentionWatch{t: t, sweep: make(chan int, 1), seen: make(map[string]int)}
	var conns [2]*pgx.Conn
	for i := range conns {
		var err error
		if conns[i], err = pgx.Connect(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close(context.Background()) })
	}
	w.db = conns[0]
	for _, sql := range []string{
		"CREATE TABLE public.sweepers (node text)",
		`CREATE FUNCTION public.note_sweeper() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO public.sweepers VALUES (split_part(current_setting('application_name'), ' ', 1)); RETURN NULL; END $$`,
		"CREATE TRIGGER note_sweeper AFTER DELETE ON rejoin.events FOR EACH STATEMENT EXECUTE FUNCTION public.note_sweeper()",
	} {
		if _, err := w.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			w.look(ctx, conns[1])
			time.Sleep(5 * time.Millisecond) // it is for what happens in between
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	t.Cleanup(w.stop)
	return w
}

// retentionLock is the advisory lock of the node that looks after the feeds.
const retentionLock = 0x72656a6f696e + 1

// hold keeps the nodes from their rounds until letGo: on a slow machine, the first would
// come before the readers.
func (w *retentionWatch) hold() { w.lock("pg_advisory_lock") }

func (w *retentionWatch) letGo() { w.lock("pg_advisory_unlock") }

func (w *retentionWatch) lock(function string) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), "SELECT "+function+"($1)", int64(retentionLock)); err != nil {
		w.t.Fatal(err)
	}
}

// look notes which nodes delete events at this moment.
func (w *retentionWatch) look(ctx context.Context, db *pgx.Conn) {
	rows, err := db.Query(ctx, `SELECT DISTINCT split_part(application_name, ' ', 1) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active' AND query LIKE '%DELETE FROM rejoin.events%'`)
	if err != nil {
		return // stopped
	}
	nodes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	for _, node := range nodes {
		w.seen[node]++
		i, err := strconv.Atoi(strings.TrimPrefix(node, "node-"))
		if err != nil {
			w.t.Errorf("%q deletes events", node)
			continue
		}
		select {
		case w.sweep <- i:
		default:
		}
	}
	if len(nodes) > 1 {
		w.t.Errorf("%q delete events at the same time", nodes)
	}
}

// nodes returns how often each node has been seen at it.
func (w *retentionWatch) nodes() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen)
}

// swept returns the nodes that have deleted events, also those that were at it
// between two looks.
func (w *retentionWatch) swept() []string {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(), "SELECT DISTINCT node FROM public.sweepers")
	if err != nil {
		w.t.Fatal(err)
	}
	nodes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return nodes
}

// awaitSweep returns the first node that is seen to delete events.
func (w *retentionWatch) awaitSweep() int {
	w.t.Helper()
	select {
	case node := <-w.sweep:
		return node
	case <-time.After(time.Minute):
		w.t.Fatal("nobody looks after the feeds")
		return 0
	}
}

// unswept returns how many events of a feed are given up and not freed.
func (w *retentionWatch) unswept(name string) (n feed.ID) {
	w.t.Helper()
	if err := w.db.QueryRow(w.t.Context(), "SELECT first - swept FROM rejoin.feeds WHERE name = $1", name).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

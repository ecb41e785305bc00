package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// A command with the race detector, on two cores with all the rest, carries
// about half of the 2,000 events a second that one without it does.
var (
	manyRate  = flag.Int("many-rate", 1000, "events a second of the test with many feeds on one connection")
	manyFor   = flag.Duration("many-for", 2*time.Second, "how long that test publishes, at least")
	manyPlain = flag.Bool("many-plain", false, "whether that test runs the command as users have it")
)

const (
	manyFeeds  = 100
	manySilent = 20 // of those
	manyCuts   = 30 // of each subscriber's connection, at least
	manyLines  = 20 // of one batch
)

// TestManyFeeds has two subscribers follow a hundred feeds on one connection
// each, which is cut at random bytes and comes back to either node: a browser's
// own EventSource, and one that reads bare bytes. Both nodes are published to
// all the while. Each gets of each feed exactly 1 to N, in order, in the bytes
// that the feed's history has.
func TestManyFeeds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for range 2 {
		n := serveNode(t, built(t, *manyPlain), c.store, c.redis.URL(), "REJOIN_SUBSCRIBE_RETRY=20ms")
		n.awaitReady()
		c.nodes = append(c.nodes, n)
	}
	m := newManyTraffic(c)
	followers := map[string]manyFollower{}
	cutters := map[string]*testserver.Proxy{}
	for name, follow := range map[string]func(*testing.T, string) manyFollower{"Chromium": followManyWithChromium, "bare bytes": followManyRaw} {
		cutters[name] = newCutter(t, c.nodes[0].url, c.nodes[1].url)
		followers[name] = follow(t, cutters[name].URL(c.nodes[0].url)+"/v1/events?from=start&feed="+strings.Join(m.names, ","))
		cutShort(t, cutters[name], func(r *rand.Rand) int64 { return 1 + r.Int64N(2<<10<<r.IntN(9)) })
	}
	began := time.Now()
	stop := m.publish(c.nodes, *manyRate)
	cut := func() bool {
		return cutters["Chromium"].Cuts() >= manyCuts && cutters["bare bytes"].Cuts() >= manyCuts
	}
	for !cut() && time.Since(began) < 3*time.Minute || time.Since(began) < *manyFor {
		time.Sleep(10 * time.Millisecond) // until they have been cut often enough
	}
	stop()
	took := time.Since(began)
	for _, cutter := range cutters {
		restAfter(manyCuts, cutter)
	}
	t.Logf("%d events in %v, %.0f a second", m.acked.Load(), took.Round(time.Millisecond), float64(m.acked.Load())/took.Seconds())
	histories := m.histories(t, c.nodes)
	for name, f := range followers {
		t.Logf("%s: %d cuts", name, cutters[name].Cuts())
		if !cut() {
			t.Errorf("%s was cut only %d times", name, cutters[name].Cuts())
		}
		demandMany(t, name, f, histories, int(m.acked.Load()))
	}
	if t.Failed() {
		t.Logf("node 0:\n%s\nnode 1:\n%s", c.nodes[0].log, c.nodes[1].log)
	}
}

// manyFollower is a subscriber to many feeds, as its test sees it.
type manyFollower interface {
	count() int                                          // of the events so far
	seen() (events map[string][]string, faults []string) // the data of each, by feed
}

// demandMany waits until a follower has all events, and compares.
func demandMany(t *testing.T, name string, f manyFollower, histories map[string]history, total int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); f.count() < total && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond) // until more has arrived
	}
	time.Sleep(100 * time.Millisecond) // for what should not come
	events, faults := f.seen()
	if len(faults) > 10 {
		faults = append(faults[:10], fmt.Sprintf("and %d more", len(faults)-10))
	}
	for _, fault := range faults {
		t.Errorf("%s: %s", name, fault)
	}
	for feed, h := range histories {
		got := events[feed]
		for i := range min(len(got), len(h.Events)) {
			if got[i] != string(h.Events[i]) {
				t.Errorf("%s of %s: got as event %d\n%s\nwhich is\n%s", name, feed, i+1, got[i], h.Events[i])
				break
			}
		}
		if len(got) != len(h.Events) {
			t.Errorf("%s of %s: got %d events, it has %d", name, feed, len(got), len(h.Events))
		}
		delete(events, feed)
	}
	for feed := range events {
		t.Errorf("%s got events of %s, which it does not follow", name, feed)
	}
	if t.Failed() {
		t.Logf("%s: %v", name, f)
	}
}

// manyTraffic publishes to many feeds, and counts what is acknowledged.
type manyTraffic struct {
	c     *cluster
	names []string // as long as their cursor may be; the first ones stay silent
	acked atomic.Int64
	turn  atomic.Int64 // whose it is among the feeds that are not silent

	// anywhere returns where to publish, again if need be; nil if the nodes live.
	anywhere func() string

	mu   sync.Mutex
	feed map[string]feed.ID // the last id that was acknowledged
}

func newManyTraffic(c *cluster) *manyTraffic {
	m := &manyTraffic{c: c, feed: make(map[string]feed.ID)}
	for i := range manyFeeds {
		m.names = append(m.names, fmt.Sprintf("livefeed-%03d-of-%d", i, manyFeeds))
	}
	return m
}

// publish has the nodes published to with so many events a second in all.
func (m *manyTraffic) publish(nodes []*process, rate int) (stop func()) {
	const publishers = 2 // on each node
	pause := time.Second * time.Duration(publishers*len(nodes)*manyLines) / time.Duration(rate)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for i := range publishers * len(nodes) {
		work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			defer client.CloseIdleConnections()
			ticker := time.NewTicker(pause)
			defer ticker.Stop()
			for n := 1; ctx.Err() == nil; n++ {
				if err := m.publishBatch(client, nodes[i%len(nodes)], fmt.Sprintf("publisher-%d-batch-%d", i, n)); err != nil {
					m.c.t.Errorf("publisher %d: %v", i, err)
					return
				}
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	m.c.t.Cleanup(stop)
	return stop
}

func (m *manyTraffic) publishBatch(client *http.Client, n *process, label string) error {
	var lines strings.Builder
	for i := range manyLines {
		name := m.names[manySilent+int(m.turn.Add(1))%(manyFeeds-manySilent)]
		text := fmt.Sprintf("%s, event %d %s\n<tail> ü \u2028", label, i, strings.Repeat("x", rand.IntN(100)))
		switch data, _ := json.Marshal(text); i % 3 {
		case 0:
			fmt.Fprintf(&lines, "{\"feed\":%q,\"data\":%s}\n", name, data)
		case 1:
			fmt.Fprintf(&lines, "{\"feed\":%q,\"type\":\"note\",\"data\":%s}\n", name, data)
		default:
			fmt.Fprintf(&lines, "{\"feed\":%q,\"data\":{\"text\": %s, \"n\":%d.50}}\n", name, data, i)
		}
	}
	k := keyed{path: "/v1/events", media: "application/x-ndjson", key: label, body: lines.String()}
	a, err := k.send(client, n.url)
	for began := time.Now(); m.anywhere != nil && (err != nil || a.status == http.StatusServiceUnavailable) && time.Since(began) < 3*time.Minute; {
		time.Sleep(15 * time.Millisecond) // the node is being started
		a, err = k.send(client, m.anywhere())
	}
	if err != nil {
		return err
	}
	var answer struct {
		Events []struct {
			Feed string
			ID   feed.ID
		}
	}
	if err := json.Unmarshal([]byte(a.detail), &answer); err != nil || a.status != http.StatusCreated || len(answer.Events) != manyLines {
		return fmt.Errorf("%d %s (%w)", a.status, a.detail, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range answer.Events {
		m.feed[e.Feed] = max(m.feed[e.Feed], e.ID)
	}
	m.acked.Add(manyLines)
	return nil
}

// await waits until n more events have been acknowledged.
func (m *manyTraffic) await(n int64) {
	m.c.t.Helper()
	want := m.acked.Load() + n
	for deadline := time.Now().Add(time.Minute); m.acked.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.c.t.Fatalf("publishing does not go on: %d events are acknowledged, want %d", m.acked.Load(), want)
		}
	}
}

// histories reads all feeds from either node, and demands that they hold what
// was acknowledged and no more.
func (m *manyTraffic) histories(t *testing.T, nodes []*process) map[string]history {
	t.Helper()
	all := make(map[string]history)
	for i, name := range m.names {
		h := readHistory(t, nodes[i%len(nodes)].url, name)
		if h.Last != m.feed[name] || len(h.Events) != int(h.Last) {
			t.Errorf("%s has %d events, and ends with %d; %d was acknowledged last", name, len(h.Events), h.Last, m.feed[name])
		}
		if silent := i < manySilent; silent != (h.Last == 0) {
			t.Errorf("%s ends with %d; it should be silent: %t", name, h.Last, silent)
		}
		all[name] = h
	}
	return all
}

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyDrain has a node end in an orderly way while it has streams of many
// feeds, all of which are published to: the streams move to the other node, and
// nobody misses anything.
func TestManyDrain(t *testing.T) {
	t.Parallel()
	const subscribers = 10
	c := newCluster(t)
	c.start(2, "REJOIN_DRAIN_WINDOW=1s", "REJOIN_SUBSCRIBE_RETRY=20ms")
	ending, staying := c.nodes[0], c.nodes[1]
	m := newManyTraffic(c)
	query := "/v1/events?from=start&feed=" + strings.Join(m.names, ",")
	var all []*manyRaw
	for range subscribers {
		var connections atomic.Int64
		r := newManyRaw(func() string {
			// One node after the other, as a load balancer without a clue.
			return c.nodes[(connections.Add(1)-1)%2].url + query
		})
		r.source.start(t)
		all = append(all, r)
	}
	for _, r := range all {
		awaitOpen(t, func() bool { return r.opens() > 0 })
	}
	// What shows a subscriber nothing must not leave it behind either.
	blind := newManyRaw(always(ending.url + query + "&types=nothing"))
	stopBlind := blind.source.start(t)
	awaitOpen(t, func() bool { return blind.opens() > 0 })

	stop := m.publish([]*process{staying}, 300)
	m.await(150) // so that there is something to lose
	before := m.acked.Load()
	for _, r := range all {
		awaitThat(t, "it has what is published", func() bool { return int64(r.count()) >= before })
	}
	if err := ending.terminate(); err != nil {
		t.Errorf("the node ended with %v:\n%s", err, ending.log)
	}
	stopBlind()
	after := m.acked.Load()
	m.await(90) // on the other node
	stop()
	histories := m.histories(t, []*process{staying})
	for i, r := range all {
		name := fmt.Sprintf("subscriber %d", i)
		demandMany(t, name, r, histories, int(m.acked.Load()))
		if ends := r.source.ends(); r.cursors != 1 || len(ends) != 1 || ends[0] == nil {
			t.Errorf("%s was shown its cursor %d times, and its streams ended with %v: want once, and a break", name, r.cursors, ends)
		}
	}
	demandBlind(t, blind, histories, before)
	t.Logf("%d events; %d before the drain, %d during it", m.acked.Load(), before, after-before)
	if after == before {
		t.Error("nothing was published during the drain")
	}
}

// demandBlind demands that a subscriber who was shown no event has been told
// where its feeds stood.
func demandBlind(t *testing.T, r *manyRaw, histories map[string]history, before int64) {
	t.Helper()
	at, total := int64(0), 0
	for part := range strings.SplitSeq(r.source.lastID, ",") {
		var n int64
		name, number, _ := strings.Cut(part, "=")
		if _, err := fmt.Sscan(number, &n); err != nil || n > int64(histories[name].Last) {
			t.Errorf("the cursor says %s of a feed that ends with %d (%v)", part, histories[name].Last, err)
		}
		at += n
		total++
	}
	// The newest may have been on their way.
	if total != manyFeeds || at < before/2 || r.total > 0 {
		t.Errorf("who is shown nothing was told of %d feeds and %d events, of %d; shown %d: %v", total, at, before, r.total, r)
	}
}

// TestManyKill kills the nodes in turn, while their feeds are published to by
// publishers who repeat, with a key, what got no answer, and followed on one
// connection each by subscribers who come back to either node.
func TestManyKill(t *testing.T) {
	t.Parallel()
	const kills, subscribers = 4, 3
	c := newCluster(t)
	c.start(2)
	k := &keyPublishers{c: c, serving: slices.Clone(c.nodes)}
	m := newManyTraffic(c)
	m.anywhere = func() string { return k.node(rand.IntN(2)).url }
	var all []*manyRaw
	for range subscribers {
		r := newManyRaw(func() string { return m.anywhere() + "/v1/events?from=start&feed=" + strings.Join(m.names, ",") })
		r.source.start(t)
		awaitOpen(t, func() bool { return r.opens() > 0 })
		all = append(all, r)
	}
	stop := m.publish(c.nodes, 300)
	for i := range kills {
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond) // a random moment
		k.node(i % 2).kill()
		k.replace(i%2, c.startNode(c.redis.URL()))
	}
	stop()
	histories := m.histories(t, k.serving)
	breaks := 0
	for i, r := range all {
		demandMany(t, fmt.Sprintf("subscriber %d", i), r, histories, int(m.acked.Load()))
		breaks += len(r.source.ends())
	}
	t.Logf("%d events, %d kills, %d streams broke", m.acked.Load(), kills, breaks)
	if breaks == 0 || m.acked.Load() < 100 {
		t.Error("nothing was tried")
	}
}

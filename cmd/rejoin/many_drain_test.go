package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyDrain has a node end in an orderly way while it has streams of many
// feeds, all of which are published to: the streams move to the other node, and
// nobody misses anything.
func TestManyDrain(t *testing.T) {
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
	time.Sleep(500 * time.Millisecond) // so that there is something to lose
	before := m.acked.Load()
	if err := ending.terminate(); err != nil {
		t.Errorf("the node ended with %v:\n%s", err, ending.log)
	}
	stopBlind()
	after := m.acked.Load()
	time.Sleep(300 * time.Millisecond) // of life on the other node
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

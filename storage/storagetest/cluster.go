package storagetest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// TestCluster tests how nodes with one store work together through the signals of a bus.
// Their hubs compare feeds with the store so seldom that whatever arrives quickly came
// through the bus. It calls fresh once for each subtest, for an unused store and medium.
func TestCluster(t *testing.T, fresh func(t *testing.T) (feed.Store, Joiner)) {
	runEach(t, func(t *testing.T) *cluster {
		store, join := fresh(t)
		return &cluster{t: t, store: store, join: join}
	}, []test[*cluster]{
		{"ephemeral events", testEphemeral},
		{"ephemeral events among stored ones", testEphemeralAmongStored},
		{"counting subscribers", testCounting},
		{"counting many times at once", testCountingOften},
		{"a node that ends is not waited for", testNodeEnds},
		{"a node that stands still leaves the count", testNodeFrozen},
		{"closing a feed", testClosingReaches},
		{"trimming a feed", testTrimmingReaches},
	})
}

// cluster is nodes that share a store and the medium of a bus.
type cluster struct {
	t     *testing.T
	store feed.Store
	join  Joiner
}

// clusterNode is a node of a cluster.
type clusterNode struct {
	t   *testing.T
	bus *freezer
	hub *feed.Hub
	pub *feed.Publisher
	end func()
}

// soon is longer than the bus needs, and shorter than a verification or the wait for a
// node that does not answer.
const (
	soon       = 4 * time.Second
	seldom     = 10 * time.Second
	promptness = 300 * time.Millisecond
)

func (c *cluster) node() *clusterNode {
	c.t.Helper()
	n := &clusterNode{t: c.t, bus: &freezer{signalBus: signaler(c.t, c.join)}}
	quiet := slog.New(slog.DiscardHandler)
	n.hub = feed.NewHub(c.store, n.bus, feed.HubOptions{Verify: seldom, Logger: quiet})
	n.pub = feed.NewPublisher(c.store, n.hub, n.bus, feed.PublisherOptions{Logger: quiet})
	n.end = sync.OnceFunc(func() {
		n.pub.Close()
		n.hub.Close()
	})
	c.t.Cleanup(n.end)
	return n
}

// nodes returns nodes that know each other.
func (c *cluster) nodes(count int) []*clusterNode {
	c.t.Helper()
	nodes := make([]*clusterNode, count)
	for i := range nodes {
		nodes[i] = c.node()
		nodes[i].follow("acquaintance", feed.From{})
	}
	for _, n := range nodes {
		n.counts("acquaintance", count)
	}
	return nodes
}

func (n *clusterNode) follow(name string, from feed.From) *feed.Subscription {
	n.t.Helper()
	s, err := n.hub.Subscribe(n.t.Context(), name, from)
	if err != nil {
		n.t.Fatalf("subscribe to %s: %v", name, err)
	}
	n.t.Cleanup(s.Close)
	return s
}

// counts waits until the node counts this number of subscribers.
func (n *clusterNode) counts(name string, want int) {
	n.t.Helper()
	got := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if got = n.hub.Subscribers(n.t.Context(), name); got == want {
			return
		}
	}
	n.t.Fatalf("%s has %d subscribers for a node, want %d", name, got, want)
}

// prompt counts once. It returns how long that took, and whether it was so short that
// every node must have answered.
func (n *clusterNode) prompt(name string) (got int, took time.Duration, ok bool) {
	began := time.Now()
	got = n.hub.Subscribers(n.t.Context(), name)
	took = time.Since(began)
	return got, took, took < promptness
}

// exactly checks the node's count when all nodes answer. On a busy machine some counts may
// be late, but not all.
func (n *clusterNode) exactly(name string, want int) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got, took, ok := n.prompt(name)
		switch {
		case ok && got == want:
			return
		case ok:
			n.t.Errorf("%s has %d subscribers for a node after %v, want %d", name, got, took, want)
			return
		case time.Now().After(deadline):
			n.t.Errorf("counting the subscribers of %s takes %v each time", name, took)
			return
		}
	}
}

func (n *clusterNode) publish(name string, count int) {
	n.t.Helper()
	drafts := make([]feed.Draft, count)
	for i := range drafts {
		drafts[i] = feed.Draft{Feed: name, Data: "stored"}
	}
	if _, err := n.pub.Publish(n.t.Context(), drafts...); err != nil {
		n.t.Fatalf("publish: %v", err)
	}
}

func (n *clusterNode) say(name, data string) {
	n.t.Helper()
	err := n.pub.PublishEphemeral(n.t.Context(), feed.Draft{Feed: name, Type: "typing", Data: data})
	if err != nil {
		n.t.Fatalf("publish an ephemeral event: %v", err)
	}
}

// within returns the next delivery that is not empty, or none if none comes within d.
func within(t *testing.T, s *feed.Subscription, d time.Duration) feed.Delivery {
	t.Helper()
	delivery, err := s.Next(t.Context(), time.After(d))
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return delivery
}

// freezer is a bus that carries nothing while it is frozen, like the network of a frozen
// node.
type freezer struct {
	signalBus
	mu     sync.Mutex
	frozen bool
}

func (f *freezer) freeze(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = on
}

func (f *freezer) still() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen
}

func (f *freezer) Signal(ctx context.Context, payload []byte) error {
	if f.still() {
		return errors.New("frozen")
	}
	return f.signalBus.Signal(ctx, payload)
}

func (f *freezer) Signals(ctx context.Context, receive func([]byte)) error {
	return f.signalBus.Signals(ctx, func(payload []byte) {
		if !f.still() {
			receive(payload)
		}
	})
}

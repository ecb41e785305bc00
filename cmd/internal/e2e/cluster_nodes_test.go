package e2e

import "testing"

// TestClusterOrder has three nodes append to one feed at once, as fast as they
// can: all subscribers, on all nodes, see one order. Commit order is strict and
// the order in which Redis is told is not, so that Redis refuses some: that is
// counted, and costs nobody an event.
func TestClusterOrder(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterOrder)
}

func testClusterOrder(t *testing.T, c *cluster) {
	const publishers, events = 16, 25
	c.start(3)
	c.follow("chat", 10, c.nodes...)
	c.publish(traffic{feed: "chat", publishers: publishers, events: events}, c.nodes...)()
	f := c.verdict("chat")
	t.Log(f)
	refused := 0.0
	for _, n := range c.nodes {
		refused += n.metric("rejoin_bus_refused_total")
	}
	t.Logf("Redis refused %v events", refused)
	if want := len(c.nodes) * publishers * events; f.events != want || f.deliveries != want*10*len(c.nodes) {
		t.Errorf("want %d events for %d subscribers", want, 10*len(c.nodes))
	}
	if refused == 0 && c.redis != nil {
		t.Error("Redis refused nothing, or it is not counted")
	}
	if f.reconnects > 0 {
		t.Error("streams were cut")
	}
}

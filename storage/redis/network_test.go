package redis_test

import (
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

// The network cuts off one node, in every way that there is. The other stays
// connected.
func TestNetwork(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	p := testserver.StartProxy(t, server.Addr())
	o := options()
	w := newWorld()
	n := join(t, w, p.URL(server.URL()), o, "chat", "news")
	teller := open(t, server.URL(), o)
	defer teller.Close()
	flows(t, teller, n, "chat")

	t.Run("resets", func(t *testing.T) {
		for range 10 {
			if err := tell(teller, w.commit("news", 1)); err != nil {
				t.Fatal(err)
			}
			p.Cut(testserver.Reset)
			n.arrives(2 * time.Second)
		}
		flows(t, teller, n, "chat")
	})
	t.Run("lost replies", func(t *testing.T) {
		n.up(2 * time.Second)
		before := n.bus.Stats().Reconnects
		p.Set(testserver.Fault{ToClient: testserver.Flow{Lose: true}})
		if err := tell(teller, w.commit("news", 3)); err != nil {
			t.Fatal(err)
		}
		// The events of this node arrive, but the node cannot know that.
		if err := tell(n.bus, w.commit("chat", 1)); err == nil {
			t.Error("tell without an answer: no error")
		}
		eventually(t, 4*time.Second, "the silence is noticed", func() bool { return n.bus.Stats().Reconnects > before })
		p.Set(testserver.Fault{})
		n.arrives(2 * time.Second)
		flows(t, teller, n, "chat")
	})
	t.Run("delay", func(t *testing.T) {
		p.Set(testserver.Fault{ToClient: testserver.Flow{Delay: 300 * time.Millisecond}})
		before := n.bus.Stats().Reconnects
		n.flowsSlowly(t, teller, 3)
		if now := n.bus.Stats().Reconnects; now != before {
			t.Errorf("a slow network was taken for a broken one %d times", now-before)
		}
		p.Set(testserver.Fault{})
		flows(t, teller, n, "chat")
	})
}

// flowsSlowly checks that events arrive by the bus within two seconds.
func (n *node) flowsSlowly(t *testing.T, teller *redis.Bus, times int) {
	t.Helper()
	for range times {
		live, _, _ := n.counts()
		if err := tell(teller, n.world.commit("chat", 1)); err != nil {
			t.Fatal(err)
		}
		n.arrives(2 * time.Second)
		if now, _, _ := n.counts(); now == live {
			t.Error("an event came by way of the store")
		}
	}
}

package feed_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// air carries signals between nodes at once, and no events.
type air struct {
	mu    sync.Mutex
	nodes []*signaler
}

// signaler is a node's bus.
type signaler struct {
	quietBus
	air     *air
	receive func([]byte)

	mu     sync.Mutex
	frozen chan struct{} // not nil: calls of Signal wait for it
	deaf   bool
	sent   [][]byte
}

func (s *signaler) Signal(ctx context.Context, payload []byte) error {
	s.mu.Lock()
	frozen := s.frozen
	s.sent = append(s.sent, payload)
	s.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.air.mu.Lock()
	defer s.air.mu.Unlock()
	for _, n := range s.air.nodes { // this one, too
		n.mu.Lock()
		if n.receive != nil && !n.deaf {
			n.receive(payload)
		}
		n.mu.Unlock()
	}
	return nil
}

func (s *signaler) Signals(ctx context.Context, receive func([]byte)) error {
	s.mu.Lock()
	s.receive = receive
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.receive = nil
	s.mu.Unlock()
	return nil
}

// peer is one of several nodes over a store: a hub and a publisher.
type peer struct {
	t   *testing.T
	bus *signaler
	hub *feed.Hub
	pub *feed.Publisher
}

func (a *air) peer(t *testing.T, store feed.Store) *peer {
	p := &peer{t: t, bus: &signaler{air: a}}
	a.mu.Lock()
	a.nodes = append(a.nodes, p.bus)
	a.mu.Unlock()
	p.hub = feed.NewHub(store, p.bus, feed.HubOptions{Logger: quiet})
	p.pub = feed.NewPublisher(store, p.hub, p.bus, feed.PublisherOptions{Logger: quiet})
	t.Cleanup(p.end)
	synctest.Wait()
	return p
}

func (p *peer) end() {
	p.pub.Close()
	p.hub.Close()
}

func (p *peer) subscribe(name string) *feed.Subscription {
	p.t.Helper()
	s, err := p.hub.Subscribe(p.t.Context(), name, feed.From{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Close)
	return s
}

func (p *peer) say(data string) {
	p.t.Helper()
	if err := p.pub.PublishEphemeral(p.t.Context(), feed.Draft{Feed: "a", Data: data, JSON: true}); err != nil {
		p.t.Fatal(err)
	}
}

// An ephemeral event reaches the subscribers of every node, once.
func TestSignalsCarryEphemeralEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &air{}, feedtest.NewStore()
		first, second := a.peer(t, store), a.peer(t, store)
		here, there := first.subscribe("a"), second.subscribe("a")
		data := "\"<\u2028\\u0000&>\""
		first.say(data)
		synctest.Wait()
		e, f := next(t, here, 0), next(t, there, 0)
		if !f.Ephemeral || len(f.Events()) != 1 || f.Events()[0] != e.Events()[0] || f.Events()[0].Data != data {
			t.Errorf("got %+v there, %+v here", f.Events(), e.Events())
		}
		if got := seen(t, here, time.Second) + seen(t, there, time.Second); got != "" {
			t.Errorf("and then %q", got)
		}
	})
}

// Other nodes learn of a close and of a trim at once, though no event shows it.
func TestSignalsSayWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &air{}, feedtest.NewStore()
		first, second := a.peer(t, store), a.peer(t, store)
		if _, err := first.pub.Publish(t.Context(), feed.Draft{Feed: "a"}, feed.Draft{Feed: "a"}, feed.Draft{Feed: "a"}); err != nil {
			t.Fatal(err)
		}
		there := second.subscribe("a")
		behind, err := second.hub.Subscribe(t.Context(), "a", feed.FromCursor(0))
		if err != nil {
			t.Fatal(err)
		}
		defer behind.Close()
		if err := first.hub.Trim(t.Context(), "a", 3); err != nil {
			t.Fatal(err)
		}
		if _, err := first.pub.PublishBatch(t.Context(), feed.Publication{Feed: "a", Close: true}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		synctest.Wait()
		if got := seen(t, there, time.Second); got != "closed" {
			t.Errorf("saw %q", got)
		}
		if got := seen(t, behind, time.Second); got != "trimmed:0-3 3 closed" {
			t.Errorf("saw %q", got)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("after %v", took)
		}
	})
}

// Ephemeral events that waited for a frozen bus are too old to be sent.
func TestSignalsDoNotCarryWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &air{}, feedtest.NewStore()
		first, second := a.peer(t, store), a.peer(t, store)
		there := second.subscribe("a")
		frozen := make(chan struct{})
		first.bus.mu.Lock()
		first.bus.frozen = frozen
		first.bus.mu.Unlock()
		for range 5000 { // more than are kept
			first.say("1")
		}
		time.Sleep(30 * time.Second)
		first.bus.mu.Lock()
		first.bus.frozen = nil
		first.bus.mu.Unlock()
		close(frozen)
		synctest.Wait()
		first.say("2")
		synctest.Wait()
		if got := seen(t, there, time.Second); got != "2" {
			t.Errorf("saw %q", got)
		}
	})
}

func TestSubscribersOfAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &air{}, feedtest.NewStore()
		nodes := []*peer{a.peer(t, store), a.peer(t, store), a.peer(t, store)}
		count := func(n *peer, want int, within time.Duration) {
			t.Helper()
			began := time.Now()
			if got := n.hub.Subscribers(t.Context(), "a"); got != want {
				t.Errorf("%d subscribers, want %d", got, want)
			}
			if took := time.Since(began); took > within {
				t.Errorf("it took %v", took)
			}
		}
		for i, n := range nodes {
			for range i + 1 {
				n.subscribe("a")
			}
			n.subscribe("b")
		}
		for _, n := range nodes {
			count(n, 6, 0)
		}
		last := nodes[2].subscribe("a")
		count(nodes[0], 7, 0)
		last.Close()
		count(nodes[0], 6, 0)
		// A count waits for a silent node, until the node is forgotten.
		nodes[1].bus.mu.Lock()
		nodes[1].bus.deaf = true
		nodes[1].bus.mu.Unlock()
		count(nodes[0], 4, 500*time.Millisecond)
		nodes[2].end()
		synctest.Wait()
		nodes[1].end()
		synctest.Wait()
		count(nodes[0], 1, 0)
	})
}

// A bus may carry a signal late, or twice. Where a network loses packets, signals of
// a dropped connection may arrive after those of the next one.
func TestSignalsKeepTheOrderOfEphemeralEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &air{}, feedtest.NewStore()
		first, second := a.peer(t, store), a.peer(t, store)
		there := second.subscribe("a")
		for _, data := range []string{"1", "2", "3"} {
			first.say(data)
			synctest.Wait()
		}
		for _, payload := range first.bus.sent {
			second.bus.receive(payload)
		}
		first.say("4")
		synctest.Wait()
		if got := seen(t, there, time.Second); got != "1 2 3 4" {
			t.Errorf("saw %q", got)
		}
	})
}

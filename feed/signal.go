package feed

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// Signaler is a [Bus] that carries signals as well: short notes to the nodes
// that are connected at this moment. It may lose them; nothing that is lost
// with one is an event of a feed.
type Signaler interface {
	// Signal sends the payload to the other nodes. The caller gives it a
	// deadline. It may reach the node that sent it.
	Signal(ctx context.Context, payload []byte) error

	// Signals hands what other nodes send to receive until ctx ends; then it
	// returns nil. It outlives failures of the bus. It calls receive from one
	// goroutine at a time.
	Signals(ctx context.Context, receive func(payload []byte)) error
}

// signalKind says what a signal is about.
type signalKind string

const (
	signalHere      signalKind = "here"      // the node lives
	signalGone      signalKind = "gone"      // the node ends
	signalChanged   signalKind = "changed"   // a feed was closed or trimmed
	signalEphemeral signalKind = "ephemeral" // an event that is not stored
	signalCount     signalKind = "count"     // how many subscribers has a feed?
	signalCounted   signalKind = "counted"   // so many
)

// note is a signal on its way, as JSON.
type note struct {
	Kind  signalKind `json:"kind"`
	Node  string     `json:"node"` // that sends it
	Feed  string     `json:"feed,omitempty"`
	Event *Event     `json:"event,omitempty"`
	Ask   string     `json:"ask,omitempty"` // names a question, in it and its answers
	Count int        `json:"count,omitempty"`

	at time.Time // since when it waits to be sent
}

const (
	hereEvery    = 2 * time.Second        // between two signs of life
	hereMemory   = 3 * hereEvery          // after which a silent node is taken for gone
	countWait    = 500 * time.Millisecond // for the answers of the other nodes
	signalBudget = time.Second            // for one Signal, and for its wait before that
	signalQueue  = 1024                   // signals waiting to be sent; beyond that they are dropped
)

// signals is a hub's side of its bus's signals. Without a Signaler, there is
// no other node to talk to.
type signals struct {
	bus  Signaler // or nil
	node string
	out  chan note

	mu    sync.Mutex
	peers map[string]time.Time // when each other node was last heard of
	asked map[string]*question
}

// question is a count under way.
type question struct {
	waits map[string]bool // nodes that have yet to answer
	sum   int
	done  chan struct{} // closed when all have
}

func newSignals(bus Bus, node string) *signals {
	s := &signals{node: node, out: make(chan note, signalQueue), peers: make(map[string]time.Time), asked: make(map[string]*question)}
	s.bus, _ = bus.(Signaler)
	return s
}

// send queues a signal. It does not wait.
func (s *signals) send(kind signalKind, n note) {
	if s.bus == nil {
		return
	}
	n.Kind, n.Node, n.at = kind, s.node, time.Now()
	select {
	case s.out <- n:
	default:
	}
}

// sendLoop sends what is queued, and signs of life in between, until ctx ends.
func (s *signals) sendLoop(ctx context.Context) {
	here := time.NewTicker(hereEvery)
	defer here.Stop()
	s.transmit(ctx, note{Kind: signalHere, Node: s.node})
	for {
		select {
		case n := <-s.out:
			// After a bus that was frozen, what is old misleads who gets it.
			if time.Since(n.at) <= signalBudget {
				s.transmit(ctx, n)
			}
		case <-here.C:
			s.transmit(ctx, note{Kind: signalHere, Node: s.node})
		case <-ctx.Done():
			s.transmit(context.WithoutCancel(ctx), note{Kind: signalGone, Node: s.node})
			return
		}
	}
}

// transmit sends one signal. One that fails is lost, which is what signals may be.
func (s *signals) transmit(ctx context.Context, n note) {
	payload, err := json.Marshal(n)
	if err != nil {
		panic(err) // a note is a plain struct
	}
	ctx, cancel := context.WithTimeout(ctx, signalBudget)
	defer cancel()
	_ = s.bus.Signal(ctx, payload)
}

// heard notes that a node lives, or has gone, and reports whether it is new.
func (s *signals) heard(n note, now time.Time) (fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.Kind == signalGone {
		delete(s.peers, n.Node)
		return false
	}
	_, known := s.peers[n.Node]
	s.peers[n.Node] = now
	s.bury(now)
	return !known
}

// bury forgets the nodes that have been silent for too long.
func (s *signals) bury(now time.Time) {
	for node, at := range s.peers {
		if now.Sub(at) > hereMemory {
			delete(s.peers, node)
		}
	}
}

// ask begins a count. It ends at once if there is no other node.
func (s *signals) ask(id string, now time.Time) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &question{waits: make(map[string]bool), done: make(chan struct{})}
	s.bury(now)
	for node := range s.peers {
		q.waits[node] = true
	}
	s.asked[id] = q
	if len(q.waits) == 0 {
		close(q.done)
	}
	return q
}

// counted takes a node's answer.
func (s *signals) counted(n note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.asked[n.Ask]
	if q == nil || !q.waits[n.Node] {
		return
	}
	delete(q.waits, n.Node)
	q.sum += n.Count
	if len(q.waits) == 0 {
		close(q.done)
	}
}

// sum ends a count and returns what was answered.
func (s *signals) sum(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.asked[id]
	delete(s.asked, id)
	return q.sum
}

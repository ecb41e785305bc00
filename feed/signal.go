package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Signaler is a [Bus] that carries signals as well: short notes to the nodes
// that are connected at this moment. It may lose them: they carry no stored event.
type Signaler interface {
	// Signal sends the payload to the other nodes. The caller sets a deadline.
	// The payload may also reach the node that sent it.
	Signal(ctx context.Context, payload []byte) error

	// Signals calls receive with each payload of other nodes until ctx ends; then it
	// returns nil. It outlives failures of the bus. It calls receive, which does
	// not block and may keep the payload, from one goroutine at a time.
	Signals(ctx context.Context, receive func(payload []byte)) error
}

// LoneSignaler is a [Signaler] that knows when no other node is connected to it.
type LoneSignaler interface {
	Signaler
	// Alone reports that at most one node calls Signals at this moment.
	Alone() bool
}

// signalKind tells what a note is about.
type signalKind string

const (
	signalHere      signalKind = "here"      // the node runs
	signalGone      signalKind = "gone"      // the node stops
	signalChanged   signalKind = "changed"   // a feed was closed or trimmed
	signalEphemeral signalKind = "ephemeral" // an event that is not stored
	signalReport    signalKind = "report"    // an event of NodesFeed
	signalCount     signalKind = "count"     // a question: how many subscribers has a feed?
	signalCounted   signalKind = "counted"   // the answer
)

// note is one piece of news from a node. A signal is the name of the node, a
// line feed, and its notes as JSON.
type note struct {
	Kind  signalKind `json:"kind"`
	Feed  string     `json:"feed,omitempty"`
	Event *Event     `json:"event,omitempty"`
	Ask   string     `json:"ask,omitempty"` // names a question, in it and its answers
	Count int        `json:"count,omitempty"`
	// Watches is set while NodesFeed has subscribers at the node, which is here.
	Watches bool `json:"watches,omitempty"`
	// Number counts the ephemeral events and reports that the node sends, from 1 on.
	Number uint64 `json:"number,omitempty"`

	at time.Time // when it was queued
}

func (n *note) size() int {
	if n.Event == nil {
		return 0
	}
	return cost(n.Event)
}

const (
	hereEvery    = 2 * time.Second        // between two signs of life
	hereMemory   = 3 * hereEvery          // after which a silent node is forgotten
	countWait    = 500 * time.Millisecond // for the answers of the other nodes
	signalBudget = time.Second            // for one Signal, and for its wait before that

	// How many notes may wait to be sent. Further ones, and those for which there is
	// no memory, are dropped.
	signalQueue = 1024
	// How many waiting notes one signal takes, so that an answer does not wait for as
	// many round trips as there are ephemeral events before it.
	signalNotes = 128
	signalBytes = 256 << 10
)

// signals sends a hub's signals and keeps track of the other nodes. If the bus is no
// Signaler, there are none.
type signals struct {
	bus        Signaler // or nil
	node       string
	out        chan note
	memory     *Memory
	lastNumber uint64 // ephemeral events, by sendLoop
	heardSelf  atomic.Bool
	watching   func() bool // reports whether NodesFeed has subscribers here

	mu    sync.Mutex
	peers map[string]*peer
	asked map[string]*question
}

// peer is another node.
type peer struct {
	lastSeen   time.Time // when its newest signal came
	gone       bool      // it has stopped, whatever signals come late
	watches    bool      // NodesFeed has subscribers there
	lastNumber uint64    // the number of its newest ephemeral event
}

// question is a count of subscribers under way.
type question struct {
	waits   map[string]bool // nodes that have yet to answer
	answers map[string]int
	ended   bool
	done    chan struct{} // closed once ended
}

// answered no longer waits for an answer of the node.
func (q *question) answered(node string) {
	delete(q.waits, node)
	if len(q.waits) == 0 && !q.ended {
		q.ended = true
		close(q.done)
	}
}

func newSignals(bus Bus, node string, memory *Memory) *signals {
	s := &signals{node: node, memory: memory, out: make(chan note, signalQueue), peers: make(map[string]*peer), asked: make(map[string]*question)}
	s.bus, _ = bus.(Signaler)
	return s
}

// send queues a note. It does not wait.
func (s *signals) send(n note) {
	if s.bus == nil || s.alone() {
		return
	}
	n.at = time.Now()
	size := n.size()
	if !s.memory.Take(HoldBus, size) {
		return
	}
	select {
	case s.out <- n:
	default:
		s.memory.Give(HoldBus, size)
	}
}

// alone reports whether this node listens to its bus and no other does.
func (s *signals) alone() bool {
	bus, ok := s.bus.(LoneSignaler)
	return ok && s.heardSelf.Load() && bus.Alone()
}

// sendLoop sends queued notes, and signs of life in between, until ctx ends.
func (s *signals) sendLoop(ctx context.Context) {
	here := time.NewTicker(hereEvery)
	defer here.Stop()
	s.transmit(ctx, s.hereNote())
	for {
		select {
		case n := <-s.out:
			if notes := s.gather(n); len(notes) > 0 {
				s.transmit(ctx, notes...)
			}
		case <-here.C:
			s.transmit(ctx, s.hereNote())
		case <-ctx.Done():
			s.transmit(context.WithoutCancel(ctx), note{Kind: signalGone})
			return
		}
	}
}

// gather returns n and the other queued notes, as many as one signal takes. It drops
// notes that became old while the bus stood still: they would mislead their receivers.
func (s *signals) gather(n note) []note {
	notes := []note{n}
	size := n.size()
	for more := true; more && len(notes) < signalNotes && size < signalBytes; {
		select {
		case n := <-s.out:
			size += n.size()
			notes = append(notes, n)
		default:
			more = false
		}
	}
	s.memory.Give(HoldBus, size)
	notes = slices.DeleteFunc(notes, func(n note) bool { return time.Since(n.at) > signalBudget })
	for i := range notes {
		if notes[i].Event != nil {
			s.lastNumber++
			notes[i].Number = s.lastNumber
		}
	}
	return notes
}

// transmit sends one signal. If that fails, the signal is lost, as signals may be.
func (s *signals) transmit(ctx context.Context, notes ...note) {
	var payload bytes.Buffer
	payload.WriteString(s.node + "\n")
	if err := json.NewEncoder(&payload).Encode(notes); err != nil {
		panic(err) // a note is a plain struct
	}
	ctx, cancel := context.WithTimeout(ctx, signalBudget)
	defer cancel()
	_ = s.bus.Signal(ctx, payload.Bytes())
}

// read returns the notes in a signal of another node. It returns none from a signal that
// this node sent itself, and from one that it cannot read, which is of another version.
func (s *signals) read(payload []byte) (node string, notes []note) {
	from, body, ok := bytes.Cut(payload, []byte("\n"))
	if ok && string(from) == s.node {
		s.heardSelf.Store(true)
		return "", nil
	}
	if !ok || len(from) == 0 || json.Unmarshal(body, &notes) != nil {
		return "", nil
	}
	return string(from), notes
}

// noteAlive notes that a node runs and reports whether it is new.
func (s *signals) noteAlive(node string, now time.Time) (fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropSilent(now)
	p := s.peers[node]
	if p == nil {
		s.peers[node] = &peer{lastSeen: now}
		return true
	}
	if !p.gone {
		p.lastSeen = now
	}
	return false
}

// hereNote returns a sign of life.
func (s *signals) hereNote() note { return note{Kind: signalHere, Watches: s.watching()} }

// noteWatches notes whether a node watches NodesFeed, and returns that.
func (s *signals) noteWatches(node string, watches bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[node]
	if p == nil || p.gone {
		return false
	}
	p.watches = watches
	return watches
}

// watched reports whether another node watches NodesFeed.
func (s *signals) watched(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropSilent(now)
	for _, p := range s.peers {
		if p.watches && !p.gone {
			return true
		}
	}
	return false
}

// alive returns how many other nodes run.
func (s *signals) alive(now time.Time) (nodes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropSilent(now)
	for _, p := range s.peers {
		if !p.gone {
			nodes++
		}
	}
	return nodes
}

// inOrder reports whether a node's ephemeral event is newer than all that came
// from it before. A bus may carry signals late, and more than once. Nodes of
// older versions do not number their events.
func (s *signals) inOrder(node string, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[node]
	if p == nil || number == 0 {
		return true
	}
	newer := number > p.lastNumber
	p.lastNumber = max(p.lastNumber, number)
	return newer
}

// noteGone notes that a node has stopped. No count waits for its answer any more.
func (s *signals) noteGone(node string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := &peer{lastSeen: now, gone: true}
	if p := s.peers[node]; p != nil {
		last.lastNumber = p.lastNumber
	}
	s.peers[node] = last
	for _, q := range s.asked {
		q.answered(node)
	}
}

// dropSilent forgets the nodes that have been silent for too long. The caller holds mu.
func (s *signals) dropSilent(now time.Time) {
	for node, p := range s.peers {
		if now.Sub(p.lastSeen) > hereMemory {
			delete(s.peers, node)
		}
	}
}

// ask begins a count. It ends at once if there is no other node.
func (s *signals) ask(id string, now time.Time) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &question{waits: make(map[string]bool), answers: make(map[string]int), done: make(chan struct{})}
	s.dropSilent(now)
	for node, p := range s.peers {
		if !p.gone {
			q.waits[node] = true
		}
	}
	s.asked[id] = q
	q.answered("")
	return q
}

// noteCount takes a node's answer.
func (s *signals) noteCount(node string, n note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.asked[n.Ask]; q != nil {
		q.answers[node] = n.Count
		q.answered(node)
	}
}

// sum ends a count and returns the sum of the answers.
func (s *signals) sum(id string) (sum int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.asked[id].answers {
		sum += count
	}
	delete(s.asked, id)
	return sum
}

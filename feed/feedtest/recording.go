package feedtest

import (
	"hash/fnv"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Recording is what was seen of a run of real servers: every attempt to publish
// and its answer, every delivery of every client, what was trimmed, what was
// broken when, and what the store holds in the end. Nothing is judged before
// [Recording.Judge], so that recording costs a run next to nothing: about 14
// bytes a delivery.
//
// A [Checker] judges as it goes and knows the store from within; a Recording
// knows only what any client could have seen.
//
// A Recording is safe for concurrent use.
type Recording struct {
	// Retention notes that the servers may trim feeds by themselves: what the
	// store does not hold at the end may have been trimmed at any time.
	Retention bool

	began time.Time

	mu      sync.Mutex
	feeds   map[string]*sent
	batches map[string][]member
	clients []*DeliveryLog
	faults  []Fault
	found   []Finding
}

// NewRecording returns a recording that begins now.
func NewRecording() *Recording {
	return &Recording{began: time.Now(), feeds: make(map[string]*sent), batches: make(map[string][]member)}
}

// Sum stands for the bytes of an event.
type Sum uint64

// SumOf returns the sum of an event's type and data.
func SumOf(kind, data string) Sum {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kind)) // it never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(data))
	return Sum(h.Sum64())
}

// Outcome is what an attempt to publish came to.
type Outcome byte

const (
	Unknown      Outcome = iota // no answer, or one that leaves it open
	Refused                     // the answer promised that nothing was stored
	Acknowledged                // stored, under an id
)

// Attempt is one attempt to publish an event. The events of a run differ from
// each other in their bytes. Each has a key of its own, and its publisher repeats
// it with that key until the outcome is known, or it stops.
type Attempt struct {
	Feed, Key string
	Type      string
	Batch     string // all events of a batch are stored, or none; empty for an event alone
	Sum       Sum
	Outcome   Outcome
	ID        feed.ID   // if it was acknowledged
	Began     time.Time // matters where the feed is closed
	At        time.Time // of the answer
}

// Trim is an order to delete the events of a feed before an id.
type Trim struct {
	Feed   string
	Before feed.ID
	Asked  time.Time
	// Gone is when the order has reached every node: a connection opened later
	// must not bring trimmed events. Zero if that is unknown.
	Gone time.Time
}

// Fault is something that was broken on purpose.
type Fault struct {
	Name        string
	From, Until time.Time
	// Settle is how long after its end the fault still excuses a delay.
	Settle time.Duration
	// Bound is what may pass, for 99 of 100 deliveries, between the
	// acknowledgement of an event and its delivery.
	Bound time.Duration
	// Stops notes that nothing can travel during the fault: the bound counts
	// from its end.
	Stops bool
}

// sent is what was published to a feed, and what became of it.
type sent struct {
	name  string
	keys  map[string]*intent
	sums  map[Sum]*intent
	trims []Trim
	held  *holding

	closing   closing
	ephemeral map[Sum]*Ephemeral
	elsewhere map[Sum]bool // published to another store
}

// intent is an event that a publisher means to publish.
type intent struct {
	key     string
	kind    string // the event's type
	sum     Sum
	began   int64     // when the first attempt did, in µs
	ids     []feed.ID // that it was acknowledged with, each once
	at      int64     // of the first acknowledgement, in µs
	unknown bool      // an attempt's outcome is
	place   feed.ID   // where it was seen, in the store or by a client
}

// holding is what the store holds of a feed at the end.
type holding struct {
	first, last feed.ID
	sums        []Sum   // from first on
	wrong       feed.ID // the first id that is not where it belongs; 0 for none
	closed      bool
}

func (r *Recording) feed(name string) *sent {
	s := r.feeds[name]
	if s == nil {
		s = &sent{
			name: name, keys: make(map[string]*intent), sums: make(map[Sum]*intent),
			ephemeral: make(map[Sum]*Ephemeral), elsewhere: make(map[Sum]bool),
		}
		r.feeds[name] = s
	}
	return s
}

// Attempted adds an attempt to publish.
func (r *Recording) Attempted(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.feed(a.Feed)
	e := s.keys[a.Key]
	if e == nil {
		e = &intent{key: a.Key, kind: a.Type, sum: a.Sum, began: r.since(a.Began)}
		s.keys[a.Key], s.sums[a.Sum] = e, e
		if a.Batch != "" {
			r.batches[a.Batch] = append(r.batches[a.Batch], member{s.name, e})
		}
	}
	switch a.Outcome {
	case Unknown:
		e.unknown = true
	case Acknowledged:
		if len(e.ids) == 0 {
			e.at = r.since(a.At)
		}
		for _, id := range e.ids {
			if id == a.ID {
				return
			}
		}
		e.ids = append(e.ids, a.ID)
	}
}

// Trimmed adds an order to trim.
func (r *Recording) Trimmed(t Trim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.feed(t.Feed)
	s.trims = append(s.trims, t)
}

// Broken adds a fault.
func (r *Recording) Broken(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, f)
}

// Found adds a finding that was made elsewhere, such as an answer to a publish
// that no server may give.
func (r *Recording) Found(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, f)
}

// Elsewhere notes that what another recording has was published to another store:
// to a copy of this one, or to what this one is a copy of. What follows the one
// must never see it, but for what they have in common.
func (r *Recording) Elsewhere(other *Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	for name, theirs := range other.feeds {
		ours := r.feeds[name]
		if ours == nil {
			continue // nobody follows it here
		}
		for sum := range theirs.sums {
			if ours.sums[sum] == nil {
				ours.elsewhere[sum] = true
			}
		}
		for sum := range theirs.ephemeral {
			ours.elsewhere[sum] = true
		}
	}
}

// Holds says which bounds a feed has in the end. What it holds follows by
// [Recording.Held].
func (r *Recording) Holds(name string, first, last feed.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed(name).held = &holding{first: first, last: last}
}

// Held notes that a feed holds an event, after Holds, in the store's order.
func (r *Recording) Held(name string, id feed.ID, sum Sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.feed(name).held
	if h.wrong == 0 && id != h.first+feed.ID(len(h.sums)) {
		h.wrong = id
	}
	h.sums = append(h.sums, sum)
}

// since returns a time as the recording's logs have it.
func (r *Recording) since(t time.Time) int64 { return t.Sub(r.began).Microseconds() }

// First returns the first id that the store holds of a feed; 0 if the test did not look.
func (r *Recording) First(name string) feed.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.feed(name).held; h != nil {
		return h.first
	}
	return 0
}

// All returns what the store holds of a feed, by id.
func (r *Recording) All(name string) map[feed.ID]Sum {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[feed.ID]Sum)
	if h := r.feed(name).held; h != nil {
		for i, sum := range h.sums {
			all[h.first+feed.ID(i)] = sum
		}
	}
	return all
}

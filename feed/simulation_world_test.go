package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

var quiet = slog.New(slog.DiscardHandler)

// plan describes the world of a seed, and what may happen in it.
type plan struct {
	nodes, feeds, readers, writers, steps int
	large                                 int // bytes of an event; 0 for a few
	groups                                int // percent of readers that follow all feeds as one
	rollbacks                             bool
	trims                                 bool
	honest                                bool // the bus does not lie
	faults                                int  // percent of calls that fail
	slow                                  bool // calls are held up for long
	digest                                bool // keep the state after every step
	keys                                  bool // writers repeat themselves, and make conditions
	closes                                bool
	locks                                 bool // foreign transactions hold feeds, and append to them
	signals                               bool // the bus carries signals, and nodes ephemeral events
	retention                             bool
	retain                                feed.Rule
	blind                                 bool // hubs don't compare their feeds with the store

	// Wrappers that break one part of the world.
	store  func(*world, feed.RetentionStore) feed.RetentionStore
	bus    func(feed.Bus) feed.Bus
	next   func(nextFunc) nextFunc
	answer func(feed.Result, error) (feed.Result, error)
	trim   func(w *world, n *node, name string, before feed.ID) error
}

// retainEvery is the time between two rounds of a retention.
const retainEvery = 3 * time.Second

func newPlan(rng *rand.Rand) plan {
	p := plan{
		nodes:     2 + rng.IntN(2),
		feeds:     1 + rng.IntN(3),
		readers:   2 + rng.IntN(4),
		writers:   1 + rng.IntN(3),
		steps:     40 + rng.IntN(40)*rng.IntN(6),
		rollbacks: rng.IntN(5) == 0,
		trims:     rng.IntN(2) == 0,
		honest:    rng.IntN(3) == 0,
		faults:    rng.IntN(3) * 6,
		slow:      rng.IntN(4) == 0,
		keys:      rng.IntN(2) == 0,
		closes:    rng.IntN(3) == 0,
		locks:     rng.IntN(3) == 0,
		signals:   rng.IntN(3) == 0,
		retention: rng.IntN(5) == 0,
		trim: func(_ *world, n *node, name string, before feed.ID) error {
			return n.hub.Trim(context.WithValue(context.Background(), byHand{}, true), name, before)
		},
	}
	switch rng.IntN(3) {
	case 0:
		p.feeds, p.large = 1, 4096+rng.IntN(8192)
	case 1:
		p.feeds, p.groups = 2+rng.IntN(2), 60
	}
	p.retain = feed.Rule{Feeds: "f*", Events: uint64(rng.IntN(20)), Age: time.Duration(rng.IntN(3)*20) * time.Second}
	return p
}

// world is everything that there is in a simulation: nodes over one store with
// a bus between them, and their clients. One goroutine, the scheduler, decides
// what happens next, and only when everything else waits.
type world struct {
	plan    plan
	rng     *rand.Rand // for the scheduler alone
	gate    gate
	locks   locks
	store   *feedtest.Store
	checker *feedtest.Checker
	began   time.Time

	feeds   []string
	nodes   []*node // by slot; nil where none runs
	readers []*reader
	writers []*writer
	runs    int
	drafts  int
	ending  sync.WaitGroup
	alive   atomic.Pointer[[]*node] // those that run

	storeState, busState state
	through              atomic.Pointer[carrier] // delivers at once, when all is well
	copies               []feedtest.Copy         // of the store, which may be put in its place
	replaced             atomic.Int64            // how often that was done

	streamMu sync.Mutex
	stream   map[string][]feed.Event // what the bus keeps of each feed

	batchesMu sync.Mutex
	batches   map[string][]feed.ID // the last id of each batch that a feed is made of

	refusedMu sync.Mutex
	refused   map[string]error // data that must not have been stored
	underWay  map[string]bool  // data of which a commit may be under way

	spoken spoken

	trace   []line
	digests []string
}

// state is the state of the store or the bus.
type state int

const (
	up state = iota
	down
	frozen // it takes calls and does not answer
)

func (s state) String() string { return [...]string{"up", "down", "frozen"}[s] }

// newWorld returns the world of a seed. alter, if not nil, changes its plan.
func newWorld(seed uint64, alter func(*plan)) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{
		plan:     newPlan(rng),
		rng:      rng,
		locks:    locks{held: make(map[string]*lock)},
		store:    feedtest.NewStore(),
		checker:  feedtest.NewChecker(),
		began:    time.Now(),
		stream:   make(map[string][]feed.Event),
		batches:  make(map[string][]feed.ID),
		refused:  make(map[string]error),
		underWay: make(map[string]bool),
		spoken:   spoken{drafts: make(map[string]feed.Draft)},
	}
	if alter != nil {
		alter(&w.plan)
	}
	w.store.OnCommit(w.committed)
	w.store.OnClose(w.checker.Closed)
	for i := range w.plan.feeds {
		w.feeds = append(w.feeds, fmt.Sprint("f", i))
	}
	for i := range w.plan.readers {
		w.addReader(fmt.Sprint("r", i))
	}
	for i := range w.plan.writers {
		w.writers = append(w.writers, &writer{name: fmt.Sprint("w", i)})
	}
	w.nodes = make([]*node, w.plan.nodes)
	w.alive.Store(new([]*node))
	for slot := range w.nodes {
		w.startNode(slot)
	}
	return w
}

// committed records events that the store has stored: one batch of one feed.
func (w *world) committed(events []feed.Event) {
	w.checker.Stored(events...)
	last := events[len(events)-1]
	w.batchesMu.Lock()
	defer w.batchesMu.Unlock()
	w.batches[last.Feed] = append(w.batches[last.Feed], last.ID)
}

// line is a line of the trace, which story puts into words.
type line struct {
	at     time.Duration
	format string
	args   []any
}

func (l line) String() string {
	return fmt.Sprintf("%9.3fs ", l.at.Seconds()) + fmt.Sprintf(l.format, l.args...)
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, line{time.Since(w.began), format, args})
}

// story returns the trace in words.
func (w *world) story() string {
	var s strings.Builder
	for _, l := range w.trace {
		fmt.Fprintln(&s, l)
	}
	return s.String()
}

// digest notes the state after the step.
func (w *world) digest() {
	if !w.plan.digest {
		return
	}
	var s strings.Builder
	fmt.Fprintln(&s, w.trace[len(w.trace)-1], "leaves", w.gate.calls(nil))
	for _, name := range w.feeds {
		fmt.Fprintln(&s, name, w.bounds(name), w.locks.holder(name) != nil)
	}
	for _, r := range w.readers {
		for _, p := range r.parts {
			fmt.Fprint(&s, r.name, " at ", p.follower.Cursor(), " of ", p.feed, " ")
		}
		if r.conn != nil {
			fmt.Fprint(&s, fmt.Sprintln(r.conn.state()))
		}
		fmt.Fprintln(&s)
	}
	for _, wr := range w.writers {
		fmt.Fprintln(&s, wr.name, wr.isBusy())
	}
	w.digests = append(w.digests, s.String())
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) anyFeed() string { return w.feeds[w.rng.IntN(len(w.feeds))] }

func (w *world) bounds(name string) feed.Bounds {
	all, _ := w.store.Bounds(context.Background(), []string{name})
	return all[0]
}

func (w *world) anyNode() *node {
	alive := w.running()
	if len(alive) == 0 {
		return nil
	}
	return alive[w.rng.IntN(len(alive))]
}

// settle waits until nothing moves without the scheduler.
func (w *world) settle() {
	synctest.Wait()
	w.lookRound()
}

// lookRound removes the connections that have ended.
func (w *world) lookRound() {
	for _, r := range w.readers {
		if r.conn == nil {
			continue
		}
		// What was on its way when a trim was done has arrived by now.
		for _, p := range r.parts {
			if before := r.conn.node.trimmed(p.feed); before > 0 {
				p.follower.Gone(before)
			}
		}
		if _, ended, _, err := r.conn.state(); ended {
			if !expected(err) {
				w.gate.fault(fmt.Errorf("%s: the subscription failed: %w", r.name, err))
			}
			r.conn = nil
		}
	}
}

// moment waits until nothing moves without the scheduler, and a little longer:
// timers that began at different moments don't end together, in an order of
// their own.
func (w *world) moment() { time.Sleep(time.Duration(1 + w.rng.IntN(1000))) }

// run lets the world go through its steps, heals it, and returns what went
// wrong.
func (w *world) run() error {
	for range w.plan.steps {
		w.gate.next()
		w.act()
		w.moment()
		w.lookRound()
		w.digest()
		if w.fault() != nil {
			break
		}
	}
	w.recover()
	w.shutdown()
	return w.fault()
}

// fault returns what went wrong, or nil.
func (w *world) fault() error {
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	if len(w.gate.faults) == 0 {
		return w.checker.Err()
	}
	faults := w.gate.faults[:min(len(w.gate.faults), 5)] // the first ones tell the story
	return errors.Join(append(slices.Clip(faults), w.checker.Err())...)
}

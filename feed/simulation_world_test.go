package feed_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// plan is what a seed's world is made of, and what may happen in it.
type plan struct {
	nodes, feeds, readers, writers, steps int
	large                                 int // bytes of ballast in an event
	rollbacks                             bool
	trims                                 bool
	honest                                bool // the bus does not lie
	faults                                int  // percent of calls that fail
	slow                                  bool // calls are held up for long
	digest                                bool // keep what every step has led to
	keys                                  bool // writers repeat themselves, and make conditions
	closes                                bool

	store func(feed.Keeper) feed.Keeper // puts something broken in the way
	bus   func(feed.Bus) feed.Bus
	trim  func(w *world, n *node, name string, before uint64) error
}

func newPlan(rng *rand.Rand) plan {
	p := plan{
		nodes:     2 + rng.IntN(2),
		feeds:     1 + rng.IntN(3),
		readers:   2 + rng.IntN(4),
		writers:   1 + rng.IntN(3),
		steps:     40 + rng.IntN(200),
		rollbacks: rng.IntN(5) == 0,
		trims:     rng.IntN(2) == 0,
		honest:    rng.IntN(3) == 0,
		faults:    rng.IntN(3) * 6,
		slow:      rng.IntN(4) == 0,
		keys:      rng.IntN(2) == 0,
		closes:    rng.IntN(3) == 0,
		trim: func(_ *world, n *node, name string, before uint64) error {
			return n.hub.Trim(context.Background(), name, before)
		},
	}
	if rng.IntN(3) == 0 {
		p.feeds, p.large = 1, 4096+rng.IntN(8192)
	}
	return p
}

// world is everything that there is in a simulation: nodes over one store with
// a bus between them, and their clients. One goroutine, the scheduler, decides
// what happens next, and only when everything else waits.
type world struct {
	plan    plan
	rng     *rand.Rand // for the scheduler alone
	gate    gate
	store   *feedtest.Store
	checker *feedtest.Checker
	began   time.Time

	feeds   []string
	nodes   []*node // nil where none runs
	readers []*reader
	writers []*writer
	runs    int
	ending  sync.WaitGroup

	storeDown bool
	busDown   bool
	through   atomic.Pointer[carrier] // hands over at once what is told, when all is well

	streamMu sync.Mutex
	stream   map[string][]feed.Event // what the bus keeps of each feed

	batchesMu sync.Mutex
	batches   map[string][]uint64 // the last id of each batch that a feed is made of

	refusedMu sync.Mutex
	refused   map[string]error // data that must not have been stored

	trace   []string
	digests []string
}

// newWorld returns the world of a seed. alter, if not nil, changes its plan.
func newWorld(seed uint64, alter func(*plan)) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{
		plan:    newPlan(rng),
		rng:     rng,
		store:   feedtest.NewStore(),
		checker: feedtest.NewChecker(),
		began:   time.Now(),
		stream:  make(map[string][]feed.Event),
		batches: make(map[string][]uint64),
		refused: make(map[string]error),
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
		r := &reader{name: fmt.Sprint("r", i), feed: w.anyFeed()}
		r.follower = w.checker.Follow(r.name, r.feed)
		w.readers = append(w.readers, r)
	}
	for i := range w.plan.writers {
		w.writers = append(w.writers, &writer{name: fmt.Sprint("w", i)})
	}
	w.nodes = make([]*node, w.plan.nodes)
	for slot := range w.nodes {
		w.startNode(slot)
	}
	return w
}

// committed notes what the store has stored: events of one batch, and feed.
func (w *world) committed(events []feed.Event) {
	w.checker.Stored(events...)
	last := events[len(events)-1]
	w.batchesMu.Lock()
	defer w.batchesMu.Unlock()
	w.batches[last.Feed] = append(w.batches[last.Feed], last.ID)
}

func (w *world) log(format string, args ...any) {
	line := fmt.Sprintf("%9.3fs ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.trace = append(w.trace, line)
}

// digest notes what the step has led to.
func (w *world) digest() {
	if !w.plan.digest {
		return
	}
	var s strings.Builder
	fmt.Fprintln(&s, w.trace[len(w.trace)-1], "leaves", w.gate.keys())
	for _, name := range w.feeds {
		fmt.Fprintln(&s, name, w.bounds(name))
	}
	for _, r := range w.readers {
		fmt.Fprint(&s, r.name, " at ", r.follower.Cursor())
		if r.conn != nil {
			fmt.Fprint(&s, " ", fmt.Sprintln(r.conn.state()))
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

// alive returns the nodes that run.
func (w *world) alive() []*node {
	var alive []*node
	for _, n := range w.nodes {
		if n != nil {
			alive = append(alive, n)
		}
	}
	return alive
}

func (w *world) anyNode() *node {
	alive := w.alive()
	if len(alive) == 0 {
		return nil
	}
	return alive[w.rng.IntN(len(alive))]
}

// settle waits until nothing moves without the scheduler.
func (w *world) settle() {
	synctest.Wait()
	for _, r := range w.readers {
		if r.conn == nil {
			continue
		}
		// What was on its way when a trim was done has arrived by now.
		r.follower.Gone(r.conn.node.trimmed(r.feed))
		if _, ended, _, err := r.conn.state(); ended {
			if !expected(err) {
				w.gate.fault(fmt.Errorf("%s: the subscription failed: %w", r.name, err))
			}
			r.conn = nil
		}
	}
}

// run lets the world go through its steps, heals it, and returns what went
// wrong.
func (w *world) run() error {
	for range w.plan.steps {
		w.gate.step.Add(1)
		// An instant of its own for every step, so that timers that began in
		// different steps don't end together, in an order of their own.
		time.Sleep(time.Duration(1 + w.rng.IntN(1000)))
		w.act()
		w.settle()
		w.digest()
		if w.fault() != nil {
			break
		}
	}
	w.recover()
	w.shutdown()
	return w.fault()
}

func (w *world) fault() error {
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	if len(w.gate.faults) > 0 {
		return w.gate.faults[0]
	}
	return w.checker.Err()
}

package feed

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HubOptions tunes a hub. The zero value is good.
type HubOptions struct {
	// Verify is the time between two comparisons of the open feeds with the
	// store; 0 means 1 second. It bounds how long an event can stay unnoticed
	// that the bus has lost.
	Verify time.Duration
	// Memory bounds the bytes that the node holds on behalf of clients, roughly:
	// see [Hub.Memory]. 0 means DefaultMemory. A single feed's log holds no more
	// than 2 MiB.
	Memory int
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

const (
	// linger is how long a log outlives its last subscriber, and its last
	// event: those that were cut come back to it within that time.
	linger = 10 * time.Second

	logMemory = 2 << 20 // the most a single log holds, where there is much memory
)

// pageLimit is what one read from the store returns at most. A page stays small, as
// many are held at one time.
var pageLimit = Limit{Events: 512, Bytes: 64 << 10}

// pageCost is what a page takes in memory, with what it is encoded as, roughly, and
// pagesMost how many there are at one time, at most.
const (
	pageCost  = 512 << 10
	pagesMost = 32
)

// Hub serves subscriptions on one node. It keeps a log of the newest events of
// each feed that has subscribers here, and brings it up to date from three
// sides: the publisher of this node, the bus, and the store.
//
// A Hub is safe for concurrent use. Close it before its store and its bus.
type Hub struct {
	store  Store
	bus    Bus
	verify time.Duration
	memory *Memory
	cache  *cache // of the logs
	logger *slog.Logger

	ctx    context.Context // of everything the hub does by itself
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	logs   map[string]*log

	dispatcher *Dispatcher // of subscribers that wait on goroutines of their own

	pages  callGroup[pageKey, sharedPage]
	bounds callGroup[string, Bounds]
	clocks callGroup[struct{}, storeClock]

	signals *signals
	dirty   dirtySet

	storing, comparing, checking Outage // of the store
	faults                       faults // of the store, in single feeds
	storeLog                     *slog.Logger

	failures       atomic.Uint64 // how often the store failed to answer
	replacedNotice replacedNotice
	counts         counts
}

// pageKey names the page of a feed that begins after a cursor.
type pageKey struct {
	feed       string
	after      Cursor
	generation int // of the log: what was read before them is of another store
}

// sharedPage is a sharedPage read from the store, ready to be shared.
type sharedPage struct {
	Bounds
	segment *segment
}

// NewHub returns a hub that reads from store and listens to bus, and starts it.
func NewHub(store Store, bus Bus, o HubOptions) *Hub {
	memory := newMemory(cmp.Or(o.Memory, DefaultMemory))
	h := &Hub{
		store:  store,
		bus:    bus,
		verify: cmp.Or(o.Verify, time.Second),
		memory: memory,
		cache:  newCache(memory),
		logger: cmp.Or(o.Logger, slog.Default()),
		logs:   make(map[string]*log),
		dirty:  newDirtySet(),
		clocks: callGroup[struct{}, storeClock]{keep: time.Second, most: 1},
	}
	slots := min(max(int(memory.Limit(HoldReplays)/pageCost), 4), pagesMost)
	h.pages = callGroup[pageKey, sharedPage]{
		keep:  time.Second,
		most:  slots / 2,
		slots: make(chan struct{}, slots),
		count: func(n int) { memory.hold(HoldReplays, n*pageCost) },
	}
	h.storeLog = located(h.logger, "store", store)
	h.dispatcher = h.NewDispatcher()
	h.signals = newSignals(bus, rand.Text(), memory)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.work.Go(h.dispatchLoop)
	h.work.Go(h.verifyLoop)
	h.work.Go(h.tailLoop)
	if h.signals.bus != nil {
		h.work.Go(func() { h.signals.sendLoop(h.ctx) })
		h.work.Go(h.listen)
	}
	return h
}

// Memory returns the budget of the node. The hub, its publishers, and whatever else
// holds bytes on behalf of clients share it.
func (h *Hub) Memory() *Memory { return h.memory }

// Close ends all subscriptions and returns when everything that the hub
// started has ended.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.cancel()
	for _, l := range h.logs {
		l.wake() // readers on lanes see nothing else of it
	}
	h.mu.Unlock()
	h.work.Wait()
}

// goWork runs fn on a goroutine that Close waits for. Once the hub is closed,
// nobody waits for fn: it finds h.ctx ended, and must leave the store alone.
func (h *Hub) goWork(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		go fn()
		return
	}
	h.work.Go(fn)
}

// until returns a context that ends with ctx, and when the hub is closed.
func (h *Hub) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// enter has Close wait for a call of the store that a caller of the hub makes,
// which is to be made with ctx, until leave is called.
func (h *Hub) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, ErrStopped
	}
	h.work.Add(1)
	ctx, cancel := h.until(ctx)
	return ctx, func() {
		cancel()
		h.work.Done()
	}, nil
}

// Subscribe returns a subscription to the feed that starts at from. It reads
// the store only if this node's memory cannot tell where that is.
//
// Its errors wrap ErrInvalid for a bad name, ErrStopped for a closed hub, the
// context's, or the store's: then the same call may succeed later.
func (h *Hub) Subscribe(ctx context.Context, feed string, from From) (*Subscription, error) {
	g, err := h.SubscribeAll(ctx, []SubscribeRequest{{feed, from}})
	if err != nil {
		return nil, err
	}
	return &g.subs[0], nil
}

// subscribe makes s, which is of a group and has nothing yet, a subscription.
func (h *Hub) subscribe(ctx context.Context, s *Subscription, start SubscribeRequest) error {
	feed := start.Feed
	if err := CheckName(feed); err != nil {
		return err
	}
	l, err := h.acquire(feed)
	if err != nil {
		return err
	}
	defer h.work.Done()
	if err := h.locate(ctx, s, l, start.From); err != nil {
		h.release(l)
		if h.ctx.Err() != nil && ctx.Err() == nil {
			err = ErrStopped
		}
		return fmt.Errorf("subscribe to %s: %w", feed, err)
	}
	return nil
}

// locate finds where the subscription begins, and attaches it to its log.
func (h *Hub) locate(ctx context.Context, s *Subscription, l *log, from From) error {
	rollbacks := uint16(l.rollbackCount.Load())
	b, err := h.boundsFor(ctx, l, from)
	if err != nil {
		return err
	}
	if from.kind != fromCursor {
		rollbacks = uint16(l.rollbackCount.Load()) // it has seen nothing that could be undone
	}
	found, err := h.seek(ctx, l.feed, from)
	if err != nil {
		return err
	}
	// The bounds may be shared, and older than what was found or the log has.
	b.Last = max(b.Last, uint64(found))
	if p, ok := l.confirmed(); ok {
		b.First = min(max(b.First, p.first), b.Last+1)
	}
	s.log, s.bounds, s.rollbacksSeen = l, b, rollbacks
	s.cursor, s.gap = locate(from, b, found)
	s.setPending() // it has not been polled yet
	l.attach(s)
	h.counts.subscribers.Add(1)
	return nil
}

// seek returns the cursor that a time stands for, and 0 if from is none.
func (h *Hub) seek(ctx context.Context, feed string, from From) (Cursor, error) {
	if from.kind != fromTime && from.kind != fromMoment {
		return 0, nil
	}
	ctx, cancel := h.until(ctx)
	defer cancel()
	seek := h.store.Seek
	if from.kind == fromMoment {
		seek = h.seekMoment
	}
	c, err := seek(ctx, feed, from.time)
	h.noteFeed(ctx, err, seekingInFeed, feed)
	return c, err
}

// boundsFor returns bounds that are recent enough to decide where from is.
func (h *Hub) boundsFor(ctx context.Context, l *log, from From) (Bounds, error) {
	resumes := from.kind == fromCursor
	if b, complete, loaded := l.bounds(); loaded {
		if from.kind == fromNow && complete || resumes && uint64(from.cursor) <= b.Last {
			return b, nil
		}
	}
	b, err := h.bounds.do(l.feed, h.goWork, func() (Bounds, error) { return h.readBounds(h.ctx, l) }).wait(ctx)
	if err != nil {
		return Bounds{}, err
	}
	if resumes && uint64(from.cursor) > b.Last {
		// The shared answer may be older than the event that this cursor
		// stands for. Only one that was asked for now can say "ahead".
		ctx, cancel := h.until(ctx)
		defer cancel()
		return h.readBounds(ctx, l)
	}
	// Who asked may have done so for a log that has since been dropped.
	h.apply(l, l.setBounds(b, confirmed{}))
	return b, nil
}

// readBounds asks the store for the bounds of the log's feed, and tells the log.
func (h *Hub) readBounds(ctx context.Context, l *log) (Bounds, error) {
	if h.ctx.Err() != nil {
		return Bounds{}, ErrStopped
	}
	all, err := h.compareLogs(ctx, []*log{l})
	h.noteFeed(ctx, err, locatingFeed, l.feed)
	if err != nil {
		return Bounds{}, err
	}
	return all[0], nil
}

// acquire returns the log of the feed, made if need be, for one more user, and
// has Close wait until the caller is done.
func (h *Hub) acquire(feed string) (*log, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("subscribe to %s: %w", feed, ErrStopped)
	}
	l := h.logs[feed]
	if l == nil {
		l = h.newLog(strings.Clone(feed)) // which may be a part of a request
		h.logs[l.feed] = l
	}
	l.users++
	h.work.Add(1)
	return l, nil
}

func (h *Hub) newLog(feed string) *log {
	h.memory.hold(HoldLogs, logCost+len(feed))
	return &log{feed: feed, cache: h.cache}
}

func (h *Hub) release(l *log) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.users--; l.users == 0 {
		l.idle = time.Now()
	}
}

// lookup returns the log of the feed, or nil.
func (h *Hub) lookup(feed string) *log {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs[feed]
}

// apply sees to what a log's outcome asks for.
func (h *Hub) apply(l *log, o logChange) {
	if o.grew {
		l.wake()
	}
	if o.hole {
		h.goWork(func() { h.fill(l) })
	}
	h.cache.shrink()
}

// poke leaves one token in c, which has room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

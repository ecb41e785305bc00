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
	// store; 0 means 1 second. It bounds how long an event that the bus has lost
	// can stay unnoticed.
	Verify time.Duration
	// Memory bounds the bytes that the node holds on behalf of clients, roughly:
	// see [Hub.Memory]. 0 means DefaultMemory. A single feed's log holds no more
	// than 2 MiB.
	Memory int
	// Tracer, if not nil, is told of the stages of traced events, also by the publisher.
	Tracer Tracer
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

const (
	// linger is how long a log outlives its last subscriber, and events outlive the
	// newest: subscribers that lost their connections come back within that time.
	linger = 10 * time.Second

	logMemory = 2 << 20 // the most a single log holds, where there is much memory
)

// Hub serves subscriptions on one node. It keeps a log of the newest events of
// each feed that has subscribers here, and brings it up to date from three
// sides: the publisher of this node, the bus, and the store.
//
// A Hub is safe for concurrent use. Close it before its store and its bus.
type Hub struct {
	store  timedStore
	bus    Bus
	verify time.Duration
	memory *Memory
	cache  *cache // of the logs
	logger *slog.Logger

	ctx    context.Context // ends when the hub is closed
	cancel context.CancelFunc
	work   sync.WaitGroup // the hub's goroutines, and calls of the store through it

	mu     sync.Mutex
	closed bool
	logs   map[string]*log

	dispatcher  *Dispatcher // for subscribers that wait on goroutines of their own
	dispatchers []*Dispatcher
	dirty       dirtySet
	fills       fillQueue

	pages  callGroup[pageKey, sharedPage]
	bounds callGroup[string, Bounds]
	clocks callGroup[struct{}, storeClock]

	signals *signals
	watched chan struct{} // gets a token when NodesFeed may have its first subscriber

	storing, comparing, checking Outage // of the store
	faults                       faults // of the store, in single feeds
	storeLog                     *slog.Logger

	failures       atomic.Uint64 // how often the store failed to answer
	replacedNotice replacedNotice
	counts         counts
	compared       atomic.Int64 // see Stats, in Unix milliseconds
}

// NewHub returns a hub that reads from store and listens to bus, and starts it.
func NewHub(store Store, bus Bus, o HubOptions) *Hub {
	memory := newMemory(cmp.Or(o.Memory, DefaultMemory))
	h := &Hub{
		store:   timedStore{store, new([storeCalls]Durations), new(Durations)},
		bus:     bus,
		verify:  cmp.Or(o.Verify, time.Second),
		memory:  memory,
		cache:   newCache(memory, o.Tracer),
		logger:  cmp.Or(o.Logger, slog.Default()),
		logs:    make(map[string]*log),
		dirty:   newDirtySet(),
		watched: make(chan struct{}, 1),
		clocks:  callGroup[struct{}, storeClock]{keep: time.Second, most: 1},
	}
	slots := min(max(int(memory.Limit(HoldReplays)/pageCost), 4), pagesMost)
	h.pages = callGroup[pageKey, sharedPage]{
		keep:  time.Second,
		most:  slots / 2,
		slots: slots,
		count: func(n int) { memory.hold(HoldReplays, n*pageCost) },
	}
	h.storeLog = located(h.logger, "store", store)
	h.dispatcher = h.NewDispatcher()
	h.signals = newSignals(bus, rand.Text(), memory)
	h.signals.watching = func() bool { return h.subscribersHere(NodesFeed) > 0 }
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.compared.Store(time.Now().UnixMilli()) // nothing is open
	h.work.Go(h.dispatchLoop)
	h.work.Go(h.verifyLoop)
	h.work.Go(h.tailLoop)
	if watched, ok := store.(WatchedStore); ok {
		h.work.Go(func() { h.watchLoop(watched) })
	}
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
		l.wake() // subscribers of dispatchers do not watch h.ctx
	}
	h.mu.Unlock()
	h.work.Wait()
}

// goWork runs fn on a goroutine that Close waits for. Once the hub is closed,
// nothing waits for fn: it finds h.ctx ended, and must leave the store alone.
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

// enter begins a call of the store on behalf of a caller of the hub. The call uses the
// context that enter returns. Close waits until leave is called.
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

// acquire returns the log of the feed, made if need be, for one more user. Close waits
// until the caller calls h.work.Done.
func (h *Hub) acquire(feed string) (*log, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("subscribe to %s: %w", feed, ErrStopped)
	}
	l := h.logs[feed]
	if l == nil {
		l = h.newLog(strings.Clone(feed)) // feed may be a part of a request
		h.logs[l.feed] = l
	}
	l.users++
	h.work.Add(1)
	return l, nil
}

func (h *Hub) newLog(feed string) *log {
	h.memory.hold(HoldLogs, logCost+len(feed))
	l := &log{feed: feed, cache: h.cache, reserved: Reserved(feed)}
	if l.reserved {
		l.loaded, l.first = true, 1 // nothing is ever stored
	}
	return l
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

// apply does what a change of a log asks for.
func (h *Hub) apply(l *log, change logChange) {
	if change.grew {
		l.wake()
	}
	if change.hole {
		h.fill(&fillTask{log: l})
	}
	h.cache.shrink()
}

// pause waits for d, or until the hub is closed.
func (h *Hub) pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(h.ctx, d)
	defer cancel()
	<-ctx.Done()
}

// poke leaves one token in c, which has room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

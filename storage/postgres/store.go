// Package postgres is the store for several nodes: a Postgres database, version
// 13 or later.
//
// The tables are in a schema of their own, rejoin, and can share a database with an
// application. A transaction locks a feed's row from the first number that it gives
// until its commit, so numbers become visible in order and without holes, whichever
// node gives them.
//
// An append takes two round trips: one locks and loads the rows, and one writes and
// commits. The first also returns the transaction's id, so that the store can find
// out the outcome if the answer to COMMIT is lost.
//
// The lock on a feed's row covers the feed's keys, which are loaded after it in the
// same round trip. The keys of batches for several feeds have advisory locks, which
// are taken before the rows.
//
// A trim moves a number in the feed's row. Readers begin there, and the rows of the
// events below it are deleted later, in small steps.
//
// A feed that another transaction holds delays only its own events: a NoWait batch
// is refused with [feed.ErrBusy], and the other batches are committed.
//
// Applications append in transactions of their own by functions in SQL, which decide
// as [feed.PlanAppend] does: see migrations/00003_transactions.sql. What they queue
// instead, one node at a time numbers: see drain.go.
//
// Every node listens to the database on a connection of its own, and reads what it is
// notified of in one query: see [Store.Watch]. With [Store.OpenBus], the commits of the
// nodes notify as well, and the database is the bus.
package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rejoin/rejoin/feed"
)

// The most connections for Trim and Sweep, for reading and telling news, and for what
// is queued.
const keepConns, newsConns, queueConns = 2, 2, 1

// Options tunes a store. The zero value is the default.
type Options struct {
	// The most connections for appends, for Read and Seek, and for Bounds; 0 means 4, 8
	// and 2. The pools are separate so that none can starve the others. Appends
	// always have two connections, one of which never waits for a lock; Trim and Sweep
	// have two more.
	PublishConns, ReplayConns, VerifyConns int

	// LockTimeout is how long an append waits for a feed that another
	// transaction holds; 0 means 5 s.
	LockTimeout time.Duration
	// StatementTimeout bounds each statement and, with a few seconds added for the
	// network, the wait for its answer; 0 means 30 s.
	StatementTimeout time.Duration
	// ConnectTimeout bounds making a connection, for each of the hosts that
	// the URL names; 0 means 5 s.
	ConnectTimeout time.Duration
	// Alone notes that this node counts on being the only one on the store. It logs a
	// warning if it is not.
	Alone bool
	// Logger gets messages for operators; nil means slog.Default.
	Logger *slog.Logger

	// OutcomeTimeout bounds the attempt to find out whether a transaction is committed
	// whose answer was lost; 0 means 10 s.
	OutcomeTimeout time.Duration

	// EventBytes and KeyWindow are the limits for events that applications append in
	// transactions of their own, as in [feed.PublisherOptions], with the same defaults.
	// All nodes share them: those of the last Open hold.
	EventBytes int
	KeyWindow  time.Duration
}

func (o Options) withDefaults() Options {
	o.PublishConns = max(2, cmp.Or(o.PublishConns, 4))
	o.ReplayConns = cmp.Or(o.ReplayConns, 8)
	o.VerifyConns = cmp.Or(o.VerifyConns, 2)
	o.LockTimeout = cmp.Or(o.LockTimeout, 5*time.Second)
	o.StatementTimeout = cmp.Or(o.StatementTimeout, 30*time.Second)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.OutcomeTimeout = cmp.Or(o.OutcomeTimeout, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.EventBytes = cmp.Or(o.EventBytes, feed.DefaultEventBytes)
	o.KeyWindow = cmp.Or(o.KeyWindow, feed.DefaultKeyWindow)
	return o
}

// Store is a [feed.Store] in a Postgres database.
type Store struct {
	id     atomic.Pointer[string]
	epoch  atomic.Uint64 // how often the id has changed
	o      Options
	opened Opened
	config *pgx.ConnConfig // for connections outside the pools

	publish, replay, verify, keep, news, queue *pgxpool.Pool

	listener *listener
	notifier notifier
	draining feed.Outage
	refused  atomic.Uint64 // queued events that could not be numbered

	// The appends of this process take turns at each feed, so that the database finds a
	// feed busy only if another process holds it. Appends that do not wait in the
	// database take turns in fast; those that do, in slow.
	fast, slow *feedLocks
	slowSlots  chan struct{} // one entry for each append that waits for a lock

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
	done   chan struct{} // closed by Close
}

var (
	_ feed.RetentionStore = (*Store)(nil)
	_ feed.Comparer       = (*Store)(nil)
	_ feed.WatchedStore   = (*Store)(nil)
)

// Open opens the store in the database at url, a URL or a string of keywords and
// values as Postgres's own programs take it, and migrates an older schema. ctx
// bounds all of it.
//
// An error that wraps [feed.ErrUnavailable] may go away by itself: the server cannot be
// reached, is starting, or is a standby. Any other is permanent: a wrong password, a
// database that does not exist, a missing privilege, a schema newer than this
// program, a server that cannot hold a store.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	s, err := open(ctx, url, o.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, url string, o Options) (_ *Store, err error) {
	base, err := parse(url, o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		o: o, config: base.ConnConfig,
		fast: newFeedLocks(), slow: newFeedLocks(), slowSlots: make(chan struct{}, o.PublishConns-1),
		done: make(chan struct{}),
	}
	s.listener = newListener(s, rand.Text(), o.Logger.With("store", s.String()))
	s.notifier.node = s.listener.node
	id, opened, err := prepare(ctx, base.ConnConfig, o)
	if err != nil {
		return nil, explain(err)
	}
	s.id.Store(&id)
	s.opened = opened
	for _, p := range []struct {
		pool  **pgxpool.Pool
		conns int
		name  string
	}{{&s.publish, o.PublishConns, "publish"}, {&s.replay, o.ReplayConns, "replay"}, {&s.verify, o.VerifyConns, "verify"}, {&s.keep, keepConns, "keep"}, {&s.news, newsConns, "news"}, {&s.queue, queueConns, "queue"}} {
		if *p.pool, err = pgxpool.NewWithConfig(ctx, s.poolConfig(base, p.conns, p.name)); err != nil {
			s.disconnect()
			return nil, err
		}
	}
	return s, nil
}

// Opened returns what Open found and did.
func (s *Store) Opened() Opened { return s.opened }

// Close waits for the calls in progress and closes the connections. The calls
// after it, and those that wait for a connection, get an error that wraps
// [feed.ErrStopped].
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.disconnect()
	s.calls.Wait()
	return nil
}

func (s *Store) disconnect() {
	for _, pool := range s.pools() {
		if pool != nil {
			pool.Close()
		}
	}
}

// begin registers a call; Close waits for its end.
func (s *Store) begin() (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, feed.ErrStopped
	}
	s.calls.Add(1)
	return s.calls.Done, nil
}

func (s *Store) stopped() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

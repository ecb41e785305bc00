// Package postgres is the store for several nodes: a Postgres database, version
// 13 or later.
//
// Everything is in a schema of its own, rejoin, so that the tables can stand
// beside an application's. A feed's row is locked from the first number given
// to the commit: numbers become visible in order and without holes, whichever
// node gives them.
//
// An append is two round trips: one that locks the rows, and one that writes and
// commits. Between them the store knows the transaction's id, so that an answer
// to the commit that is lost can be found out afterwards.
//
// The row of a feed locks its keys as well, so that they are looked up behind the
// lock, in the same round trip. Batches for several feeds have advisory locks for
// theirs, taken before the rows.
//
// To trim is to move a number in the feed's row. Readers begin there, and the rows
// of events below it are deleted later, in small steps.
//
// A feed that another transaction holds delays its own events only: a batch that
// says NoWait comes back with [feed.ErrBusy], and the others are committed.
package postgres

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rejoin/rejoin/feed"
)

// keepConns is the most connections for Trim and Sweep.
const keepConns = 2

// Options tunes a store. The zero value is good.
type Options struct {
	// The most connections for appends, for Read and Seek, and for Bounds; 0
	// means 4, 8 and 2. They are apart so that none can starve the others.
	// There are always two for appends, one of which never waits for a lock,
	// and two more for Trim and Sweep.
	PublishConns, ReplayConns, VerifyConns int

	// LockTimeout is how long an append waits for a feed that another
	// transaction holds; 0 means 5 s.
	LockTimeout time.Duration
	// StatementTimeout is the longest that a statement may take, and with a
	// few seconds more for the network the longest wait for its answer; 0
	// means 30 s.
	StatementTimeout time.Duration
	// ConnectTimeout bounds making a connection, for each of the hosts that
	// the URL names; 0 means 5 s.
	ConnectTimeout time.Duration
	// OutcomeTimeout is how long to try to find out whether a commit
	// happened whose answer was lost; 0 means 10 s.
	OutcomeTimeout time.Duration
}

func (o Options) withDefaults() Options {
	o.PublishConns = max(2, cmp.Or(o.PublishConns, 4))
	o.ReplayConns = cmp.Or(o.ReplayConns, 8)
	o.VerifyConns = cmp.Or(o.VerifyConns, 2)
	o.LockTimeout = cmp.Or(o.LockTimeout, 5*time.Second)
	o.StatementTimeout = cmp.Or(o.StatementTimeout, 30*time.Second)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 5*time.Second)
	o.OutcomeTimeout = cmp.Or(o.OutcomeTimeout, 10*time.Second)
	return o
}

// Store is a [feed.Store] in a Postgres database.
type Store struct {
	id     atomic.Pointer[string]
	epoch  atomic.Uint64 // how often the id has changed
	o      Options
	config *pgx.ConnConfig // for connections outside the pools

	publish, replay, verify, keep *pgxpool.Pool

	// The appends of this process take turns at a feed, so that a feed is busy
	// only when somebody else holds it: first those that do not wait for the
	// database, then those that do.
	turns, waits *gates
	waiting      chan struct{} // one entry for each append that waits for a lock

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
	done   chan struct{} // closed by Close
}

var (
	_ feed.RetentionStore = (*Store)(nil)
	_ feed.Comparer       = (*Store)(nil)
)

// Open opens the store in the database at url, a URL or a string of keywords and
// values as Postgres's own programs take it, and migrates an older schema. ctx
// bounds all of it.
//
// An error that wraps [feed.ErrUnavailable] may go away by itself: the server
// cannot be reached, is starting, or is a standby. Any other is for good: a
// wrong password, no such database, a missing privilege, a schema newer than
// this program, a server that cannot hold a store.
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
		turns: newGates(), waits: newGates(), waiting: make(chan struct{}, o.PublishConns-1),
		done: make(chan struct{}),
	}
	id, err := prepare(ctx, base.ConnConfig)
	if err != nil {
		return nil, explain(err)
	}
	s.id.Store(&id)
	for _, p := range []struct {
		pool  **pgxpool.Pool
		conns int
		name  string
	}{{&s.publish, o.PublishConns, "publish"}, {&s.replay, o.ReplayConns, "replay"}, {&s.verify, o.VerifyConns, "verify"}, {&s.keep, keepConns, "keep"}} {
		if *p.pool, err = pgxpool.NewWithConfig(ctx, s.poolConfig(base, p.conns, p.name)); err != nil {
			s.disconnect()
			return nil, err
		}
	}
	return s, nil
}

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

// begin notes a call for Close, which waits for its end.
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

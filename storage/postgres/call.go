package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rejoin/rejoin/feed"
)

const (
	// What a network may add to the time that a statement takes.
	transit = 5 * time.Second
	// How long a query goes on after its caller has given up. A query that is
	// cut short costs its connection, and almost all are done by then.
	grace = time.Second
)

// acquire takes a connection from the pool. It waits no longer than is
// reasonable, whatever ctx says.
func (s *Store) acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.StatementTimeout+transit, errors.New("no connection became free"))
	defer cancel()
	c, err := pool.Acquire(ctx)
	if err == nil {
		return c, nil
	}
	if s.stopped() {
		return nil, feed.ErrStopped
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, unavailable(fmt.Errorf("get a connection: %w", err))
}

// once runs f on a connection of the pool. If the connection turns out to be
// dead, which is how a restart of the server shows, f runs again on a new one:
// f must be safe to repeat.
func (s *Store) once(ctx context.Context, pool *pgxpool.Pool, f func(*pgxpool.Conn) error) error {
	for retry := true; ; retry = false {
		c, err := s.acquire(ctx, pool)
		if err != nil {
			return err
		}
		err = f(c)
		dead := c.Conn().IsClosed()
		c.Release()
		if dead {
			pool.Reset() // the others are likely to be dead too
		}
		if err == nil || !dead || !retry || timedOut(err) || ctx.Err() != nil {
			return err
		}
	}
}

// timedOut says whether an error is of a context that ended, rather than of the
// connection.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// read runs a query and scans its rows.
func (s *Store) read(ctx context.Context, pool *pgxpool.Pool, scan func(pgx.Rows) error, sql string, args ...any) error {
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	return s.once(ctx, pool, func(c *pgxpool.Conn) error {
		ctx, cancel := lenient(ctx, s.o.StatementTimeout+transit)
		defer cancel()
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return unavailable(err)
		}
		err = scan(rows)
		rows.Close()
		if err = errors.Join(err, rows.Err()); err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// lenient returns a context that ends a while after ctx, or after limit.
func lenient(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(later, func() { timer.Stop() })
	})
	return later, func() { stop(); cancel() }
}

// inTransaction says whether the session has a transaction that is to be ended.
func inTransaction(c *pgx.Conn) bool { return !c.IsClosed() && c.PgConn().TxStatus() != 'I' }

// rollback ends a transaction that is still open. A connection that this fails
// on is not used again, and the server rolls back by itself.
func rollback(c *pgx.Conn) {
	if !inTransaction(c) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_, _ = c.Exec(ctx, abortTransaction, pgx.QueryExecModeSimpleProtocol)
}

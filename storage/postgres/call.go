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
	// The time that a network may add to that of a statement.
	transit = 5 * time.Second
	// How long a query continues after its context has ended. Almost all end within that
	// time, and to cancel one costs its connection.
	grace = time.Second
)

// acquire takes a connection from the pool. Its wait is bounded even if ctx is not.
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

// once runs f on a connection of the pool. If the connection turns out to be dead, as
// after a restart of the server, it runs f again on a new one: f must be safe to
// repeat.
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
			pool.Reset() // the other connections are probably dead too
		}
		if err == nil || !dead || !retry || timedOut(err) || ctx.Err() != nil {
			return err
		}
	}
}

// timedOut reports whether an error comes from a context that ended, not from the
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

// lenient returns a context that ends the time grace after ctx, or after limit.
func lenient(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(later, func() { timer.Stop() })
	})
	return later, func() { stop(); cancel() }
}

// inTransaction reports whether the session has an open transaction.
func inTransaction(c *pgx.Conn) bool { return !c.IsClosed() && c.PgConn().TxStatus() != 'I' }

// rollback rolls back an open transaction. If that fails, the connection is not used
// again, and the server rolls back by itself.
func rollback(c *pgx.Conn) {
	if !inTransaction(c) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_, _ = c.Exec(ctx, abortTransaction, pgx.QueryExecModeSimpleProtocol)
}

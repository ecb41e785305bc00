package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

const (
	// aloneLock is the advisory lock of who is alone.
	aloneLock = migrationLock + 1
	// How often the session that holds it is looked at.
	aloneInterval = time.Second
)

// RunExclusive implements [feed.RetentionStore]. The lock is that of a session of its own: when
// the session ends, so does fn's context, for another node may be running its own
// from then on.
func (s *Store) RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error) {
	end, err := s.begin()
	if err != nil {
		return false, fmt.Errorf("run alone: %w", err)
	}
	defer end()
	c, err := s.lockAlone(ctx)
	if err != nil {
		return false, fmt.Errorf("run alone: %w", unavailable(err))
	}
	if c == nil {
		return false, nil
	}
	lost, err := s.guard(ctx, c, fn)
	if lost != nil && err != nil {
		err = fmt.Errorf("run alone: %w: %w", lost, err)
	}
	return true, err
}

// lockAlone returns a session that holds the lock, nil if another does.
func (s *Store) lockAlone(ctx context.Context) (*pgx.Conn, error) {
	config := s.config.Copy()
	config.RuntimeParams["application_name"] += " alone"
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var locked bool
	err = c.QueryRow(ctx, query("try_lock"), int64(aloneLock)).Scan(&locked)
	if err != nil || !locked {
		disconnect(c)
		return nil, err
	}
	return c, nil
}

// guard runs fn while the session is there. lost is why it is there no more.
func (s *Store) guard(ctx context.Context, c *pgx.Conn, fn func(context.Context) error) (lost, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan error, 1)
	go func() {
		err := s.watch(ctx, c)
		cancel(err)
		watched <- err
	}()
	defer func() {
		cancel(nil)
		lost = <-watched
		unlock(c)
		disconnect(c)
	}()
	return nil, fn(ctx)
}

// watch returns when ctx ends, or when the session or the store does before.
func (s *Store) watch(ctx context.Context, c *pgx.Conn) error {
	ticker := time.NewTicker(aloneInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			return feed.ErrStopped
		case <-ticker.C:
			if err := ping(c); err != nil {
				return unavailable(err)
			}
		}
	}
}

func ping(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	return c.Ping(ctx)
}

// unlock gives the lock back. It would go with the session, but a moment after
// that is closed.
func unlock(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_, _ = c.Exec(ctx, query("unlock"), int64(aloneLock))
}

func disconnect(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_ = c.Close(ctx)
}

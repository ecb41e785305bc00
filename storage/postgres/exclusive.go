package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

const (
	// exclusiveLock is the advisory lock held while RunExclusive runs.
	exclusiveLock = migrationLock + 1
	// How often the session that holds it is pinged.
	pingInterval = time.Second
)

// RunExclusive implements [feed.RetentionStore]. A session of its own holds the lock.
// When the session ends, so does fn's context, because another node may run its own
// function from then on.
func (s *Store) RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error) {
	end, err := s.begin()
	if err != nil {
		return false, fmt.Errorf("run exclusively: %w", err)
	}
	defer end()
	c, err := s.lockExclusive(ctx)
	if err != nil {
		return false, fmt.Errorf("run exclusively: %w", unavailable(err))
	}
	if c == nil {
		return false, nil
	}
	lost, err := s.runWatched(ctx, c, fn)
	if lost != nil && err != nil {
		err = fmt.Errorf("run exclusively: %w: %w", lost, err)
	}
	return true, err
}

// lockExclusive returns a session that holds the lock, nil if another session does.
func (s *Store) lockExclusive(ctx context.Context) (*pgx.Conn, error) {
	config := s.config.Copy()
	config.RuntimeParams["application_name"] += " alone"
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var locked bool
	err = c.QueryRow(ctx, query("try_lock"), int64(exclusiveLock)).Scan(&locked)
	if err != nil || !locked {
		disconnect(c)
		return nil, err
	}
	return c, nil
}

// runWatched runs fn as long as the session lasts. lost is the error that ended it.
func (s *Store) runWatched(ctx context.Context, c *pgx.Conn, fn func(context.Context) error) (lost, err error) {
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

// watch returns when ctx, the session or the store ends.
func (s *Store) watch(ctx context.Context, c *pgx.Conn) error {
	ticker := time.NewTicker(pingInterval)
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

// unlock releases the lock. The server would release it too, but only a moment after
// the session is closed.
func unlock(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_, _ = c.Exec(ctx, query("unlock"), int64(exclusiveLock))
}

func disconnect(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_ = c.Close(ctx)
}

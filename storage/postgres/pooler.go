package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
)

// poolerTries is how often sharesSessions looks whether two connections share one.
const poolerTries = 5

// refusePooler refuses a pooler in transaction mode: a session of its lasts one
// transaction. It costs a connection, and another one only where there is a pooler.
func refusePooler(ctx context.Context, config *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		if state(err) == protocolViolation && strings.Contains(err.Error(), "startup parameter") {
			return refuse("a pooler such as PgBouncer stands between this node and Postgres, and does not pass on the settings of a session; connect to Postgres itself: %w", err)
		}
		return err
	}
	defer disconnect(c)
	shared, err := sharesSessions(ctx, c, config)
	if err != nil {
		return err
	}
	if shared {
		return refuse("PgBouncer, or another pooler, stands in transaction mode between this node and Postgres: prepared statements, session locks and LISTEN cannot work through it; connect to Postgres itself")
	}
	return nil
}

// sharesSessions reports whether the connection c has no session of the server for
// itself.
func sharesSessions(ctx context.Context, c *pgx.Conn, config *pgx.ConnConfig) (bool, error) {
	first, err := backend(ctx, c)
	if err != nil || first == c.PgConn().PID() {
		return false, err // a pooler tells process ids of its own
	}
	other, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer disconnect(other)
	for range poolerTries {
		for _, c := range []*pgx.Conn{other, c} {
			pid, err := backend(ctx, c)
			if err != nil {
				return false, err
			}
			if (pid == first) == (c == other) {
				return true, nil
			}
		}
	}
	return false, nil
}

// backend returns the process id of the server's end of a connection.
func backend(ctx context.Context, c *pgx.Conn) (pid uint32, err error) {
	err = c.QueryRow(ctx, query("backend"), pgx.QueryExecModeSimpleProtocol).Scan(&pid)
	return pid, err
}

// checkListener refuses to listen through a pooler in transaction mode, or to another
// database than the store's. It accepts a server that cannot be reached: the listener
// waits for it.
func (s *Store) checkListener(ctx context.Context, config *pgx.ConnConfig) error {
	err := refusePooler(ctx, config)
	if err == nil {
		err = s.checkDatabase(ctx, config)
	}
	if err = explain(err); errors.Is(err, feed.ErrUnavailable) {
		return nil
	}
	return err
}

func (s *Store) checkDatabase(ctx context.Context, config *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer disconnect(c)
	id, err := readID(c.QueryRow(ctx, query("get_store_id"), pgx.QueryExecModeSimpleProtocol))
	if err == nil && id != s.ID() {
		err = refuse("%s is not the database of the store, %s", location(config), s)
	}
	return err
}

package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	oldestServer = 130000

	versionTable = "rejoin.versions"
	// migrationLock is the advisory lock held while migrating: "rejoin" in ASCII.
	migrationLock = 0x72656a6f696e
	// queueLock is the advisory lock held by transactions that enqueue, while they commit.
	queueLock = migrationLock + 2
	// The pause between two tries to take it. Waiting in the database instead would hold
	// a snapshot, for which some migrations would wait.
	lockInterval = 50 * time.Millisecond
)

// Opened is what [Open] found and did.
type Opened struct {
	Version  string   // of the server, such as Postgres 16.3
	Migrated []string // the names of the migrations that ran
	Risk     string   // how the server can lose events; empty if it cannot
}

// prepare brings the database up to date and returns the store's id.
func prepare(ctx context.Context, base *pgx.ConnConfig, o Options) (id string, opened Opened, err error) {
	config := migrateConfig(base)
	if err := refusePooler(ctx, config); err != nil {
		return "", opened, err
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	if opened, err = checkServer(ctx, db); err != nil {
		return "", opened, err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return "", opened, err
	}
	if opened.Migrated, err = migrate(ctx, db, files); err != nil {
		return "", opened, err
	}
	if _, err := db.ExecContext(ctx, query("set_store_id"), rand.Text()); err != nil {
		return "", opened, fmt.Errorf("write store id: %w", err)
	}
	if _, err := db.ExecContext(ctx, query("set_limits"), o.EventBytes, o.KeyWindow.Milliseconds()); err != nil {
		return "", opened, fmt.Errorf("write limits: %w", err)
	}
	id, err = readID(db.QueryRowContext(ctx, query("get_store_id")))
	return id, opened, err
}

// migrateConfig returns the configuration of connections for migrations, which may take
// long: only a context bounds them.
func migrateConfig(base *pgx.ConnConfig) *pgx.ConnConfig {
	config := base.Copy()
	config.RuntimeParams["application_name"] += " migrate"
	delete(config.RuntimeParams, "statement_timeout")
	delete(config.RuntimeParams, "idle_in_transaction_session_timeout")
	return config
}

func checkServer(ctx context.Context, db *sql.DB) (opened Opened, err error) {
	var version int
	var encoding string
	var durable bool
	if err := db.QueryRowContext(ctx, query("get_server")).Scan(&version, &encoding, &durable); err != nil {
		return opened, err
	}
	if version < oldestServer {
		return opened, refuse("the server is Postgres %d; version %d or later is required", version/10000, oldestServer/10000)
	}
	if encoding != "UTF8" {
		return opened, refuse("the database has the encoding %s; UTF8 is required", encoding)
	}
	opened.Version = fmt.Sprintf("Postgres %d.%d", version/10000, version%10000)
	if !durable {
		opened.Risk = "a crash of the database's machine loses events: Postgres has fsync off"
	}
	return opened, nil
}

// migrate brings the schema up to date, and returns the names of the migrations that it
// ran. If there is nothing to do, it needs neither the lock nor the privilege to change
// the schema.
func migrate(ctx context.Context, db *sql.DB, files fs.FS) (ran []string, err error) {
	store, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return nil, err
	}
	locker := &locker{}
	provider, err := goose.NewProvider(goose.DialectCustom, db, files, goose.WithStore(store),
		goose.WithSessionLocker(locker), goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	sources := provider.ListSources()
	locker.newest = sources[len(sources)-1].Version
	current, err := schemaVersion(ctx, db, locker.newest)
	if err != nil || current == locker.newest {
		return nil, err
	}
	for _, source := range sources {
		if source.Version <= current {
			continue
		}
		// Not Up, which creates goose's table before it holds the lock.
		switch _, err := provider.ApplyVersion(ctx, source.Version, true); {
		case err == nil:
			ran = append(ran, migrationName(source.Path))
		case !errors.Is(err, goose.ErrAlreadyApplied):
			return ran, fmt.Errorf("migrate: %w", err)
		}
	}
	return ran, nil
}

// queryer is an *sql.DB or an *sql.Conn.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// schemaVersion returns the version of the schema, 0 if there is none. It refuses a
// schema newer than newest.
func schemaVersion(ctx context.Context, db queryer, newest int64) (version int64, err error) {
	var exists bool
	if err := db.QueryRowContext(ctx, query("has_versions")).Scan(&exists); err != nil || !exists {
		return 0, err
	}
	if err := db.QueryRowContext(ctx, query("get_version")).Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	if version > newest {
		return 0, refuse("the schema has version %d, and this program knows versions up to %d: use a newer program", version, newest)
	}
	return version, nil
}

// locker lets one node migrate at a time. It is goose's lock.SessionLocker.
type locker struct{ newest int64 }

// SessionLock takes the lock, and creates the schema in which goose keeps its own table.
// Another node, perhaps of a newer version, may have migrated first.
func (l *locker) SessionLock(ctx context.Context, c *sql.Conn) error {
	for locked := false; !locked; {
		if err := c.QueryRowContext(ctx, query("try_lock"), int64(migrationLock)).Scan(&locked); err != nil {
			return fmt.Errorf("lock schema: %w", err)
		}
		if locked {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock schema: %w", ctx.Err())
		case <-time.After(lockInterval):
		}
	}
	err := l.prepare(ctx, c)
	if err != nil {
		return errors.Join(err, l.SessionUnlock(context.WithoutCancel(ctx), c))
	}
	return nil
}

func (l *locker) prepare(ctx context.Context, c *sql.Conn) error {
	if _, err := schemaVersion(ctx, c, l.newest); err != nil {
		return err
	}
	var exists bool
	if err := c.QueryRowContext(ctx, query("has_schema")).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := c.ExecContext(ctx, query("create_schema")); err != nil {
		return fmt.Errorf("create schema: %w", err)
	}
	return nil
}

// SessionUnlock releases the lock.
func (l *locker) SessionUnlock(ctx context.Context, c *sql.Conn) error {
	if _, err := c.ExecContext(ctx, query("unlock"), int64(migrationLock)); err != nil {
		return fmt.Errorf("unlock schema: %w", err)
	}
	return nil
}

package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Schema compares the schema of a database with the migrations of this program.
type Schema struct {
	Version int64    // 0 if there is no schema
	Newest  int64    // the version after all migrations
	Pending []string // the names of the migrations that [Open] would run
}

// Inspection is what [Inspect] finds in a database that can be reached.
type Inspection struct {
	Schema Schema // zero if Lacks has a privilege that is needed to read it
	Lacks  []Lack
	// Clock is the server's clock, and At this machine's at the same moment.
	Clock, At time.Time
}

// Lack is a privilege that the role does not have, and the statement that gives it.
type Lack struct{ Privilege, Grant string }

// Inspect looks at the database at url as [Open] would, and changes nothing. It also
// sends itself a notification. Its errors are those of Open.
func Inspect(ctx context.Context, url string, o Options) (Inspection, error) {
	var found Inspection
	err := withDatabase(ctx, url, o, func(db *sql.DB, config *pgx.ConnConfig) (err error) {
		if found.Clock, found.At, err = readClock(ctx, db); err != nil {
			return err
		}
		if found.Lacks, err = readLacks(ctx, db, false); err != nil {
			return err
		}
		if len(found.Lacks) == 0 {
			if found.Schema, err = readSchema(ctx, db); err != nil {
				return err
			}
		}
		if len(found.Schema.Pending) > 0 {
			if found.Lacks, err = readLacks(ctx, db, true); err != nil {
				return err
			}
		}
		return tryListen(ctx, config)
	})
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect store: %w", err)
	}
	return found, nil
}

// InspectBus reports whether a node whose store is at the first URL can listen at the
// other one, as [Store.OpenBus] would.
func InspectBus(ctx context.Context, store, bus string, o Options) error {
	err := withDatabase(ctx, store, o, func(db *sql.DB, _ *pgx.ConnConfig) error {
		want, err := readDatabase(ctx, db)
		if err != nil {
			return err
		}
		return withDatabase(ctx, bus, o, func(db *sql.DB, config *pgx.ConnConfig) error {
			got, err := readDatabase(ctx, db)
			if err == nil && got != want {
				err = refuse("%s is not the database of the store, %s", Location(bus), Location(store))
			}
			if err != nil {
				return err
			}
			return tryListen(ctx, config)
		})
	})
	if err != nil {
		return fmt.Errorf("inspect bus: %w", err)
	}
	return nil
}

// Status returns the state of the schema of the database at url, and changes nothing.
func Status(ctx context.Context, url string, o Options) (s Schema, err error) {
	err = withDatabase(ctx, url, o, func(db *sql.DB, _ *pgx.ConnConfig) error {
		s, err = readSchema(ctx, db)
		return err
	})
	if err != nil {
		return Schema{}, fmt.Errorf("read schema: %w", err)
	}
	return s, nil
}

// Migrate runs the pending migrations of the database at url, and returns the names of
// those that it ran. Nodes that migrate at the same time wait for each other.
func Migrate(ctx context.Context, url string, o Options) (ran []string, err error) {
	err = withDatabase(ctx, url, o, func(db *sql.DB, _ *pgx.ConnConfig) error {
		files, err := fs.Sub(migrations, "migrations")
		if err != nil {
			return err
		}
		ran, err = migrate(ctx, db, files)
		return err
	})
	return ran, err
}

// withDatabase calls f with connections for a migration to the database at url, which
// can hold a store and has no pooler in front.
func withDatabase(ctx context.Context, url string, o Options, f func(*sql.DB, *pgx.ConnConfig) error) error {
	base, err := parse(url, o.withDefaults())
	if err != nil {
		return err
	}
	config := migrateConfig(base.ConnConfig)
	if err := refusePooler(ctx, config); err != nil {
		return explain(err)
	}
	db := stdlib.OpenDB(*config)
	if _, err = checkServer(ctx, db); err == nil {
		err = f(db, config)
	}
	return errors.Join(explain(err), db.Close())
}

func readClock(ctx context.Context, db *sql.DB) (clock, at time.Time, err error) {
	asked := time.Now()
	if err := db.QueryRowContext(ctx, query("get_clock")).Scan(&clock); err != nil {
		return clock, at, fmt.Errorf("read clock: %w", err)
	}
	return clock, asked.Add(time.Since(asked) / 2), nil
}

func readDatabase(ctx context.Context, db *sql.DB) (id string, err error) {
	if err := db.QueryRowContext(ctx, query("get_database")).Scan(&id); err != nil {
		return "", fmt.Errorf("read database: %w", err)
	}
	return id, nil
}

func readLacks(ctx context.Context, db *sql.DB, pending bool) (lacks []Lack, err error) {
	rows, err := db.QueryContext(ctx, query("missing_privileges"), pending)
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var l Lack
		if err := rows.Scan(&l.Privilege, &l.Grant); err != nil {
			return nil, fmt.Errorf("read privileges: %w", err)
		}
		lacks = append(lacks, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	return lacks, nil
}

func readSchema(ctx context.Context, db *sql.DB) (s Schema, err error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return Schema{}, err
	}
	versions := make([]int64, len(names))
	for i, name := range names {
		if versions[i], err = goose.NumericComponent(name); err != nil {
			return Schema{}, fmt.Errorf("read migrations: %w", err)
		}
	}
	s.Newest = versions[len(versions)-1]
	if s.Version, err = schemaVersion(ctx, db, s.Newest); err != nil {
		return Schema{}, err
	}
	for i, name := range names {
		if versions[i] > s.Version {
			s.Pending = append(s.Pending, migrationName(name))
		}
	}
	return s, nil
}

func migrationName(file string) string { return strings.TrimSuffix(path.Base(file), ".sql") }

// tryListen sends a notification on a channel of its own, and waits for it.
func tryListen(ctx context.Context, config *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer disconnect(c)
	ctx, cancel := context.WithTimeout(ctx, transit)
	defer cancel()
	name := pgx.Identifier{"rejoin_check_" + strings.ToLower(rand.Text())}.Sanitize()
	if _, err = c.Exec(ctx, "LISTEN "+name); err == nil {
		_, err = c.Exec(ctx, "NOTIFY "+name)
	}
	if err == nil {
		_, err = c.WaitForNotification(ctx)
	}
	if err != nil {
		return fmt.Errorf("listen: a notification does not arrive: %w", err)
	}
	return nil
}

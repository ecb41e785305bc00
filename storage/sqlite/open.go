package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	mark   = 1382707049 // the application_id of our files: see set_mark
	newest = 2          // the version of the last migration
)

// resolve returns the absolute path without symbolic links, so that one file has one
// name, and checks for errors that SQLite would report unclearly or not at all. It
// does not open the file: closing it would drop the locks that another Store of this
// process has on it.
func resolve(path string) (string, error) {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return "", errors.New("not the path of a file")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("find its directory: %w", err)
	}
	if info, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("find its directory: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	path = filepath.Join(dir, filepath.Base(abs))
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return path, checkOrphan(path)
	case err != nil:
		return "", err
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("follow the symbolic link: %w", err)
	}
	switch info, err := os.Stat(path); {
	case err != nil:
		return "", err
	case info.IsDir():
		return "", errors.New("it is a directory, not a file")
	case !info.Mode().IsRegular():
		return "", errors.New("it is not a regular file")
	case info.Size() == 0:
		return path, checkOrphan(path)
	}
	return path, nil
}

// checkOrphan refuses to create a file beside a log whose file is missing: SQLite would
// delete the log, and the newest events with it.
func checkOrphan(path string) error {
	info, err := os.Stat(path + "-wal")
	if err != nil || info.Size() == 0 {
		return nil
	}
	return fmt.Errorf("the file is missing or empty, but its log exists: put the file back beside %s-wal, or move the log away to start a new store", path)
}

// dsn names the file at path with parameters of SQLite and, with an underscore
// in front, of the driver.
func dsn(path string, params ...string) string {
	// As a URL, because the driver cuts the name at a question mark and SQLite decodes
	// percent signs.
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(params, "&")}
	return u.String()
}

func writerDSN(path string, params ...string) string {
	return dsn(path, append(params, "mode=rwc", "_mutex=no", "_journal_mode=WAL", "_synchronous=FULL", "_busy_timeout=5000")...)
}

func readerDSN(path string, params ...string) string {
	return dsn(path, append(params, "mode=ro", "_mutex=no", "_query_only=1", "_busy_timeout=5000")...)
}

// Opened is what [Open] found and did.
type Opened struct {
	Version  string   // of SQLite, such as SQLite 3.46.1
	Migrated []string // the names of the migrations that ran
}

// prepare creates or migrates the store in the file at path, and returns the store's id.
func prepare(ctx context.Context, path string) (id string, opened Opened, err error) {
	if _, err := inspect(ctx, path); err != nil {
		return "", opened, err
	}
	db, err := sql.Open("sqlite3", writerDSN(path))
	if err != nil {
		return "", opened, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	version, _, _ := sqlite3.Version()
	opened.Version = "SQLite " + version
	if opened.Migrated, err = migrate(ctx, db); err != nil {
		return "", opened, err
	}
	if _, err := db.ExecContext(ctx, query("set_store_id"), rand.Text()); err != nil {
		return "", opened, fmt.Errorf("write store id: %w", explain(err))
	}
	if err := db.QueryRowContext(ctx, query("get_store_id")).Scan(&id); err != nil {
		return "", opened, fmt.Errorf("read store id: %w", explain(err))
	}
	var root any
	if err := db.QueryRowContext(ctx, query("touch_tables")).Scan(&root, &root, &root, &root); err != nil {
		return "", opened, fmt.Errorf("read tables: %w", explain(err))
	}
	return id, opened, nil
}

// inspect looks at a file before anything changes it, as setting WAL mode would. It
// refuses a file of another application, one with a newer schema, and one whose header
// is damaged. It returns the version of the schema, 0 for a new file.
func inspect(ctx context.Context, path string, params ...string) (version int64, err error) {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return 0, nil
	}
	db, err := sql.Open("sqlite3", dsn(path, append(params, "mode=ro", "_busy_timeout=5000")...))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var id int64
	var empty bool
	if err := db.QueryRowContext(ctx, query("get_mark")).Scan(&id); err != nil {
		return 0, fmt.Errorf("read header: %w", explain(err))
	}
	if err := db.QueryRowContext(ctx, query("is_empty")).Scan(&empty); err != nil {
		return 0, fmt.Errorf("read schema: %w", explain(err))
	}
	switch {
	case id != mark && (id != 0 || !empty):
		return 0, errors.New("the file is an SQLite database of another application")
	case empty:
		return 0, nil
	}
	if err := db.QueryRowContext(ctx, query("schema_version")).Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", explain(err))
	}
	if version > newest {
		return 0, fmt.Errorf("the schema has version %d, and this program knows versions up to %d: use a newer program", version, newest)
	}
	return version, nil
}

// migrate brings the schema up to date, and returns the names of the migrations that it
// ran. It sets the mark first, so that the next start recognizes the file even if this
// one is cut short.
func migrate(ctx context.Context, db *sql.DB) (ran []string, err error) {
	var id int64
	if err := db.QueryRowContext(ctx, query("get_mark")).Scan(&id); err != nil {
		return nil, fmt.Errorf("read header: %w", explain(err))
	}
	if id != mark { // do not write to a file that is up to date: the disk may be full
		if _, err := db.ExecContext(ctx, query("set_mark")); err != nil {
			return nil, fmt.Errorf("write header: %w", explain(err))
		}
	}
	provider, err := newProvider(db)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		ran = append(ran, migrationName(r.Source.Path))
	}
	if err != nil {
		return ran, fmt.Errorf("migrate: %w", explain(err))
	}
	return ran, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
}

package sqlite

import (
	"context"
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"
)

// wantError fails the test unless err has all the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

// openChild opens and closes the store at path.
func openChild(path string, _ io.Writer) error {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		return err
	}
	return s.Close()
}

// execute runs statements on the SQLite file at path.
func execute(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", dsn(path, "mode=rwc"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// storeFile makes a store with some events and closes it.
func storeFile(t *testing.T, path string) {
	t.Helper()
	s := openStore(t, path)
	fill(t, s, "chat", 2000)
	closeStore(t, s)
}

func writeAt(t *testing.T, path string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		path  string // below the test's directory, unless set by make
		make  func(t *testing.T, path string)
		words []string
	}{
		{name: "a missing directory", path: "missing/store.db", words: []string{"directory", "missing", "no such file"}},
		{name: "a file for a directory", path: "file/store.db", words: []string{"not a directory"},
			make: func(t *testing.T, path string) { writeAt(t, filepath.Dir(path), 0, nil) }},
		{name: "a directory", words: []string{"is a directory"},
			make: func(t *testing.T, path string) {
				if err := os.Mkdir(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a link to nothing", words: []string{"symbolic link", "no such file"},
			make: func(t *testing.T, path string) {
				if err := os.Symlink("nothing", path); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "NUL in the path", path: "a\x00b", words: []string{"invalid"}},
		{name: "garbage", words: []string{"not an SQLite database"},
			make: func(t *testing.T, path string) { writeAt(t, path, 0, []byte(strings.Repeat("garbage ", 1000))) }},
		{name: "a damaged header", words: []string{"damaged"},
			make: func(t *testing.T, path string) {
				storeFile(t, path)
				writeAt(t, path, 0, make([]byte, 16))
			}},
		{name: "a damaged schema", words: []string{"damaged"},
			make: func(t *testing.T, path string) {
				storeFile(t, path)
				writeAt(t, path, 100, make([]byte, 2000))
			}},
		{name: "zeros for the tables", words: []string{"damaged"},
			make: func(t *testing.T, path string) {
				storeFile(t, path)
				writeAt(t, path, 4096, make([]byte, 20*4096))
			}},
		{name: "a truncated file", words: []string{"damaged"},
			make: func(t *testing.T, path string) {
				storeFile(t, path)
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(path, info.Size()/2); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a log without its file", words: []string{"missing", "store.db-wal", "put the file back"},
			make: func(t *testing.T, path string) { writeAt(t, path+"-wal", 0, make([]byte, 5000)) }},
		{name: "a log beside an empty file", words: []string{"empty", "store.db-wal", "put the file back"},
			make: func(t *testing.T, path string) {
				writeAt(t, path, 0, nil)
				writeAt(t, path+"-wal", 0, make([]byte, 5000))
			}},
		{name: "another application's database", words: []string{"another application"},
			make: func(t *testing.T, path string) { execute(t, path, "CREATE TABLE feeds (id INTEGER)") }},
		{name: "another application's, by goose", words: []string{"another application"},
			make: func(t *testing.T, path string) {
				execute(t, path, "CREATE TABLE goose_db_version (id INTEGER, version_id INTEGER, is_applied INTEGER)")
			}},
		{name: "another application's, empty", words: []string{"another application"},
			make: func(t *testing.T, path string) { execute(t, path, "PRAGMA application_id = 7") }},
		{name: "a newer schema", words: []string{"schema", "version 9000", "newer"},
			make: func(t *testing.T, path string) {
				storeFile(t, path)
				execute(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, 1)")
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if test.path != "" {
				path = filepath.Join(t.TempDir(), test.path)
			}
			if test.make != nil {
				test.make(t, path)
			}
			before, _ := os.ReadFile(path)
			s, err := Open(t.Context(), path, Options{})
			if err == nil {
				closeStore(t, s)
			}
			wantError(t, err, append(test.words, "open store")...)
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the refused file was changed")
			}
			// Nothing of the attempt stays open.
			if _, again := Open(t.Context(), path, Options{}); again == nil || again.Error() != err.Error() {
				t.Errorf("the second time: got %v, want %v", again, err)
			}
		})
	}
}

func TestOpenRefusesPath(t *testing.T) {
	for _, path := range []string{"", ":memory:"} {
		s, err := Open(t.Context(), path, Options{})
		if err == nil {
			closeStore(t, s)
		}
		wantError(t, err, "path of a file")
	}
}

func TestOpenUnderEndedContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, path, Options{})
	wantError(t, err, "context canceled")
	storeFile(t, path)
}

// Open notices damage where a check costs nothing.
func TestOpenRefusesDamagedTables(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"store", "feeds", "events", "keys", "goose_db_version"} {
		path := filepath.Join(t.TempDir(), "store.db")
		storeFile(t, path)
		db, err := sql.Open("sqlite3", dsn(path, "mode=ro"))
		if err != nil {
			t.Fatal(err)
		}
		var page int64
		if err := db.QueryRowContext(t.Context(), "SELECT rootpage FROM sqlite_schema WHERE name = ?", table).Scan(&page); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		writeAt(t, path, (page-1)*4096, make([]byte, 4096))
		s, err := Open(t.Context(), path, Options{})
		if err == nil {
			closeStore(t, s)
		}
		wantError(t, err, "open store", "damaged")
	}
}

// Characters that mean something in a URI mean nothing in a path.
func TestOpenPaths(t *testing.T) {
	for _, name := range []string{
		"a b.db", "what?.db", "mode=ro?mode=memory", "50%.db", "%41.db", "a#b.db", "a&b=c.db", "a+b.db",
		"ü\U0001F680.db", "file:x.db", "'quoted\".db", `back\slash.db`, "\xff.db", "no suffix",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for range 2 {
				s := openStore(t, filepath.Join(dir, name))
				mustPut(t, s, "chat", "x")
				closeStore(t, s)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) != 2 || entries[0].Name() != name || !strings.HasPrefix(entries[1].Name(), name+".") && entries[1].Name() != name+"-reserve" {
				t.Errorf("the directory has %v, want %q and what keeps it", entries, name)
			}
		})
	}
	t.Run("relative", func(t *testing.T) {
		t.Chdir(t.TempDir())
		closeStore(t, openStore(t, "store.db"))
		if _, err := os.Stat("store.db"); err != nil {
			t.Error(err)
		}
	})
	t.Run("symbolic link", func(t *testing.T) {
		dir, elsewhere := t.TempDir(), t.TempDir()
		storeFile(t, filepath.Join(elsewhere, "store.db"))
		link := filepath.Join(dir, "link.db")
		if err := os.Symlink(filepath.Join(elsewhere, "store.db"), link); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, link)
		defer closeStore(t, s)
		if got := last(t, s, "chat"); got != 2000 {
			t.Errorf("the feed ends at %d, want 2000", got)
		}
	})
}

// A first start that is cut short, at any point, does not prevent the second.
func TestOpenAfterCutShort(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"an empty file":         nil,
		"marked":                {query("set_mark")},
		"no migration":          {query("set_mark"), "CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)"},
		"no version in a table": {"PRAGMA journal_mode = WAL", query("set_mark")},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			writeAt(t, path, 0, nil)
			execute(t, path, statements...)
			storeFile(t, path)
		})
	}
	t.Run("no id", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		storeFile(t, path)
		execute(t, path, "DELETE FROM store")
		s := openStore(t, path)
		defer closeStore(t, s)
		if s.ID() == "" {
			t.Error("the store has no id")
		}
	})
}

func TestNewestIsTheLastMigration(t *testing.T) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	got, err := goose.NumericComponent(files[len(files)-1].Name())
	if err != nil || got != newest {
		t.Errorf("newest is %d; the last migration is %d, %v", newest, got, err)
	}
}

// Each new store has an id of its own.
func TestStoreID(t *testing.T) {
	a, b := newStore(t), newStore(t)
	if a.ID() == b.ID() || len(a.ID()) < 20 {
		t.Errorf("got ids %q and %q", a.ID(), b.ID())
	}
}

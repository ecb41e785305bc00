package postgres

import (
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// A database of the first version, with all kinds of rows, continues to work after
// the migration.
func TestMigratesFirstVersion(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	version(t, url, 1)
	for _, sql := range []string{
		"INSERT INTO rejoin.store (id) VALUES ('as it was')",
		`INSERT INTO rejoin.feeds (name, first, last, closed, updated) VALUES
			('chat', 1, 3, false, 3000), ('trimmed', 3, 4, false, 4000), ('gone', 5, 4, true, 5000), ('never', 1, 0, false, 0)`,
		`INSERT INTO rejoin.events (feed, seq, time, json, type, data)
			SELECT id, n, 1000 * n, false, '', repeat('é', n::int) FROM rejoin.feeds, generate_series(1, 3) n WHERE name = 'chat'`,
		`INSERT INTO rejoin.events (feed, seq, time, json, type, data)
			SELECT id, n, 1000 * n, true, 't', n::text FROM rejoin.feeds, generate_series(2, 4) n WHERE name = 'trimmed'`,
	} {
		execute(t, url, sql)
	}

	s := start(t, url, Options{})
	if !strings.HasPrefix(s.ID(), "as it was-") {
		t.Errorf("the store's id has become %q", s.ID())
	}
	sound(t, url)
	l, err := s.List(t.Context(), "", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	want := []feed.Info{
		{Feed: "chat", Bounds: feed.Bounds{First: 1, Last: 3}, Updated: time.UnixMilli(3000).UTC(), Bytes: 12},
		{Feed: "gone", Bounds: feed.Bounds{First: 5, Last: 4, Closed: true}, Updated: time.UnixMilli(5000).UTC()},
		{Feed: "trimmed", Bounds: feed.Bounds{First: 3, Last: 4}, Updated: time.UnixMilli(4000).UTC(), Bytes: 3},
	}
	if len(l.Feeds) != len(want) {
		t.Fatalf("got the list %v, want %v", l.Feeds, want)
	}
	for i := range want {
		if l.Feeds[i] != want[i] {
			t.Errorf("got %v, want %v", l.Feeds[i], want[i])
		}
	}
	if got := stored(t, s, "chat"); len(got) != 3 || got[2].Data != "ééé" {
		t.Errorf("got %v", got)
	}
	publish(t, s, "chat", "4")
	publish(t, s, "never", "1")
	if e := publish(t, s, "trimmed", "5"); e[0].ID != 5 {
		t.Errorf("the numbering goes on with %d, want 5", e[0].ID)
	}
	if more, err := s.Sweep(t.Context(), 10, time.Hour); more || err != nil {
		t.Errorf("sweep: got %t, %v", more, err)
	}
	if got := value(t, url, "SELECT count(*)::text FROM rejoin.events"); got != "8" {
		t.Errorf("%s events are left, want 8", got)
	}
	sound(t, url)
}

// version makes the schema as an earlier version of this program did.
func version(t *testing.T, url string, newest int64) {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:newest] {
		text, err := migrations.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[path.Base(name)] = &fstest.MapFile{Data: text}
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	if _, err := migrate(t.Context(), db, files); err != nil {
		t.Fatal(err)
	}
}

// sound checks the invariants of the tables, which hold whenever nothing is being
// stored.
func sound(t testing.TB, url string) {
	t.Helper()
	c := connect(t, url)
	for _, test := range []struct{ what, sql string }{
		{"bounds that cannot be", `SELECT name FROM rejoin.feeds WHERE NOT (1 <= swept AND swept <= first AND first <= last + 1)`},
		{"rows that cannot be", `SELECT f.name FROM rejoin.feeds f JOIN rejoin.events e ON e.feed = f.id WHERE e.seq < f.swept OR e.seq > f.last`},
		{"holes", `SELECT f.name FROM rejoin.feeds f LEFT JOIN rejoin.events e ON e.feed = f.id AND e.seq >= f.first
			GROUP BY f.id HAVING count(e.seq) <> f.last - f.first + 1`},
		{"a wrong size", `SELECT f.name FROM rejoin.feeds f LEFT JOIN rejoin.events e ON e.feed = f.id
			GROUP BY f.id HAVING coalesce(sum(octet_length(e.data)), 0) <> f.bytes`},
		{"times that fall", `SELECT DISTINCT f.name FROM rejoin.feeds f JOIN rejoin.events e ON e.feed = f.id
			JOIN rejoin.events n ON n.feed = e.feed AND n.seq = e.seq + 1 WHERE n.time < e.time OR n.time > f.updated`},
		{"keys of ids that were not given", `SELECT k.key FROM rejoin.keys k LEFT JOIN rejoin.feeds f ON f.id = k.feed
			WHERE k.feed <> 0 AND (f.id IS NULL OR cardinality(firsts) > 1 OR coalesce(firsts[1], 0) > f.last)
				OR cardinality(firsts) <> cardinality(times)`},
	} {
		rows, err := c.Query(t.Context(), test.sql)
		if err != nil {
			t.Fatal(err)
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if len(names) > 0 {
			t.Errorf("%s: %q", test.what, names)
		}
	}
}

package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

// oldFile makes a store of an older schema, and runs the statements on it.
func oldFile(t *testing.T, path string, version int64, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", writerDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	provider, err := newProvider(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	for _, s := range append(statements, query("set_mark")) {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// A store that was made before there were keys, and before anything was trimmed.
func TestMigrateFrom1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	at := time.Date(2025, 12, 31, 23, 59, 59, 123e6, time.UTC)
	statements := []string{
		"INSERT INTO store (only, id) VALUES (1, 'the old id')",
		fmt.Sprintf("INSERT INTO feeds (id, name, first, last, updated) VALUES (1, 'chat', 1, 3, %d)", at.UnixMilli()),
		fmt.Sprintf("INSERT INTO feeds (id, name, first, last, updated) VALUES (2, 'news', 1, 1, %d)", at.UnixMilli()),
	}
	chat := []string{"one", "zwölf", "\U0001F680\n"}
	for i, data := range append(chat, "") {
		name, seq := 1, i+1
		if i == len(chat) {
			name, seq = 2, 1
		}
		statements = append(statements, fmt.Sprintf(
			"INSERT INTO events (feed, seq, type, data, json, time) VALUES (%d, %d, 'type', '%s', 0, %d)", name, seq, data, at.UnixMilli()))
	}
	oldFile(t, path, 1, statements...)
	for range 2 {
		s := openStore(t, path)
		if s.ID() != "the old id" {
			t.Errorf("the store's id is %q", s.ID())
		}
		checkFeed(t, s, "chat", map[feed.ID]string{1: chat[0], 2: chat[1], 3: chat[2]})
		checkFeed(t, s, "news", map[feed.ID]string{1: ""})
		list, err := s.List(t.Context(), "", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		want := []feed.Info{
			{Feed: "chat", Bounds: feed.Bounds{First: 1, Last: 3}, Updated: at, Bytes: 3 + 6 + 5},
			{Feed: "news", Bounds: feed.Bounds{First: 1, Last: 1}, Updated: at},
		}
		if diff := cmp.Diff(want, list.Feeds); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
		closeStore(t, s)
	}
	s := openStore(t, path)
	defer closeStore(t, s)
	if err := s.Trim(t.Context(), "chat", 3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), 100, time.Hour); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), "chat", "", 1)
	if err != nil || list.Feeds[0].Bytes != 5 {
		t.Errorf("trimmed and swept, the feed is %v, %v; want 5 bytes", list.Feeds, err)
	}
	if e := mustPut(t, s, "chat", "four"); e[0].ID != 4 {
		t.Errorf("the next event has id %d, want 4", e[0].ID)
	}
}

package server_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/sqlite"
	"github.com/rejoin/rejoin/storage/testserver"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if flag.Parse(); *overTLS {
		speakTLS()
	}
	code := m.Run()
	testserver.StopPostgres()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "what was closed has left a goroutine behind:", err)
		code = 1
	}
	os.Exit(code)
}

// inMemory keeps tests off the disk that do not test it.
var inMemory = flag.Bool("in-memory", false, "keep events in memory where a test does not name its store")

// newKeeper opens an empty store: SQLite, unless eachStore has set another.
var newKeeper = newUsual

func newUsual(t testing.TB) feed.RetentionStore {
	t.Helper()
	if *inMemory {
		return newMemory(t)
	}
	return newSQLite(t)
}

func newMemory(testing.TB) feed.RetentionStore { return feedtest.NewStore() }

func newSQLite(t testing.TB) feed.RetentionStore {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "rejoin.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newPostgres(t testing.TB) feed.RetentionStore {
	t.Helper()
	database := testserver.SharedPostgres(t).NewPrepared(t, func(empty string) error {
		store, err := postgres.Open(t.Context(), empty, postgres.Options{})
		if err != nil {
			return err
		}
		return store.Close()
	})
	store, err := postgres.Open(t.Context(), database, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// eachStore runs a test on each kind of store: clients see the same. The test itself
// must not be parallel, because newKeeper is a global variable; its subtests may.
func eachStore(t *testing.T, run func(t *testing.T)) {
	defer func() { newKeeper = newUsual }()
	stores := map[string]func(testing.TB) feed.RetentionStore{"sqlite": newSQLite, "postgres": newPostgres}
	if *inMemory {
		stores = map[string]func(testing.TB) feed.RetentionStore{"memory": newMemory}
	}
	for name, open := range stores {
		newKeeper = open
		t.Run(name, run)
	}
}

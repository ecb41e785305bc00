package postgres

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// inspect inspects a database, and checks that it stays as it is.
func inspect(t *testing.T, url, admin string) Inspection {
	t.Helper()
	const count = "SELECT count(*)::text || ' ' || coalesce(sum(n_tup_ins + n_tup_upd), 0)::text FROM pg_class LEFT JOIN pg_stat_user_tables ON relid = oid"
	before := value(t, admin, count)
	i, err := Inspect(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if after := value(t, admin, count); after != before {
		t.Errorf("the database has changed from %s to %s", before, after)
	}
	if apart := i.Clock.Sub(i.At).Abs(); apart > time.Minute {
		t.Errorf("the clocks of this machine are %v apart", apart)
	}
	return i
}

func privileges(i Inspection) (names []string) {
	for _, l := range i.Lacks {
		names = append(names, l.Privilege)
	}
	slices.Sort(names)
	return names
}

// TestInspectPrivileges starts with a role that may do nothing, and grants what Inspect
// names until it names nothing. A store then works, and lacks no privilege.
func TestInspectPrivileges(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	admin := p.URL("postgres")
	execute(t, admin, "CREATE ROLE node LOGIN PASSWORD 'secret'")
	url := "postgres://node:secret@" + p.Addr() + "/postgres?sslmode=disable"
	want := []string{"CREATE on the database postgres"}
	if diff := cmp.Diff(want, privileges(inspect(t, url, admin))); diff != "" {
		t.Errorf("an empty database: %s", diff)
	}

	version(t, admin, 2) // as another role
	if diff := cmp.Diff([]string{"SELECT on the table rejoin.versions", "USAGE on the schema rejoin"}, keep(privileges(inspect(t, url, admin)), "versions", "schema")); diff != "" {
		t.Errorf("the schema of another role: %s", diff)
	}
	i := inspect(t, url, admin)
	for _, l := range i.Lacks {
		execute(t, admin, l.Grant)
	}
	i = inspect(t, url, admin)
	if i.Schema.Version != 2 || len(i.Schema.Pending) != int(i.Schema.Newest)-2 || i.Schema.Pending[0] != "00003_transactions" {
		t.Errorf("got the schema %+v", i.Schema)
	}
	if names := privileges(i); !slices.Contains(names, "CREATE on the schema rejoin") || !slices.Contains(names, "ownership of the table rejoin.events") {
		t.Errorf("to migrate, the role lacks %q", names)
	}

	if ran, err := Migrate(t.Context(), admin, Options{}); err != nil || !slices.Equal(ran, i.Schema.Pending) {
		t.Errorf("migrated %q, %v", ran, err)
	}
	if s, err := Status(t.Context(), admin, Options{}); err != nil || s.Version != s.Newest || s.Pending != nil {
		t.Errorf("after that, got %+v, %v", s, err)
	}
	if ran, err := Migrate(t.Context(), admin, Options{}); err != nil || ran != nil {
		t.Errorf("migrated %q again, %v", ran, err)
	}
	for _, l := range inspect(t, url, admin).Lacks {
		execute(t, admin, l.Grant)
	}
	if i := inspect(t, url, admin); len(i.Lacks) > 0 || len(i.Schema.Pending) > 0 {
		t.Fatalf("got %+v", i)
	}
	worksFully(t, p, url)
}

// keep returns the names that contain one of the words.
func keep(names []string, words ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
	})
}

// worksFully does everything that a node does with a store.
func worksFully(t *testing.T, p *testserver.Postgres, url string) {
	t.Helper()
	s := start(t, url, Options{EventBytes: 1000})
	w := newWatcher(t, s)
	sub := w.follow("chat", feed.FromStart())
	publish(t, s, "chat", "1", "2")
	b := batch("chat", "3")
	b[0].Key = &feed.Key{Name: "k", Fingerprint: [32]byte{1}, Window: time.Hour}
	if _, err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	p.Exec(t, "postgres", "SELECT rejoin.rejoin_enqueue_text('chat', '', '4')")
	if got := take(t, sub, 4); got[3].Data != "4" {
		t.Errorf("got %v", got)
	}
	if err := s.Trim(t.Context(), "chat", 3); err != nil {
		t.Error(err)
	}
	if _, err := s.Sweep(t.Context(), 10, 0); err != nil {
		t.Error(err)
	}
	p.Exec(t, "postgres", "UPDATE rejoin.feeds SET closed = true")
	p.Exec(t, "postgres", "SELECT rejoin.rejoin_enqueue_text('chat', '', 'refused')")
	until(t, func() bool { return s.Refused() == 1 })
}

// The listener of the bus has to reach the database of the store, without a pooler.
func TestInspectBus(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	url := p.URL("postgres")
	if err := InspectBus(t.Context(), url, url, Options{}); err != nil {
		t.Error(err)
	}
	err := InspectBus(t.Context(), url, p.NewDatabase(t), Options{})
	if err == nil || !strings.Contains(err.Error(), "is not the database of the store") {
		t.Errorf("another database: %v", err)
	}
	pooler := testserver.StartPgBouncer(t, p).URL(url)
	if err := InspectBus(t.Context(), url, pooler, Options{}); err == nil || !strings.Contains(err.Error(), "PgBouncer") {
		t.Errorf("a pooler for the bus: %v", err)
	}
	if _, err := Inspect(t.Context(), pooler, Options{}); err == nil || !strings.Contains(err.Error(), "PgBouncer") {
		t.Errorf("a pooler for the store: %v", err)
	}
}

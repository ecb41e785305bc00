package postgres

import (
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/storage/testserver"
)

// Two stores have two ids, and each keeps its own when any node opens it.
func TestID(t *testing.T) {
	t.Parallel()
	p := testserver.SharedPostgres(t)
	u := p.NewDatabase(t)
	a, b := start(t, u, Options{}), start(t, p.NewDatabase(t), Options{})
	if a.ID() == b.ID() {
		t.Errorf("two stores have the id %q", a.ID())
	}
	if again := start(t, u, Options{}); again.ID() != a.ID() {
		t.Errorf("one store has the ids %q and %q", a.ID(), again.ID())
	}
	publish(t, a, "chat", "x") // through a pool
	if again := start(t, u, Options{}); again.ID() != a.ID() {
		t.Errorf("after an append, one store has the ids %q and %q", a.ID(), again.ID())
	}
}

// A copy on the same server has all that the original has, and another id.
func TestIDOfCopy(t *testing.T) {
	t.Parallel()
	p := testserver.SharedPostgres(t)
	original := p.NewDatabase(t)
	s := openStore(t, original, Options{})
	id := s.ID()
	publish(t, s, "chat", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copied := p.CopyDatabase(t, original)
	if got := start(t, copied, Options{}); got.ID() == id || len(stored(t, got, "chat")) != 1 {
		t.Errorf("a copy has the id %q of the original", id)
	}
	if got := start(t, original, Options{}).ID(); got != id {
		t.Errorf("the original had the id %q, and has %q", id, got)
	}
}

// A dump that is restored in place is another store, even if nothing is missing.
func TestIDOfRestored(t *testing.T) {
	t.Parallel()
	u := testserver.SharedPostgres(t).NewDatabase(t)
	id := start(t, u, Options{}).ID()
	execute(t, u, "CREATE TABLE dump AS SELECT * FROM rejoin.store")
	execute(t, u, "DELETE FROM rejoin.store; INSERT INTO rejoin.store SELECT * FROM dump")
	if got := start(t, u, Options{}).ID(); got == id {
		t.Errorf("what was restored has the same id %q", id)
	}
}

// A standby that is promoted may lack what its primary had. A store notices with its
// next call, whichever it is, and keeps no connection to the old primary.
func TestIDAfterPromotion(t *testing.T) {
	t.Parallel()
	primary := testserver.StartPostgres(t)
	u := primary.NewDatabase(t)
	s := openStore(t, u, Options{})
	publish(t, s, "chat", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	standby := primary.StartStandby(t)
	s = start(t, strings.Replace(u, primary.Addr(), primary.Addr()+","+standby.Addr(), 1), Options{})
	publish(t, s, "chat", "y")
	if b := bounds(t, s, "chat"); b.Last != 2 {
		t.Fatal(b)
	}
	id := s.ID()
	standby.Promote(t)
	if got := s.ID(); got != id {
		t.Errorf("the id was %q and is %q, with the primary still there", id, got)
	}
	// This is what a proxy does that leads to the new primary from now on: new
	// connections cannot reach the old primary, and open ones still work.
	primary.Exec(t, "postgres", "ALTER DATABASE "+databaseOf(t, u)+" ALLOW_CONNECTIONS false")
	s.verify.Reset()
	bounds(t, s, "chat")
	changed := s.ID()
	if changed == id {
		t.Fatalf("after the promotion the id is still %q", id)
	}
	publish(t, s, "chat", "z")
	if got := value(t, standby.URL(databaseOf(t, u)), "SELECT data FROM rejoin.events ORDER BY seq DESC LIMIT 1"); got != "z" {
		t.Errorf("the last event on the new primary is %q", got)
	}
	if got := s.ID(); got != changed {
		t.Errorf("the id was %q and is %q, with the same primary", changed, got)
	}
}

// After a restart, the files may have been replaced by an older state, so the id
// changes.
func TestIDAfterRestart(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	u := p.NewDatabase(t)
	s := start(t, u, Options{})
	for range 2 {
		id := s.ID()
		publish(t, s, "chat", "x")
		p.Stop(t, testserver.Fast)
		p.Start(t)
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() { publish(t, s, "chat", "y"); bounds(t, s, "chat") })
		}
		calls.Wait()
		changed := s.ID()
		if changed == id {
			t.Errorf("after a restart the id is still %q", id)
		}
		if got := start(t, u, Options{}).ID(); got != changed {
			t.Errorf("one store has the ids %q and %q", changed, got)
		}
	}
}

func TestLocation(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"postgres://u:hunter2@db:5433/events?sslmode=disable":    "postgres://db:5433/events",
		"postgres://u:hunter2@db/events":                         "postgres://db:5432/events",
		"postgres://u:hunter2@one:1,two:2/events":                "postgres://one:1,two:2/events",
		"host=/run/sock dbname=events password=hunter2 user=u":   "postgres://%2Frun%2Fsock:5432/events",
		"postgres://u:hunter2@[::1]:5433/events":                 "postgres://[::1]:5433/events",
		"postgres://u:hunter2@db/events?sslmode=prefer":          "postgres://db:5432/events",
		"postgres://u:p@hunter2@db/events":                       "postgres",
		"hunter2":                                                "postgres",
		"postgres://u@db/events?password=hunter2&host=elsewhere": "postgres://elsewhere:5432/events",
	} {
		if got := Location(in); got != want || strings.Contains(got, "hunter2") {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	u := testserver.SharedPostgres(t).NewDatabase(t)
	if s := start(t, u, Options{}); s.String() != Location(u) || !strings.HasSuffix(s.String(), "/"+databaseOf(t, u)) {
		t.Errorf("the store is at %s", s)
	}
}

func databaseOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

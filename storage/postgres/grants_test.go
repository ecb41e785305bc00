package postgres

import (
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// everyCall calls each function with everything that it does.
var everyCall = []string{
	"SELECT rejoin.rejoin_append('mine', 't', '1')", "SELECT rejoin.rejoin_append_text('mine', 't', 'x', idempotency_key => 'k')",
	"SELECT rejoin.rejoin_append_text('mine', 't', 'x', idempotency_key => 'k')",
	"SELECT rejoin.rejoin_enqueue('mine', 't', '1')", "SELECT rejoin.rejoin_enqueue_text('mine', 't', 'x')",
}

// A role needs USAGE on the schema and EXECUTE on the functions, and nothing else.
// Without them, nothing works. Objects that the role creates in their way change
// nothing.
func TestGrants(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "CREATE ROLE node LOGIN PASSWORD 'secret'")
	p.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'")
	p.Exec(t, "postgres", "CREATE ROLE other LOGIN PASSWORD 'secret'")
	p.Exec(t, "postgres", "CREATE SCHEMA rejoin AUTHORIZATION node")
	p.Exec(t, "postgres", "GRANT CREATE ON SCHEMA public TO node")
	as := func(role string) string { return "postgres://" + role + ":secret@" + p.Addr() + "/postgres" }
	// The nodes use the role that migrates.
	s := start(t, as("node"), Options{})
	publish(t, s, "chat", "x")
	c := connect(t, as("app"))
	for _, sql := range []string{everyCall[0], strings.ReplaceAll(everyCall[0], "rejoin.rejoin", "public.rejoin"), "TABLE rejoin.limits"} {
		failsWith(t, c, "42501", sql)
	}
	if got := value(t, p.URL("postgres"), `SELECT coalesce(string_agg(p.oid::regprocedure::text, ' '), '') FROM pg_proc p
		WHERE p.pronamespace IN ('rejoin'::regnamespace, 'public'::regnamespace) AND has_function_privilege('app', p.oid, 'EXECUTE')`); got != "" {
		t.Errorf("everybody may call %s", got)
	}
	if got := value(t, p.URL("postgres"), `SELECT coalesce(string_agg(p.oid::regprocedure::text, ' '), '') FROM pg_proc p
		WHERE p.pronamespace IN ('rejoin'::regnamespace, 'public'::regnamespace) AND p.proname <> 'make_feeds'
			AND (NOT prosecdef OR proconfig <> '{"search_path=pg_catalog, rejoin, pg_temp"}')`); got != "" {
		t.Errorf("%s runs with the rights or the search path of the caller", got)
	}
	if got := value(t, p.URL("postgres"), `SELECT coalesce(string_agg(proname, ' '), '') FROM (SELECT proname FROM pg_proc p
		WHERE p.pronamespace IN ('rejoin'::regnamespace, 'public'::regnamespace) GROUP BY pronamespace, proname HAVING count(*) > 1) n`); got != "" {
		t.Errorf("%s is overloaded", got)
	}

	owner := connect(t, as("node"))
	runSQL(t, owner, "GRANT USAGE ON SCHEMA rejoin TO app",
		"GRANT EXECUTE ON FUNCTION rejoin.rejoin_append, rejoin.rejoin_append_text, rejoin.rejoin_enqueue, rejoin.rejoin_enqueue_text TO app")
	runSQL(t, c, everyCall...)
	failsWith(t, c, "42501", "SELECT rejoin.append_event('mine', '', '1', true, NULL, NULL, NULL, NULL, NULL)")
	failsWith(t, c, "42501", "INSERT INTO rejoin.queue (feed, type, data, json, close) VALUES ('a', '', '', false, false)")
	// The functions in public are granted separately, and need no USAGE on the schema
	// rejoin.
	failsWith(t, c, "42501", "SELECT public.rejoin_append('mine', 't', '1')")
	runSQL(t, owner, "GRANT EXECUTE ON FUNCTION public.rejoin_append TO other")
	runSQL(t, connect(t, as("other")), "SELECT rejoin_append('mine', 't', '1')")

	// A hostile role: its own schema comes first, and its temporary tables before that.
	p.Exec(t, "postgres", "CREATE SCHEMA trap AUTHORIZATION app")
	traps := []string{"SET search_path = pg_temp, trap, pg_catalog, public"}
	for _, schema := range []string{"trap", "pg_temp"} {
		for _, table := range []string{"feeds", "events", "keys", "queue", "queue_places", "limits", "store"} {
			traps = append(traps, "CREATE TABLE "+schema+"."+table+" (LIKE rejoin."+table+")")
		}
		for _, function := range []string{"quote(text)", "checked_feed(text)", "clean_type(text)", "set_config(text, text, boolean)", "octet_length(text)", "pg_notify(text, text)", "length(text)"} {
			traps = append(traps, "CREATE FUNCTION "+schema+"."+function+" RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$")
		}
		traps = append(traps,
			"CREATE FUNCTION "+schema+".trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$",
			"CREATE OPERATOR "+schema+".= (LEFTARG = text, RIGHTARG = text, FUNCTION = "+schema+".trap)",
			"CREATE OPERATOR "+schema+".<> (LEFTARG = text, RIGHTARG = text, FUNCTION = "+schema+".trap)")
	}
	p.Exec(t, "postgres", "GRANT SELECT ON ALL TABLES IN SCHEMA rejoin TO app") // to copy them
	runSQL(t, c, traps...)
	p.Exec(t, "postgres", "REVOKE SELECT ON ALL TABLES IN SCHEMA rejoin FROM app")
	runSQL(t, c, everyCall...)
	runSQL(t, c, "BEGIN")
	runSQL(t, c, everyCall...)
	runSQL(t, c, "SET CONSTRAINTS ALL IMMEDIATE", "COMMIT", "SET SESSION synchronous_commit = off")
	runSQL(t, c, everyCall...)
	failsWith(t, c, "RJ400", "SELECT rejoin.rejoin_append('a b', 't', '1')")
	failsWith(t, c, "RJ422", "SELECT rejoin.rejoin_append_text('mine', 't', 'y', idempotency_key => 'k')")
	for _, table := range []string{"feeds", "events", "keys", "queue", "queue_places"} {
		var n int
		if err := c.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM trap."+table+") + (SELECT count(*) FROM pg_temp."+table+")").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows are in the %s of the role, %v", n, table, err)
		}
	}
	if got := len(stored(t, s, "mine")); got != 6 {
		t.Errorf("%d events are stored, want 6", got)
	}
	if got := value(t, p.URL("postgres"), "SELECT count(*)::text FROM rejoin.queue_places"); got != "8" {
		t.Errorf("%s rows are in the queue, want 8", got)
	}
}

// A role that may not create in public can migrate, and the functions there stay as
// they are.
func TestPublicFunctions(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "CREATE ROLE node LOGIN PASSWORD 'secret'")
	p.Exec(t, "postgres", "CREATE SCHEMA rejoin AUTHORIZATION node")
	p.Exec(t, "postgres", "REVOKE CREATE ON SCHEMA public FROM PUBLIC") // as servers from 15 on do
	url := "postgres://node:secret@" + p.Addr() + "/postgres"
	s := start(t, url, Options{})
	runSQL(t, connect(t, url), everyCall...)
	publish(t, s, "mine", "x")
	const count = "SELECT count(*)::text FROM pg_proc WHERE pronamespace = to_regnamespace('public') AND proname LIKE 'rejoin%'"
	if got := value(t, url, count); got != "0" {
		t.Errorf("%s functions are in public", got)
	}

	taken := p.NewDatabase(t)
	execute(t, taken, "CREATE FUNCTION public.rejoin_append(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
	start(t, taken, Options{})
	if got := value(t, taken, count); got != "4" {
		t.Errorf("%s functions are in public, want 4", got)
	}
	if got := value(t, taken, "SELECT public.rejoin_append(7)::text"); got != "1" {
		t.Errorf("the function that was there returns %s", got)
	}
	runSQL(t, connect(t, taken), everyCall...)

	none := p.NewDatabase(t)
	execute(t, none, "DROP SCHEMA public")
	start(t, none, Options{})
	runSQL(t, connect(t, none), everyCall...)
}

// A database of the second version, with keys, continues to work after the migration.
func TestMigratesSecondVersion(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	version(t, url, 2)
	for _, sql := range []string{
		"INSERT INTO rejoin.store (id) VALUES ('as it was')",
		"INSERT INTO rejoin.feeds (name, last, updated, bytes) VALUES ('chat', 1, 3000, 1), ('future', 1, 99999999999999, 1)",
		"INSERT INTO rejoin.events (feed, seq, time, json, type, data) SELECT id, 1, updated, false, '', 'x' FROM rejoin.feeds",
		`INSERT INTO rejoin.keys (feed, key, print, firsts, times, time) SELECT id, 'k', sha256('false "chat" "" false 1:x'), '{1}', '{3000}',
			floor(extract(epoch FROM now()) * 1000) FROM rejoin.feeds WHERE name = 'chat'`,
	} {
		execute(t, url, sql)
	}
	s := start(t, url, Options{})
	if !strings.HasPrefix(s.ID(), "as it was-") {
		t.Errorf("the store's id has become %q", s.ID())
	}
	c := connect(t, url)
	if got := idFrom(t, c, "SELECT rejoin_append_text('chat', '', 'x', idempotency_key => 'k')"); got != 1 {
		t.Errorf("a key of before: got id %d, want 1", got)
	}
	if got := idFrom(t, c, "SELECT rejoin_append_text('chat', '', 'y')"); got != 2 {
		t.Errorf("got id %d, want 2", got)
	}
	runSQL(t, c, "SELECT rejoin_append_text('future', '', 'y')")
	if got := stored(t, s, "future"); got[1].Time != got[0].Time {
		t.Errorf("the time goes from %v to %v", got[0].Time, got[1].Time)
	}
	if b := bounds(t, s, "chat"); b != (feed.Bounds{First: 1, Last: 2}) {
		t.Errorf("got bounds %v", b)
	}
	sound(t, url)
}

package postgres

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// Nodes of one application start together, on a database that none has seen.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	ids := make([]string, 8)
	var opening sync.WaitGroup
	for i := range ids {
		opening.Go(func() {
			s, err := Open(t.Context(), url, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			ids[i] = s.ID()
			if _, err := s.Append(t.Context(), batch("chat", "x")); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("nodes see different stores: %q", ids)
		}
	}
	s := start(t, url, Options{})
	if got := bounds(t, s, "chat"); got.Last != feed.ID(len(ids)) {
		t.Errorf("the feed ends at %d, want %d", got.Last, len(ids))
	}
}

func TestNewerSchema(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	start(t, url, Options{})
	execute(t, url, "INSERT INTO rejoin.versions (version_id, is_applied) VALUES (99, true)")
	refused(t, url, "version 99")
}

func TestWrongEncoding(t *testing.T) {
	t.Parallel()
	p := testserver.SharedPostgres(t)
	// A name of its own: the server may be one that others use.
	name := "rejoin_latin1_" + strings.ToLower(filepath.Base(t.TempDir())) + time.Now().Format("150405")
	p.Exec(t, "postgres", "CREATE DATABASE "+name+" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { p.Exec(t, "postgres", "DROP DATABASE "+name) })
	refused(t, p.URL(name), "LATIN1")
}

// A permanent error ends the start, and a temporary one does not. Neither shows the
// password.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "CREATE ROLE poor LOGIN PASSWORD 'hunter2'")
	p.Exec(t, "postgres", "REVOKE ALL ON DATABASE postgres FROM PUBLIC")
	p.Exec(t, "postgres", "GRANT CONNECT ON DATABASE postgres TO poor")
	as := func(user, password, database string) string {
		u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Addr(), Path: "/" + database}
		return u.String()
	}
	tests := []struct {
		name, url string
		passing   bool
	}{
		{"wrong password", as("postgres", "hunter2", "postgres"), false},
		{"unknown user", as("nobody", "hunter2", "postgres"), false},
		{"no such database", strings.Replace(p.URL("nowhere"), "sslmode=disable", "sslmode=prefer", 1), false},
		{"no privilege", as("poor", "hunter2", "postgres"), false},
		{"unknown setting", p.URL("postgres") + "&no_such_setting=1", false},
		{"not a URL", "postgres://postgres:hunter2@[::1/postgres", false},
		{"a password with @", "postgres://postgres:top@hunter2@" + p.Addr() + "/postgres", false},
		{"a password with /", "postgres://postgres:1/hunter2@" + p.Addr() + "/postgres", false},
		{"a password with ?", "postgres://postgres:1?hunter2@" + p.Addr() + "/postgres", false},
		{"not a port", "postgres://postgres:hunter2@127.0.0.1:hunter2/postgres", false},
		{"keywords", "password='hunter2 host=127.0.0.1", false},
		{"nobody listens", "postgres://postgres:hunter2@127.0.0.1:1/postgres", true},
		{"no such host", "postgres://postgres:hunter2@nowhere.invalid/postgres", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(t.Context(), test.url, Options{ConnectTimeout: 2 * time.Second})
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			t.Log(err)
			if got := errors.Is(err, feed.ErrUnavailable); got != test.passing {
				t.Errorf("passing: got %v, want %v", got, test.passing)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error tells the password")
			}
		})
	}
}

// A role that may not create schemas is enough once the schema is there.
func TestGivenSchema(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'")
	p.Exec(t, "postgres", "CREATE SCHEMA rejoin AUTHORIZATION app")
	s := start(t, "postgres://app:secret@"+p.Addr()+"/postgres", Options{})
	publish(t, s, "chat", "x")
}

// A standby is behind its primary: its answers may be older than an acknowledged
// event. It may be promoted, so the error is temporary.
func TestStandby(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	url := p.NewDatabase(t)
	s := start(t, url, Options{})
	publish(t, s, "chat", "x")
	p.Stop(t, testserver.Fast)
	signal := filepath.Join(p.Dir(), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	_, err := s.Append(t.Context(), batch("chat", "y"))
	wants(t, err, feed.ErrUnavailable)
	_, err = s.Bounds(t.Context(), []string{"chat"})
	wants(t, err, feed.ErrUnavailable)
	_, err = s.Read(t.Context(), "chat", 0, feed.Limit{Events: 1, Bytes: 1})
	wants(t, err, feed.ErrUnavailable)
	_, err = Open(t.Context(), url, Options{})
	wants(t, err, feed.ErrUnavailable)
	p.Exec(t, "postgres", "SELECT pg_promote()")
	publish(t, s, "chat", "z")
}

// An acknowledged event has to be on the disk, even if the database is set up not to
// wait for that, and whenever it was set up so.
func TestDurableCommits(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	u := p.NewDatabase(t)
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	name := parsed.Path[1:]
	for _, test := range []struct{ has, want string }{{"off", "on"}, {"on", "on"}, {"remote_apply", "remote_apply"}, {"local", "local"}} {
		p.Exec(t, "postgres", "ALTER DATABASE "+name+" SET synchronous_commit = "+test.has)
		s := start(t, u, Options{})
		if got := show(t, s, "synchronous_commit"); got != test.want {
			t.Errorf("the database says %s: got %s, want %s", test.has, got, test.want)
		}
	}
	p.Exec(t, "postgres", "ALTER DATABASE "+name+" RESET synchronous_commit")
	s := start(t, u, Options{PublishConns: 2})
	show(t, s, "synchronous_commit")
	p.Exec(t, "postgres", "ALTER SYSTEM SET synchronous_commit = off")
	p.Exec(t, "postgres", "SELECT pg_reload_conf()")
	until(t, func() bool { return value(t, u, "SHOW synchronous_commit") == "off" })
	if got := show(t, s, "synchronous_commit"); got != "on" {
		t.Errorf("after a reload: got %s", got)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	s := start(t, testserver.SharedPostgres(t).NewDatabase(t), Options{LockTimeout: 3 * time.Second, StatementTimeout: 7 * time.Second})
	for name, want := range map[string]string{
		"application_name": "rejoin publish", "lock_timeout": "3s", "statement_timeout": "7s",
		"idle_in_transaction_session_timeout": "8s", "jit": "off", "client_encoding": "UTF8",
	} {
		if got := show(t, s, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// show returns a setting of the session that appends.
func show(t *testing.T, s *Store, name string) string {
	t.Helper()
	var v string
	if err := s.publish.QueryRow(t.Context(), "SHOW "+name).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func refused(t *testing.T, url, hint string) {
	t.Helper()
	s, err := Open(t.Context(), url, Options{})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	if errors.Is(err, feed.ErrUnavailable) || !strings.Contains(err.Error(), hint) {
		t.Errorf("got %v; want a permanent error with %s", err, hint)
	}
}

// connect returns a session of another program.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func execute(t testing.TB, url, sql string, args ...any) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func value(t testing.TB, url, sql string) (v string) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

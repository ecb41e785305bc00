//go:build unix

package testserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresEnv names the environment variable that may hold the URL of a running
// Postgres, with the right to create databases: [SharedPostgres] then uses that
// server instead of one of its own.
const PostgresEnv = "REJOIN_TEST_POSTGRES"

// Postgres is a Postgres server for tests.
type Postgres struct {
	url  url.URL // of the database postgres
	addr string  // host:port; empty if it does not listen on TCP
	*server

	preparing sync.Mutex
	prepared  string // the name of the database that NewPrepared copies
}

// server is the process of a Postgres that the tests started. One that they found
// running has none.
type server struct {
	bin      string
	dir      string // data, log and sockets
	flags    []string
	password string

	mu     sync.Mutex
	pid    int
	exited <-chan struct{} // closed when the process of pid has ended
	paused []int
}

var shared struct {
	sync.Mutex
	*Postgres
}

// SharedPostgres returns the one server that all tests of this process share,
// and starts it for the first. It is quick because it does not sync, so a test in
// which it has to survive a crash needs [StartPostgres]. Each test makes a database
// of its own in it. TestMain calls [StopPostgres] when the tests have run.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.Postgres != nil {
		return shared.Postgres
	}
	if text := os.Getenv(PostgresEnv); text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			t.Fatalf("%s has to be a URL, postgres://user:password@host:port/database", PostgresEnv)
		}
		shared.Postgres = &Postgres{url: *u, addr: u.Host}
		return shared.Postgres
	}
	p, err := newServer(home.seed, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	if err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	shared.Postgres = p
	return p
}

// StartPostgres starts a server for this test alone, which may stop it, kill it
// and start it again. It listens on a TCP port of this machine, and syncs as a
// real one does. It ends with the test.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	return startOwn(t, home.seed)
}

// StartStandby starts a copy of the server, made by pg_basebackup, that follows
// it, as [StartPostgres] does.
func (p *Postgres) StartStandby(t testing.TB) *Postgres {
	t.Helper()
	return startOwn(t, func(s *server) (password string, err error) {
		return p.own(t).password, s.run(filepath.Join(s.bin, "pg_basebackup"), "-D", s.data(), "-R", "-c", "fast", "--no-sync", "-d", p.URL("postgres"))
	})
}

// Promote makes a standby a primary.
func (p *Postgres) Promote(t testing.TB) {
	t.Helper()
	p.Exec(t, "postgres", "SELECT pg_promote()")
}

// startOwn starts a server on the data that seed makes.
func startOwn(t testing.TB, seed func(*server) (password string, err error)) *Postgres {
	t.Helper()
	port := strconv.Itoa(FreePort(t))
	p, err := newServer(seed, "-c", "listen_addresses=127.0.0.1", "-c", "port="+port)
	if err != nil {
		t.Fatal(err)
	}
	p.addr = net.JoinHostPort("127.0.0.1", port)
	p.url = url.URL{Scheme: "postgres", User: url.UserPassword("postgres", p.password), Host: p.addr, RawQuery: "sslmode=disable"}
	t.Cleanup(func() {
		p.Resume(t)
		p.end()
		if err := os.RemoveAll(p.dir); err != nil {
			t.Errorf("remove the files of Postgres: %v", err)
		}
	})
	p.Start(t)
	return p
}

// StopPostgres stops the server that [SharedPostgres] started, and removes its files.
func StopPostgres() {
	shared.Lock()
	defer shared.Unlock()
	switch {
	case shared.Postgres == nil:
	case shared.server != nil:
		shared.end()
	case shared.prepared != "":
		_ = shared.exec("postgres", "DROP DATABASE "+shared.prepared+" WITH (FORCE)") // no test is left to fail
	}
	shared.Postgres = nil
	home.leave()
}

// URL returns the URL of a database of the server.
func (p *Postgres) URL(database string) string {
	u := p.url
	u.Path = "/" + database
	return u.String()
}

// Addr returns the host and port that the server listens on.
func (p *Postgres) Addr() string { return p.addr }

// Dir returns the directory of a server that the tests started. Its data is in the
// directory data below that.
func (p *Postgres) Dir() string { return p.dir }

// NewDatabase makes an empty database for this test and returns its URL. On a server
// that was already running, the database is dropped when the test ends. Otherwise it
// disappears with the server, which is quicker.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	return p.newDatabase(t, "template0") // the other template may be in use, or not be empty
}

func (p *Postgres) newDatabase(t testing.TB, template string) string {
	t.Helper()
	name := p.create(t, template)
	if p.server == nil {
		t.Cleanup(func() { p.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)") })
	}
	return p.URL(name)
}

// create makes a database and returns its name.
func (p *Postgres) create(t testing.TB, template string) string {
	t.Helper()
	name := "rejoin_test_" + strings.ToLower(rand.Text())
	p.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+template)
	return name
}

// NewPrepared does the same with a database that prepare has filled. It calls prepare
// once, for all tests of this process, and copies what that has made, which takes half
// as long as to make it anew. prepare leaves no connection open.
func (p *Postgres) NewPrepared(t testing.TB, prepare func(database string) error) string {
	t.Helper()
	p.preparing.Lock()
	defer p.preparing.Unlock()
	if p.prepared == "" {
		name := p.create(t, "template0")
		if err := prepare(p.URL(name)); err != nil {
			t.Fatal(err)
		}
		p.prepared = name
	}
	return p.newDatabase(t, p.prepared)
}

// CopyDatabase makes a copy of the database at the URL, as [Postgres.NewDatabase]
// does. No connection to that database may be open.
func (p *Postgres) CopyDatabase(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return p.newDatabase(t, strings.TrimPrefix(u.Path, "/"))
}

// Exec runs a statement in a database.
func (p *Postgres) Exec(t testing.TB, database, sql string, args ...any) {
	t.Helper()
	if err := p.exec(database, sql, args...); err != nil {
		t.Fatal(err)
	}
}

func (p *Postgres) exec(database, sql string, args ...any) error {
	// Not a test's context, which has ended when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, p.URL(database))
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// newServer makes the files of a server, whose data seed makes.
func newServer(seed func(*server) (password string, err error), flags ...string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := home.newDir()
	if err != nil {
		return nil, fmt.Errorf("make a directory for Postgres: %w", err)
	}
	s := &server{bin: bin, dir: dir}
	if s.password, err = seed(s); err != nil {
		return nil, err
	}
	s.flags = append([]string{"-D", s.data(), "-k", dir}, flags...)
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), RawQuery: "host=" + url.QueryEscape(dir)}
	return &Postgres{url: u, server: s}, nil
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// postgresBin returns the directory of Postgres's programs.
func postgresBin() (string, error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	// Debian keeps the versions apart; the last is tried first.
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	for i := len(debian) - 1; i >= 0; i-- {
		dirs = append(dirs, debian[i])
	}
	for _, dir := range dirs {
		initdb, err := filepath.EvalSymlinks(filepath.Join(dir, "initdb"))
		if _, err2 := os.Stat(filepath.Join(dir, "postgres")); err == nil && err2 == nil {
			return filepath.Dir(initdb), nil // all its programs are there
		}
	}
	return "", errors.New("this test needs Postgres: apt-get install postgresql, or set " + PostgresEnv)
}

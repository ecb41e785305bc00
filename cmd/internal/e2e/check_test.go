package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/storage/testserver"
)

// checkLine is a line of rejoin check --json.
type checkLine struct{ Look, Status, At, Found, Breaks, Why, Do string }

// check runs rejoin check --json with a limit of descriptors, and returns its lines.
func check(t *testing.T, descriptors int, config string, args ...string) (lines []checkLine, o outcome) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`ulimit -n %d; exec "$@"`, descriptors)
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", built(t, false), "check", "--json", "--config", file}, args...)...)
	var stdout lockedBuffer
	cmd.Stdout = &stdout
	p := launch(t, cmd)
	_ = p.wait() // the exit code is what counts
	o = outcome{cmd.ProcessState.ExitCode(), stdout.String(), p.log.String()}
	if strings.Contains(o.stdout+o.stderr, "hunter2") {
		t.Errorf("a secret is printed: %s%s", o.stdout, o.stderr)
	}
	for text := range strings.Lines(o.stdout) {
		var l checkLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if l.Status != "ok" && (l.Breaks == "" || l.Why == "" || l.Do == "") {
			t.Errorf("a problem without an explanation: %s", text)
		}
		lines = append(lines, l)
	}
	return lines, o
}

// wantProblems checks that exactly these problems were found, each given by its look and
// words of its cause, in any order.
func wantProblems(t *testing.T, lines []checkLine, o outcome, want ...[2]string) {
	t.Helper()
	left := slices.Clone(want)
	for _, l := range lines {
		i := slices.IndexFunc(left, func(w [2]string) bool { return l.Look == w[0] && strings.Contains(l.Why, w[1]) })
		switch {
		case l.Look == "somaxconn": // of the machine
		case l.Status == "ok":
		case i < 0:
			t.Errorf("found %+v", l)
		default:
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) > 0 || len(want) > 0 && o.code != exitFailed {
		t.Errorf("exit code %d, not found: %q\n%s%s", o.code, left, o.stdout, o.stderr)
	}
}

// TestCheckCluster checks a configuration with Postgres, Redis, TLS and tokens: first a
// good one, then one in which each part has its problem.
func TestCheckCluster(t *testing.T) {
	t.Parallel()
	postgres, redis := testserver.StartPostgres(t), testserver.StartRedis(t)
	files := newCertificateFiles(t)
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
	}))
	defer jwks.Close()
	const config = "store: {url: %q}\nbus: {url: %q}\ntls: {cert: %q, key: %q}\nauth: {mode: jwt, jwt: {jwks_url: %q}}\n"
	good := fmt.Sprintf(config, postgres.URL("postgres"), redis.URL(), files.cert, files.key, jwks.URL)
	lines, o := check(t, 4096, good)
	wantProblems(t, lines, o)
	for _, name := range []string{"configuration", "descriptors", "tls", "auth", "store", "bus", "clock"} {
		if !slices.ContainsFunc(lines, func(l checkLine) bool { return l.Look == name && l.Status == "ok" }) {
			t.Errorf("nothing about %s: %s", name, o.stdout)
		}
	}

	postgres.Exec(t, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'hunter2'")
	admin := goredis.NewClient(&goredis.Options{Addr: redis.Addr()})
	defer admin.Close()
	if err := admin.Do(t.Context(), "acl", "setuser", "weak", "on", ">hunter2", "~rejoin:*", "resetchannels", "+@all", "-xadd").Err(); err != nil {
		t.Fatal(err)
	}
	testserver.WriteCertificate(t, files.cert, files.key, time.Now().Add(-time.Hour))
	jwks.Close()
	bad := fmt.Sprintf(config, "postgres://weak:hunter2@"+postgres.Addr()+"/postgres?sslmode=disable", "redis://weak:hunter2@"+redis.Addr(),
		files.cert, files.key, strings.Replace(jwks.URL, "://", "://me:hunter2@", 1))
	lines, o = check(t, 300, bad)
	wantProblems(t, lines, o, [2]string{"descriptors", "300 files"}, [2]string{"tls", "expired at"}, [2]string{"auth", "connection refused"},
		[2]string{"store", "CREATE on the database postgres"}, [2]string{"bus", "lacks +xadd"}, [2]string{"bus", "lacks &rejoin:*"})

	testserver.WriteCertificate(t, files.cert, files.key, time.Now().Add(13*24*time.Hour))
	if err := os.Rename(files.key, files.key+".away"); err != nil {
		t.Fatal(err)
	}
	redis.Kill()
	away := "postgres://weak:hunter2@" + jwks.Listener.Addr().String() + "/postgres"
	lines, o = check(t, 4096, fmt.Sprintf(config, away, redis.URL(), files.cert, files.key, jwks.URL))
	wantProblems(t, lines, o, [2]string{"tls", "no such file"}, [2]string{"auth", "connection refused"},
		[2]string{"store", "connection refused"}, [2]string{"bus", "connection refused"})
	if err := os.Rename(files.key+".away", files.key); err != nil {
		t.Fatal(err)
	}
	pooler := testserver.StartPgBouncer(t, postgres)
	lines, o = check(t, 4096, fmt.Sprintf("store: {url: %q}\nbus: {url: %q}\ntls: {cert: %q, key: %q}\n",
		postgres.URL("postgres"), pooler.URL(postgres.URL("postgres")), files.cert, files.key))
	wantProblems(t, lines, o, [2]string{"tls", "expires at"}, [2]string{"bus", "PgBouncer"})
}

// TestCheckFile checks and migrates a SQLite file: before there is one, while a server
// has it open, and after that server was killed.
func TestCheckFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "rejoin.db")
	store := "store: {url: 'sqlite:" + db + "'}\n"
	lines, o := check(t, 4096, store)
	wantProblems(t, lines, o)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("check made %v, %v", entries, err)
	}
	all := migrationsOf(t, "sqlite")
	for _, want := range []string{"migrated " + strings.Join(all, "\nmigrated ") + "\n", "nothing to migrate\n"} {
		if o := runCommand(t, "migrate", "up", "--store", "sqlite:"+db); o.stdout != want || o.code != exitOK {
			t.Errorf("migrate up: %+v", o)
		}
	}

	p := serve(t, built(t, false), db)
	lines, o = check(t, 4096, store)
	wantProblems(t, lines, o, [2]string{"store", "the file is in use"})
	status := fmt.Sprintf("\nschema   version %[1]d\nprogram  knows versions up to %[1]d\npending  nothing\n", len(all))
	wantStatus := func(when string) {
		t.Helper()
		if o := runCommand(t, "migrate", "status", "--store", "sqlite:"+db); !strings.HasSuffix(o.stdout, status) {
			t.Errorf("migrate status, %s: %+v", when, o)
		}
	}
	wantStatus("of an open file")
	if o := runCommand(t, "migrate", "up", "--store", "sqlite:"+db); o.code != exitFailed || !strings.Contains(o.stderr, "in use") {
		t.Errorf("migrate up of an open file: %+v", o)
	}
	p.kill()
	wantStatus("after a kill")
	lines, o = check(t, 4096, store+"limits: {subscribers: 5000}\n")
	wantProblems(t, lines, o, [2]string{"descriptors", "limits.subscribers (5000)"})

	lines, o = check(t, 4096, "stor: {url: 'sqlite:hunter2'}\nlog: {level: loud}\n")
	wantProblems(t, lines, o, [2]string{"configuration", "config.yaml:1: stor.url: no such key; did you mean store.url?"},
		[2]string{"configuration", "config.yaml:2: log.level"})
	if o := runCommand(t, "check", "--store", "sqlite:"+dir); o.code != exitFailed || !strings.Contains(o.stdout, "PROBLEM  store          "+dir+": the server would not start: ") {
		t.Errorf("a directory: %+v", o)
	}
}

// migrationsOf returns the names of a store's migrations.
func migrationsOf(t *testing.T, store string) []string {
	t.Helper()
	names, err := filepath.Glob("../../../storage/" + store + "/migrations/*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d migrations, %v", len(names), err)
	}
	for i, name := range names {
		names[i] = strings.TrimSuffix(filepath.Base(name), ".sql")
	}
	return names
}

// TestMigratePostgres runs two migrations at a time, of which each runs once.
func TestMigratePostgres(t *testing.T) {
	t.Parallel()
	url := testserver.SharedPostgres(t).NewDatabase(t)
	o := runCommand(t, "migrate", "status", "--store", url)
	all := migrationsOf(t, "postgres")
	if !strings.HasSuffix(o.stdout, fmt.Sprintf("\nschema   version 0\nprogram  knows versions up to %d\npending  %s\n", len(all), strings.Join(all, ", "))) {
		t.Errorf("an empty database: %+v", o)
	}
	_, first := startCommand(t, time.Minute, nil, "migrate", "up", "--store", url)
	_, second := startCommand(t, time.Minute, nil, "migrate", "up", "--store", url)
	one, two := first(), second()
	for _, name := range all {
		if n := strings.Count(one.stdout+two.stdout, "migrated "+name+"\n"); n != 1 || one.code != exitOK || two.code != exitOK {
			t.Errorf("%s ran %d times: %+v, %+v", name, n, one, two)
		}
	}
	if o := runCommand(t, "migrate", "up", "--store", url); o.stdout != "nothing to migrate\n" {
		t.Errorf("migrate up again: %+v", o)
	}
}

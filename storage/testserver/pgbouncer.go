//go:build unix

package testserver

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PgBouncer is a PgBouncer of a test's own in front of a Postgres server.
type PgBouncer struct {
	addr string
}

// StartPgBouncer starts a PgBouncer in transaction mode in front of all databases of
// the server, for as long as the test runs. It logs in as the user of the server,
// whoever comes. The settings, such as "pool_mode = session", go into its file behind
// the others.
func StartPgBouncer(t testing.TB, p *Postgres, settings ...string) *PgBouncer {
	t.Helper()
	program, err := pgBouncerProgram()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := home.newDir()
	if err != nil {
		t.Fatalf("make a directory for PgBouncer: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the home goes later
	var out string
	for range 5 { // another process may take the port before it does
		b := &PgBouncer{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(t)))}
		if out, err = b.start(t, program, dir, p, settings); err == nil {
			return b
		}
	}
	t.Fatalf("start PgBouncer: %v\n%s", err, out)
	return nil
}

// pgBouncerProgram returns its path. Debian keeps it where only root looks.
func pgBouncerProgram() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	const debian = "/usr/sbin/pgbouncer"
	if _, err := os.Stat(debian); err == nil {
		return debian, nil
	}
	return "", fmt.Errorf("this test needs PgBouncer: apt-get install pgbouncer")
}

// start starts the process, and waits until it takes connections.
func (b *PgBouncer) start(t testing.TB, program, dir string, p *Postgres, settings []string) (out string, err error) {
	_, port, _ := net.SplitHostPort(b.addr)
	lines := []string{
		"[databases]", "* = " + p.keywords(),
		"[pgbouncer]", "listen_addr = 127.0.0.1", "listen_port = " + port, "unix_socket_dir =", "auth_type = any", "pool_mode = transaction",
	}
	lines = append(lines, settings...)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return "", err
	}
	if err := home.give(file); err != nil {
		return "", err
	}
	log := &lastLines{}
	cmd := exec.Command(program, file)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = home.attributes() // it refuses to run as root
	exited, err := launch(cmd)
	if err != nil {
		return "", err
	}
	end := func() {
		_ = cmd.Process.Signal(syscall.SIGKILL) // it may have ended
		<-exited
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if strings.Contains(log.String(), "process up") {
			t.Cleanup(end)
			return "", nil
		}
		select {
		case <-exited:
			return log.String(), fmt.Errorf("it ended: %v", cmd.ProcessState)
		case <-time.After(5 * time.Millisecond):
		}
	}
	end()
	return log.String(), fmt.Errorf("it does not start")
}

// keywords returns where the server is, as PgBouncer's file has it.
func (p *Postgres) keywords() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	host, port := p.url.Query().Get("host"), ""
	if p.addr != "" {
		host, port, _ = strings.Cut(p.addr, ":")
	}
	words := []string{"host=" + quote(host), "port=" + cmp.Or(port, "5432"), "user=" + quote(p.url.User.Username())}
	if password, ok := p.url.User.Password(); ok {
		words = append(words, "password="+quote(password))
	}
	return strings.Join(words, " ")
}

// URL returns the URL of a database with PgBouncer's host and port in place of its own.
func (b *PgBouncer) URL(database string) string {
	u, err := url.Parse(database)
	if err != nil {
		panic(err) // it is one of Postgres.URL
	}
	u.Host, u.RawQuery = b.addr, "sslmode=disable"
	return u.String()
}

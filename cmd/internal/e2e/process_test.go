package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/testserver"
)

// The tests of this file's family run the real command in processes of its
// own: what is killed is killed, and what is read was sent over a socket.

// The detector is for the command. The tests themselves need none, and cost much less
// without.
var detectRaces = flag.Bool("detect-races", false, "build the command with the race detector")

// built returns the path of the command, built once for all tests. It has the
// race detector with -detect-races, unless plain asks for what users run.
func built(t testing.TB, plain bool) string {
	t.Helper()
	build := buildOnce
	if plain {
		build = buildPlainOnce
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	buildOnce      = sync.OnceValues(func() (string, error) { return build(*detectRaces) })
	buildPlainOnce = sync.OnceValues(func() (string, error) { return build(false) })
	buildDir       = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "rejoin-test-") })
)

func build(race bool) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("rejoin-race-%t", race))
	out, err := exec.Command("go", "build", fmt.Sprintf("-race=%t", race), "-tags=grpcnotrace", "-o", path, "github.com/rejoin/rejoin/cmd/rejoin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	testserver.StopPostgres()
	if dir, err := buildDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// process is a running command.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *lockedBuffer // its standard error
	done chan struct{}
	err  error // of its end, once done is closed
	url  string
}

// launch starts a command and sees to it that it ends with the test.
func launch(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, log: &lockedBuffer{}, done: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = p.log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a shell's children end with it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if log := p.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("%v:\n%s", cmd.Args, log)
		}
	})
	return p
}

// serve starts a server on its own port, with the store in db, and waits until
// it listens.
func serve(t testing.TB, binary, db string, env ...string) *process {
	t.Helper()
	return serveNode(t, binary, "sqlite:"+db, "memory", env...)
}

// serveNode does the same with any store and bus.
func serveNode(t testing.TB, binary, store, bus string, env ...string) *process {
	t.Helper()
	return serveAt(t, binary, "127.0.0.1:0", store, bus, env...)
}

// serveAt does the same on an address that is known before.
func serveAt(t testing.TB, binary, address, store, bus string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(binary, "serve", "--listen", address, "--store", store, "--bus", bus)
	cmd.Env = append(os.Environ(), "REJOIN_LOG_FORMAT=json")
	cmd.Env = append(cmd.Env, env...)
	p := launch(t, cmd)
	p.url = p.listening()
	return p
}

// awaitReady waits until the server is ready for traffic.
func (p *process) awaitReady() {
	p.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; {
		resp, err := http.Get(p.url + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the server does not become ready:\n%s", p.log)
		}
		time.Sleep(10 * time.Millisecond) // until it has reached its store
	}
}

// logEntry is a line of the log.
type logEntry struct{ Msg, URL, Address, Metrics string }

// listening returns the URL that the server logs once it listens.
func (p *process) listening() string {
	p.t.Helper()
	return p.logged("listening").URL
}

// logged waits until the server has logged a message, and returns the entry.
func (p *process) logged(msg string) (entry logEntry) {
	p.t.Helper()
	has := func() bool {
		for _, line := range p.log.lines() {
			entry = logEntry{}
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == msg {
				return true
			}
		}
		return false
	}
	deadline := time.After(3 * time.Minute)
	for {
		grown := p.log.grown()
		if has() {
			return entry
		}
		select {
		case <-grown:
		case <-p.done:
			if has() {
				return entry
			}
			p.t.Fatalf("the process ended with %v and did not log %q:\n%s", p.err, msg, p.log)
		case <-deadline:
			p.t.Fatalf("%q is not logged:\n%s", msg, p.log)
		}
	}
}

// kill ends the process and its children as kill -9 does, and waits for it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-p.done
}

// signal sends a signal to the process.
func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// terminate asks the process to end and waits until it has.
func (p *process) terminate() error {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

// wait waits until the process has ended.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatalf("the process does not end:\n%s", p.log)
	}
	return p.err
}

// rss returns the memory that the process occupies, in bytes.
func (p *process) rss() int {
	p.t.Helper()
	var size, resident int
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		p.t.Fatal(err)
	}
	return resident * os.Getpagesize()
}

// publish publishes text and returns the id.
func publish(client *http.Client, url, name, data string) (id feed.ID, err error) {
	resp, err := client.Post(url+"/v1/feeds/"+name+"/events", "text/plain", strings.NewReader(data))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct{ ID feed.ID }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusCreated {
		return 0, fmt.Errorf("publish: %s", resp.Status)
	}
	return answer.ID, nil
}

// lockedBuffer collects what a process writes, and tells when there is more.
type lockedBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// grown returns a channel that is closed when more has been written.
func (b *lockedBuffer) grown() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more == nil {
		b.more = make(chan struct{})
	}
	return b.more
}

// lines returns the lines written so far, without the last one if it has no
// end yet.
func (b *lockedBuffer) lines() []string {
	var lines []string
	scanner := bufio.NewScanner(strings.NewReader(b.String()))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
		lines = lines[:len(lines)-1]
	}
	return lines
}

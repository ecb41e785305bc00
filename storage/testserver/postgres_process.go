//go:build unix

package testserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Start starts the server, and returns when it answers.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	s := p.own(t)
	if err := s.start(); err != nil {
		t.Fatalf("start Postgres: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, p.URL("postgres"))
		if err == nil {
			_ = c.Close(ctx)
			return
		}
		if ctx.Err() != nil || !s.running() {
			t.Fatalf("Postgres does not start: %v\n%s", err, s.tail())
		}
		time.Sleep(10 * time.Millisecond) // it gives no other sign that it has started
	}
}

// StopMode is a way for a server to stop.
type StopMode syscall.Signal

const (
	Smart     StopMode = StopMode(syscall.SIGTERM) // once all clients have gone
	Fast      StopMode = StopMode(syscall.SIGINT)  // clients are disconnected first
	Immediate StopMode = StopMode(syscall.SIGQUIT) // without cleaning up: the next start recovers
)

// Stop stops the server, and returns when it has.
func (p *Postgres) Stop(t testing.TB, mode StopMode) {
	t.Helper()
	s := p.own(t)
	s.mu.Lock()
	pid, exited := s.pid, s.exited
	s.mu.Unlock()
	if pid == 0 {
		return
	}
	if err := syscall.Kill(pid, syscall.Signal(mode)); err != nil {
		t.Fatalf("stop Postgres: %v", err)
	}
	select {
	case <-exited:
	case <-time.After(time.Minute):
		t.Fatalf("Postgres does not stop\n%s", s.tail())
	}
}

// Kill kills every process of the server, as a power cut would.
func (p *Postgres) Kill(t testing.TB) {
	t.Helper()
	p.own(t).kill()
}

// Pause freezes every process of the server: its connections stay open, and
// nothing is answered.
func (p *Postgres) Pause(t testing.TB) {
	t.Helper()
	s := p.own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	// The parent first, so that there are no new children.
	_ = syscall.Kill(s.pid, syscall.SIGSTOP)
	s.paused = append([]int{s.pid}, children(s.pid)...)
	for _, pid := range s.paused {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Resume ends a Pause.
func (p *Postgres) Resume(t testing.TB) {
	t.Helper()
	s := p.own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pid := range s.paused {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	s.paused = nil
}

func (p *Postgres) own(t testing.TB) *server {
	t.Helper()
	if p.server == nil {
		t.Fatalf("the server of %s is not for this test to stop and start: use StartPostgres", PostgresEnv)
	}
	return p.server
}

// start starts the process.
func (s *server) start() error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command(filepath.Join(s.bin, "postgres"), s.flags...)
	cmd.Stdout, cmd.Stderr = log, log
	exited, err := launch(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid, s.exited = cmd.Process.Pid, exited
	return nil
}

// end stops the server as fast as it can clean up after itself.
func (s *server) end() {
	if s.running() {
		_ = syscall.Kill(s.pid, syscall.SIGQUIT)
		select {
		case <-s.exited:
		case <-time.After(10 * time.Second):
			s.kill()
		}
	}
}

func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return
	}
	select {
	case <-s.exited:
	default:
		_ = syscall.Kill(s.pid, syscall.SIGSTOP)
		pids := append(children(s.pid), s.pid)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-s.exited
		for _, pid := range pids {
			for syscall.Kill(pid, 0) == nil && !zombie(pid) {
				time.Sleep(time.Millisecond) // these are not our children, so no signal tells when they are gone
			}
		}
	}
	s.pid = 0
}

func (s *server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

func (s *server) log() string { return filepath.Join(s.dir, "log") }

// tail returns the end of the server's log.
func (s *server) tail() []byte {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-4000):]
}

// command returns a program that runs as the user of the servers.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = home.attributes()
	return cmd
}

// run runs a program to its end.
func (s *server) run(name string, args ...string) error {
	cmd := s.command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runtime.LockOSThread() // see launch
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out.Bytes())
	}
	return nil
}

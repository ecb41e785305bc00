package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInterruptedWithoutServer: one interrupt is enough, also when the server
// stands still or has gone since.
func TestInterruptedWithoutServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		signal  syscall.Signal // to the server
		command []string
		began   string // what the names of the feeds begin with, once it publishes
		says    string
	}{
		{"verify, stopped", syscall.SIGSTOP, []string{"verify"}, "rejoin-verify:", "there is no verdict"},
		{"verify, killed", syscall.SIGKILL, []string{"verify"}, "rejoin-verify:", "there is no verdict"},
		{"bench fanout, stopped", syscall.SIGSTOP, []string{"bench", "fanout", "--subscribers", "10", "--rate", "0", "--warmup", "0s", "--duration", "1m"}, "bench:", "a publish failed"},
		{"bench publish, stopped", syscall.SIGSTOP, []string{"bench", "publish", "--warmup", "0s", "--duration", "1m"}, "bench:", "a publish failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
			command, wait := startCommand(t, time.Minute, nil, append(test.command, "--url", p.url)...)
			awaitPublished(t, p.url, test.began, 6)
			if err := syscall.Kill(p.cmd.Process.Pid, test.signal); err != nil {
				t.Fatal(err)
			}
			// A signal takes its time, in which the server may answer all publishes.
			for answered := true; answered; {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				answered = probe(ctx, p.url+"/healthz")
				cancel()
			}
			interrupted := time.Now()
			command.signal(os.Interrupt)
			if o := wait(); o.code != exitFailed || !strings.Contains(o.stderr, test.says) {
				t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
			}
			if took := time.Since(interrupted); took > 9*time.Second {
				t.Errorf("it went on for %v", took)
			}
		})
	}
}

// TestVerifyInterrupted: what was published until then is judged.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	command, wait := startCommand(t, time.Minute, nil, "verify", "--url", p.url)
	awaitPublished(t, p.url, "rejoin-verify:", 6)
	command.signal(os.Interrupt)
	if o := wait(); o.code != exitOK || !strings.Contains(o.stdout, "violations     0\n") || !strings.Contains(o.stderr, "interrupted: ") {
		t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
}

package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

func TestKnock(t *testing.T) {
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	unless := func(host string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host == host {
				silent(w, r)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		refused int32 // so many connections at first
		took    time.Duration
		err     string
	}{
		{"at once, whatever the answer is", unless(""), 0, 0, ""},
		{"one of two is enough", unless("one"), 0, 0, ""},
		{"one that is just starting", unless(""), 8, 800 * time.Millisecond, ""},
		{"none", unless(""), 1000, knockPatience, "no server answers at http://u:xxxxx@one (connection refused), nor at http://two (connection refused)"},
		{"silence", silent, 0, knockPatience, "no server answers at http://u:xxxxx@one (no answer within 3s), nor at http://two (no answer within 3s)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newPipes(t, test.handler)
				network.refuse.Store(test.refused)
				both := []*client.Client{network.client(t, "http://u:secret@one", client.Options{}), network.client(t, "http://two", client.Options{})}
				began := time.Now()
				err := knock(t.Context(), both)
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				got := ""
				if err != nil {
					got = err.Error()
				}
				// Which of them is silent first is a matter of luck.
				if swapped := strings.NewReplacer("u:xxxxx@one", "two", "two", "u:xxxxx@one").Replace(got); got != test.err && swapped != test.err {
					t.Errorf("%q, want %q", got, test.err)
				}
			})
		})
	}
}

// nobody returns addresses at which no server answers: one refuses, the other
// is silent.
func nobody(t *testing.T) map[string]string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return map[string]string{
		"http://127.0.0.1:1":                 "connection refused",
		"http://" + listener.Addr().String(): "no answer within 3s",
	}
}

func measuringCommands() [][]string {
	commands := [][]string{{"verify"}}
	for _, mode := range benchModes {
		commands = append(commands, []string{"bench", mode.name})
	}
	return commands
}

// TestNobodyAnswers: a mistyped address shows at once, not after a minute.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	for address, why := range nobody(t) {
		for _, command := range measuringCommands() {
			t.Run(strings.Join(command, " ")+" "+why, func(t *testing.T) {
				t.Parallel()
				var stdout, stderr bytes.Buffer
				began := time.Now()
				code := run(t.Context(), append(command, "--url", address), nil, &stdout, &stderr)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				want := "rejoin: " + command[0] + ": no server answers at " + address + " ("
				if code != exitFailed || stdout.Len() > 0 || !strings.Contains(stderr.String(), want) || !strings.Contains(stderr.String(), why+")") {
					t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
				}
			})
		}
	}
}

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
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var stdout, stderr lockedBuffer
			exit := make(chan int, 1)
			go func() { exit <- run(ctx, append(test.command, "--url", p.url), nil, &stdout, &stderr) }()
			eventuallyPublished(t, p.url, test.began)
			if err := syscall.Kill(p.cmd.Process.Pid, test.signal); err != nil {
				t.Fatal(err)
			}
			interrupt()
			select {
			case code := <-exit:
				if code != exitFailed || !strings.Contains(stderr.String(), test.says) {
					t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
				}
			case <-time.After(6 * time.Second):
				t.Errorf("it goes on: %q, %q", stdout.String(), stderr.String())
				_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
				<-exit
			}
		})
	}
}

// TestVerifyInterrupted: what was published until then is judged.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr lockedBuffer
	exit := make(chan int, 1)
	go func() { exit <- run(ctx, []string{"verify", "--url", p.url}, nil, &stdout, &stderr) }()
	eventuallyPublished(t, p.url, "rejoin-verify:")
	interrupt()
	code := <-exit
	if code != exitOK || !strings.Contains(stdout.String(), "violations     0\n") || !strings.Contains(stderr.String(), "interrupted: ") {
		t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
	}
}

// eventuallyPublished waits until a feed whose name begins so has some events.
func eventuallyPublished(t *testing.T, server, prefix string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var list struct{ Feeds []struct{ Last uint64 } }
		if err := getJSON(t.Context(), http.DefaultClient, server+"/v1/feeds?prefix="+prefix, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Feeds) > 0 && list.Feeds[0].Last > 5 {
			return
		}
	}
	t.Fatal("nothing is published")
}

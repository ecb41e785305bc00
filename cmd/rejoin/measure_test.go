package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBenchShowsProgress: at a terminal, and only there, a line a second.
func TestBenchShowsProgress(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"))
	seen, terminal := pseudoterminal(t)
	args := []string{"bench", "fanout", "--url", srv.url, "--subscribers", "2", "--duration", "1200ms", "--warmup", "0s"}
	if code := run(t.Context(), args, nil, io.Discard, terminal); code != exitOK {
		t.Errorf("exit %d", code)
	}
	terminal.Close()
	buf := make([]byte, 4096)
	n, err := seen.Read(buf)
	if shown := string(buf[:n]); err != nil || !strings.Contains(shown, "published/s") || !strings.Contains(shown, "0 repeated") {
		t.Errorf("at a terminal it shows %q, %v", shown, err)
	}
	signal()
	srv.await(t, "stopped")
	<-srv.exit
}

func TestBenchInterruptedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, mode := range benchModes {
		var stdout, stderr bytes.Buffer
		code := run(ctx, []string{"bench", string(mode.mode), "--url", "http://127.0.0.1:1"}, nil, &stdout, &stderr)
		if code != exitFailed || stdout.Len() > 0 || !strings.Contains(stderr.String(), "interrupted before anything was measured") {
			t.Errorf("%s: exit %d, %q, %q", string(mode.mode), code, stdout.String(), stderr.String())
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for args, want := range map[string]string{
		"bench fanuot":                               `unknown command "fanuot"`,
		"bench fanout here":                          "bench fanout takes no arguments",
		"bench fanout --url ftp://x":                 "--url ",
		"bench fanout --server apache":               "--server: ",
		"bench fanout --subscribers 0":               "--subscribers: ",
		"bench fanout --feeds 3 --subscribers 2":     "--feeds: ",
		"bench fanout --rate -1":                     "--rate: ",
		"bench fanout --duration 0s":                 "--duration: ",
		"bench fanout --warmup -1s":                  "--warmup: ",
		"bench fanout --size 10":                     "--size: ",
		"bench fanout --prefix a/b":                  "--prefix: ",
		"bench fanout --pid 1,99999999":              "--pid: there is no process 99999999",
		"bench publish --batch 1001":                 "--batch: ",
		"bench publish --server nchan --batch 2":     "--batch: nchan has no batches",
		"bench fanout --server nchan --publishers 2": "--publishers: ",
		"bench resume --backlog 0":                   "--backlog: ",
		"bench idle --hold -1s":                      "--hold: ",
		"bench idle --drain 0s":                      "--drain: ",
		"bench publish --subscribers 3":              "unknown flag: --subscribers",
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(args), nil, &stdout, &stderr)
		if code != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestBenchHelp(t *testing.T) {
	var stdout bytes.Buffer
	if code := run(t.Context(), []string{"bench"}, nil, &stdout, &stdout); code != exitOK {
		t.Errorf("exit %d", code)
	}
	for _, mode := range benchModes {
		if !strings.Contains(stdout.String(), mode.short) {
			t.Errorf("the help does not tell of %s:\n%s", string(mode.mode), stdout.String())
		}
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--url", "ftp://x"}, {"--feeds", "0"}, {"--feeds", "101"}, {"--subscribers", "0"}, {"--rate", "0"}, {"--for", "1ms"},
		{"--patience", "0s"}, {"--prefix", "no spaces"}, {"name"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"verify"}, args...), nil, &stdout, &stderr); code != exitUsage || stdout.Len() > 0 {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

// TestVerifyFindsNobody: verify fails if it reaches no server.
func TestVerifyFindsNobody(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"verify", "--url", "http://127.0.0.1:1", "--for", "1s", "--patience", "1s"}, nil, &stdout, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "connection refused") {
		t.Errorf("exit %d, %s%s", code, stdout.String(), stderr.String())
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
		commands = append(commands, []string{"bench", string(mode.mode)})
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

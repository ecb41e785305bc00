package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// running is a rejoin serve in this process.
type running struct {
	url  string
	log  chan []byte // unread lines of its log
	exit chan int
}

// runServe starts one with its store in db, and returns when it listens. The
// end of ctx is its signal.
func runServe(t *testing.T, ctx context.Context, db string, flags ...string) *running {
	t.Helper()
	t.Setenv("REJOIN_LOG_FORMAT", "json")
	if os.Getenv("REJOIN_DRAIN_WINDOW") == "" {
		t.Setenv("REJOIN_DRAIN_WINDOW", "10ms")
	}
	stderr, log := io.Pipe()
	r := &running{log: make(chan []byte, 1000), exit: make(chan int, 1)}
	go func() {
		defer close(r.log)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			r.log <- bytes.Clone(lines.Bytes())
		}
	}()
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--store", "sqlite:" + db}, flags...)
	go func() {
		r.exit <- run(ctx, args, nil, io.Discard, log)
		log.Close()
	}()
	r.url = r.await(t, "listening")
	return r
}

// await returns the url of the next log entry with this message.
func (r *running) await(t *testing.T, msg string) string {
	t.Helper()
	for line := range r.log {
		var entry struct{ Msg, URL string }
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if entry.Msg == msg {
			return entry.URL
		}
	}
	t.Fatalf("it ended with %d, before it logged %q", <-r.exit, msg)
	return ""
}

// TestServe is the life of a server: it serves, stops at a signal, and has the same
// events after the next start.
func TestServe(t *testing.T) {
	db := filepath.Join(t.TempDir(), "rejoin.db")
	command := func(stdin string, args ...string) (string, string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr); code != exitOK {
			t.Fatalf("%q: exit %d, %s", args, code, stderr.String())
		}
		return stdout.String(), stderr.String()
	}

	ctx, signal := context.WithCancel(t.Context())
	first := runServe(t, ctx, db)
	command("", "health", "--ready", "--url", first.url)
	command("", "health", "--server", first.url)
	if id, _ := command("", "publish", "--feed", "log", "--url", first.url, "one"); id != "1\n" {
		t.Errorf("published with id %q", id)
	}
	if _, summary := command("two\nthree\n", "publish", "--feed", "log", "--url", first.url); summary != "rejoin: published 2 events to log, ids 2 to 3\n" {
		t.Error(summary)
	}
	signal()
	first.await(t, "stopped")
	if code := <-first.exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"health", "--url", first.url}, nil, io.Discard, &stderr); code != exitFailed {
		t.Errorf("a server that has stopped is healthy: exit %d, %s", code, stderr.String())
	}

	ctx, signal = context.WithCancel(t.Context())
	second := runServe(t, ctx, db, "--config", "../../config.yaml")
	out, in := io.Pipe()
	tailCtx, interrupt := context.WithCancel(t.Context())
	tailed := make(chan int, 1)
	go func() {
		tailed <- run(tailCtx, []string{"tail", "--feed", "log", "--from", "-2", "--url", second.url}, nil, in, io.Discard)
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"two", "three"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("tailed %q, want %q", lines.Text(), want)
		}
	}
	// A stream that is open must not keep the server from stopping, and the end of
	// the server must not end the tail.
	signal()
	second.await(t, "stopped")
	if code := <-second.exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
	interrupt()
	if code := <-tailed; code != exitOK {
		t.Errorf("the tail exits with %d", code)
	}
}

// TestServeRefuses: no server starts half configured, and a start that fails closes
// everything that it has opened.
func TestServeRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		args  []string
		code  int
		words string
	}{
		{[]string{"--listen", taken.Addr().String()}, exitFailed, "is Rejoin running already?"},
		{[]string{"--listen", ":0"}, exitUsage, "auth.mode: "},
		{[]string{"--store", "sqlite:" + filepath.Join(t.TempDir(), "none", "rejoin.db")}, exitFailed, "rejoin: open store \""},
		{[]string{"now"}, exitUsage, "serve takes no arguments"},
	} {
		db := filepath.Join(t.TempDir(), "rejoin.db")
		for range 2 { // the store would refuse a second process while it is open
			var stderr bytes.Buffer
			code := run(t.Context(), append([]string{"serve", "--store", "sqlite:" + db}, test.args...), nil, io.Discard, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.words) || strings.Count(stderr.String(), "rejoin: ") != 1 {
				t.Errorf("%q: exit %d, %s", test.args, code, stderr.String())
			}
		}
	}
}

func TestCollectAt(t *testing.T) {
	for _, test := range []struct {
		live uint64
		want int
	}{{0, 400}, {1 << 20, 400}, {4 << 20, 200}, {8 << 20, 100}, {16 << 20, 50}, {1 << 30, 50}} {
		if got := collectAt(test.live); got != test.want {
			t.Errorf("with %d bytes live: got %d, want %d", test.live, got, test.want)
		}
	}
}

// TestPaceCollector: a growing heap changes the pace of the garbage collector.
func TestPaceCollector(t *testing.T) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		t.Fatal("run this test without GOGC and GOMEMLIMIT in the environment")
	}
	defer debug.SetGCPercent(100)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	paceCollector(1<<30, func() int { return 1000 })
	held := make([]byte, 200<<20)
	deadline := time.Now().Add(10 * time.Second)
	for {
		runtime.GC()
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		if percent == 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with %d bytes held, the percentage is still %d", len(held), percent)
		}
	}
	runtime.KeepAlive(held)
	if limit := debug.SetMemoryLimit(-1); limit != 1<<30+overhead+1000*subscriberBytes {
		t.Errorf("the limit is %d", limit)
	}
}

func TestWorthReturning(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		live, heap uint64
		want       bool
	}{{0, 2 * mb, false}, {0, 3 * mb, true}, {10 * mb, 13 * mb, false}, {10 * mb, 14 * mb, true}, {1000 * mb, 1100 * mb, false}, {1000 * mb, 1200 * mb, true}} {
		if got := worthReturning(test.live, test.heap); got != test.want {
			t.Errorf("%d of %d MB live: got %t", test.live/mb, test.heap/mb, got)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchOutcome is how rejoin bench ended.
type benchOutcome struct {
	code           int
	stdout, stderr string
}

// startBench starts rejoin bench in a process of its own. The function that it
// returns waits for its end.
func startBench(t *testing.T, env []string, args ...string) (*exec.Cmd, func() benchOutcome) {
	t.Helper()
	cmd := exec.Command(built(t, false), append([]string{"bench"}, args...)...)
	// A process with the race detector would wait a second at its end.
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=10"), env...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	p := launch(t, cmd)
	return cmd, func() benchOutcome {
		t.Helper()
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
			t.Fatalf("rejoin bench does not end:\n%s", p.log)
		}
		return benchOutcome{cmd.ProcessState.ExitCode(), stdout.String(), p.log.String()}
	}
}

// runBench runs rejoin bench to its end.
func runBench(t *testing.T, args ...string) benchOutcome {
	t.Helper()
	_, wait := startBench(t, nil, args...)
	return wait()
}

// figures reads what --json printed.
func (o benchOutcome) figures(t *testing.T) map[string]any {
	t.Helper()
	var figures map[string]any
	if err := json.Unmarshal([]byte(o.stdout), &figures); err != nil {
		t.Fatalf("%v: %q, %q", err, o.stdout, o.stderr)
	}
	return figures
}

// TestBench runs every mode against a real server, and looks at the figures that
// can be known.
func TestBench(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	pid := fmt.Sprint(p.cmd.Process.Pid)
	clean := map[string]float64{"lost": 0, "repeated": 0, "reordered": 0, "strays": 0, "streams_ended": 0, "publishes_failed": 0}
	for _, test := range []struct {
		name    string
		args    string
		want    map[string]float64
		present string // figures that depend on the machine
	}{
		{
			"fanout", "fanout --subscribers 20 --feeds 4 --publishers 3 --rate 200 --duration 500ms --warmup 100ms",
			map[string]float64{"publishes": 100, "deliveries": 500, "expected": 500, "subscribers": 20, "feeds": 4, "publishers": 3},
			"deliveries_per_second latency_ms publishes_per_second publish_ms open_seconds cpu_us_per_open server_cpu_seconds deliveries_per_cpu_second generator_cpu_seconds",
		},
		{
			"fanout as fast as it goes, in batches, many publishers a feed", "fanout --subscribers 10 --publishers 8 --rate 0 --batch 7 --duration 300ms --warmup 0s --size 1000",
			map[string]float64{"batch": 7},
			"deliveries deliveries_per_second latency_ms",
		},
		{
			"publish", "publish --publishers 8 --feeds 3 --duration 300ms --warmup 50ms",
			map[string]float64{"publishers": 8, "deliveries": 0},
			"publishes publishes_per_second publish_ms publishes_per_cpu_second",
		},
		{
			"publish batches", "publish --publishers 2 --rate 20 --batch 1000 --duration 500ms --warmup 0s",
			map[string]float64{"publishes": 10},
			"events_per_second events_per_cpu_second",
		},
		{
			"resume", "resume --subscribers 30 --feeds 3 --backlog 50 --batch 16",
			map[string]float64{"deliveries": 1500, "expected": 1500, "backlog": 50},
			"catch_up_ms cpu_us_per_resume",
		},
		{
			"idle", "idle --subscribers 30 --feeds 2 --hold 100ms",
			map[string]float64{"deliveries": 30, "publishes": 2},
			"bytes_per_subscriber cpu_us_per_open",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := runBench(t, append(strings.Fields(test.args), "--url", p.url, "--pid", pid, "--json")...)
			if o.code != exitOK || o.stderr != "" {
				t.Fatalf("exit %d, %q", o.code, o.stderr)
			}
			figures := o.figures(t)
			for _, want := range []map[string]float64{clean, test.want} {
				for name, n := range want {
					if figures[name] != n {
						t.Errorf("%s is %v, want %v", name, figures[name], n)
					}
				}
			}
			for name := range strings.FieldsSeq(test.present) {
				if figures[name] == nil || figures[name] == 0.0 {
					t.Errorf("%s is missing", name)
				}
			}
			for _, name := range []string{"latency_ms", "publish_ms", "catch_up_ms"} {
				times, ok := figures[name].(map[string]any)
				if ok && !(0 < times["p50"].(float64) && times["p50"].(float64) <= times["p99"].(float64) && times["p99"].(float64) <= times["max"].(float64)) {
					t.Errorf("%s is %v", name, times)
				}
			}
		})
	}
}

func TestBenchTable(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	o := runBench(t, "fanout", "--url", p.url+"/", "--subscribers", "2", "--rate", "100", "--duration", "100ms", "--warmup", "0s")
	if o.code != exitOK || o.stderr != "" {
		t.Fatalf("exit %d, %q", o.code, o.stderr)
	}
	for _, want := range []string{"fanout on rejoin: 2 subscribers, 1 feed, 1 publisher, 100 publishes/s, 120 bytes, ", "\n  deliveries/s ", "\n  latency, p50 / p99 / max ", "\n  lost / repeated / reordered   0 / 0 / 0\n"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, o.stdout)
		}
	}
	if strings.Contains(o.stdout, "server CPU") {
		t.Errorf("it knows the server's CPU without --pid:\n%s", o.stdout)
	}
}

// TestBenchShowsProgress: at a terminal, and only there, a line a second.
func TestBenchShowsProgress(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(built(t, false), "bench", "fanout", "--url", p.url, "--subscribers", "2", "--duration", "1200ms", "--warmup", "0s")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=10")
	cmd.Stderr = screen
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	screen.Close()
	buf := make([]byte, 4096)
	n, err := terminal.Read(buf)
	if shown := string(buf[:n]); err != nil || !strings.Contains(shown, "published/s") || !strings.Contains(shown, "0 repeated") {
		t.Errorf("at a terminal it shows %q, %v", shown, err)
	}
}

// TestBenchTLSAndToken: a server far away asks for both.
func TestBenchTLSAndToken(t *testing.T) {
	files := certificateFiles(t)
	writeCertificate(t, files)
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		"REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret, "REJOIN_TLS_CERT="+files.Cert, "REJOIN_TLS_KEY="+files.Key)
	token := makeTokenWith(t, built(t, false), "--subscribe", "load:*", "--publish", "load:*")
	env := []string{"SSL_CERT_FILE=" + files.Cert, "REJOIN_TOKEN=" + token}
	args := []string{"fanout", "--url", p.url, "--subscribers", "5", "--rate", "100", "--duration", "200ms", "--warmup", "0s", "--json"}
	_, wait := startBench(t, env, append(args, "--prefix", "load")...)
	if o := wait(); o.code != exitOK || o.figures(t)["deliveries"] != 100.0 {
		t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	_, wait = startBench(t, env, append(args, "--prefix", "other")...)
	if o := wait(); o.code != exitFailed || o.stdout != "" || !strings.Contains(o.stderr, "open subscriber 1 of 5: the server answers 403 Forbidden") {
		t.Errorf("a feed that the token does not allow: exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	_, wait = startBench(t, env[1:], append(args, "--prefix", "load")...)
	if o := wait(); o.code != exitFailed || !strings.Contains(o.stderr, "certificate") {
		t.Errorf("a certificate that nobody vouches for: exit %d, %q", o.code, o.stderr)
	}
}

func TestBenchWithoutServer(t *testing.T) {
	t.Parallel() // it waits for a server most of the time
	for _, mode := range []string{"fanout", "publish", "resume", "idle"} {
		o := runBench(t, mode, "--url", "http://127.0.0.1:1", "--json")
		if o.code != exitFailed || o.stdout != "" || !strings.Contains(o.stderr, "connection refused") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %q, %q", mode, o.code, o.stdout, o.stderr)
		}
	}
}

// awaitBench waits until a run has published to its feed.
func awaitBench(t *testing.T, url string) {
	t.Helper()
	eventuallyPublished(t, url, "bench:")
}

// TestBenchServerGoesAway: what was measured is printed, and what happened is
// said.
func TestBenchServerGoesAway(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	_, wait := startBench(t, nil, "fanout", "--url", p.url, "--subscribers", "20", "--warmup", "0s", "--duration", "1m", "--json")
	awaitBench(t, p.url)
	p.kill()
	o := wait()
	figures := o.figures(t)
	if o.code != exitFailed || figures["streams_ended"] != 20.0 || figures["publishes_failed"] == 0.0 || figures["deliveries"] == 0.0 {
		t.Errorf("exit %d, %s", o.code, o.stdout)
	}
	for _, want := range []string{"connection refused", "20 times: a stream ended early", "a publish failed"} {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("it does not say %q: %s", want, o.stderr)
		}
	}
}

// TestBenchInterrupted: what was measured so far is worth something.
func TestBenchInterrupted(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	cmd, wait := startBench(t, nil, "fanout", "--url", p.url, "--subscribers", "5", "--warmup", "0s", "--duration", "1m")
	awaitBench(t, p.url)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := wait(); o.code != exitOK || !strings.Contains(o.stdout, "warning: interrupted") || !strings.Contains(o.stdout, "0 / 0 / 0") {
		t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
}

func TestBenchInterruptedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, mode := range benchModes {
		var stdout, stderr bytes.Buffer
		code := run(ctx, []string{"bench", mode.name, "--url", "http://127.0.0.1:1"}, nil, &stdout, &stderr)
		if code != exitFailed || stdout.Len() > 0 || !strings.Contains(stderr.String(), "interrupted before anything was measured") {
			t.Errorf("%s: exit %d, %q, %q", mode.name, code, stdout.String(), stderr.String())
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for args, want := range map[string]string{
		"bench fanuot":                               `unknown command "fanuot"`,
		"bench fanout here":                          "unknown command",
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
			t.Errorf("the help does not tell of %s:\n%s", mode.name, stdout.String())
		}
	}
}

// TestBenchProcesses: children count, and what they use is read.
func TestBenchProcesses(t *testing.T) {
	shell := launch(t, exec.Command("sh", "-c", "sleep 60 & wait"))
	var all []int
	for deadline := time.Now().Add(10 * time.Second); len(all) < 2 && time.Now().Before(deadline); {
		all = withChildren([]int{shell.cmd.Process.Pid})
	}
	if len(all) != 2 || memoryOf(all) <= memoryOf(all[1:]) || cpuOf(all) <= 0 {
		t.Errorf("%v use %d bytes and %v", all, memoryOf(all), cpuOf(all))
	}
	if err := errors.Join(checkProcesses(all), checkProcesses([]int{os.Getpid()})); err != nil {
		t.Error(err)
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBench runs every mode against a real server, and looks at the figures that
// can be known.
func TestBench(t *testing.T) {
	t.Parallel()
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
			o := runCommand(t, append(strings.Fields("bench "+test.args), "--url", p.url, "--pid", pid, "--json")...)
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
	o := runCommand(t, "bench", "fanout", "--url", p.url+"/", "--subscribers", "2", "--rate", "100", "--duration", "100ms", "--warmup", "0s")
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

// TestBenchTLSAndToken: a server far away asks for both.
func TestBenchTLSAndToken(t *testing.T) {
	files := newCertificateFiles(t)
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		append(files.env(), "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret)...)
	token := makeTokenWith(t, built(t, false), "--subscribe", "load:*", "--publish", "load:*")
	env := []string{"SSL_CERT_FILE=" + files.cert, "REJOIN_TOKEN=" + token}
	args := []string{"bench", "fanout", "--url", p.url, "--subscribers", "5", "--rate", "100", "--duration", "200ms", "--warmup", "0s", "--json"}
	_, wait := startCommand(t, 30*time.Second, env, append(args, "--prefix", "load")...)
	if o := wait(); o.code != exitOK || o.figures(t)["deliveries"] != 100.0 {
		t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	_, wait = startCommand(t, 30*time.Second, env, append(args, "--prefix", "other")...)
	if o := wait(); o.code != exitFailed || o.stdout != "" || !strings.Contains(o.stderr, "open subscriber 1 of 5: the server answers 403 Forbidden") {
		t.Errorf("a feed that the token does not allow: exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
	_, wait = startCommand(t, 30*time.Second, env[1:], append(args, "--prefix", "load")...)
	if o := wait(); o.code != exitFailed || !strings.Contains(o.stderr, "certificate") {
		t.Errorf("a certificate that nobody vouches for: exit %d, %q", o.code, o.stderr)
	}
}

func TestBenchWithoutServer(t *testing.T) {
	t.Parallel() // it waits for a server most of the time
	for _, mode := range []string{"fanout", "publish", "resume", "idle"} {
		o := runCommand(t, "bench", mode, "--url", "http://127.0.0.1:1", "--json")
		if o.code != exitFailed || o.stdout != "" || !strings.Contains(o.stderr, "connection refused") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %q, %q", mode, o.code, o.stdout, o.stderr)
		}
	}
}

// TestBenchServerGoesAway: what was measured is printed, and what happened is
// said.
func TestBenchServerGoesAway(t *testing.T) {
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	_, wait := startCommand(t, 30*time.Second, nil, "bench", "fanout", "--url", p.url, "--subscribers", "20", "--warmup", "0s", "--duration", "1m", "--json")
	awaitPublished(t, p.url, "bench:", 6)
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
	bench, wait := startCommand(t, 30*time.Second, nil, "bench", "fanout", "--url", p.url, "--subscribers", "5", "--warmup", "0s", "--duration", "1m")
	awaitPublished(t, p.url, "bench:", 6)
	bench.signal(os.Interrupt)
	if o := wait(); o.code != exitOK || !strings.Contains(o.stdout, "warning: interrupted") || !strings.Contains(o.stdout, "0 / 0 / 0") {
		t.Errorf("exit %d, %q, %q", o.code, o.stdout, o.stderr)
	}
}

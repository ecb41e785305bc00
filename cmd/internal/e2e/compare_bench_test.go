package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/bench"
	"golang.org/x/sys/unix"
)

var (
	compareOnly   = flag.String("compare-only", "", "the comparisons to make, as a regular expression; all if it is empty")
	compareRounds = flag.Int("compare-rounds", 3, "how often each is made; the median counts")
)

// comparison is one run of rejoin bench on each server.
type comparison struct {
	name, args string
	figures    []comparedFigure
	ours       bool // nchan has nothing like it
}

// comparedFigure is a figure of the JSON that rejoin bench prints.
type comparedFigure struct{ name, key string }

var comparisons = []comparison{
	{name: "fan-out, 1,000 subscribers, 20 publishes/s", args: "fanout --subscribers 1000 --rate 20 --duration 3s", figures: deliveryFigures},
	{name: "fan-out, 10,000 subscribers, 2 publishes/s", args: "fanout --subscribers 10000 --rate 2 --duration 3s", figures: deliveryFigures},
	{name: "fan-out, 1,000 subscribers, as fast as it goes", args: "fanout --subscribers 1000 --rate 0 --duration 3s", figures: []comparedFigure{
		{"deliveries/s", "deliveries_per_second"},
	}},
	{name: "2,000 feeds of one subscriber, 500 publishes/s", args: "fanout --subscribers 2000 --feeds 2000 --rate 500 --publishers 16 --duration 3s", figures: deliveryFigures},
	{name: "publish, 64 publishers", args: "publish --publishers 64 --duration 3s", figures: publishFigures},
	{name: "publish, 8 publishers, batches of 100", args: "publish --publishers 8 --batch 100 --duration 3s", figures: append([]comparedFigure{
		{"events/s", "events_per_second"},
	}, publishFigures...), ours: true},
	{name: "resume, 2,000 subscribers, 100 events behind", args: "resume --subscribers 2000 --backlog 100", figures: []comparedFigure{
		{"server CPU a subscriber, µs", "cpu_us_per_resume"},
		{"until caught up, p50, ms", "catch_up_ms.p50"},
		{"until caught up, max, ms", "catch_up_ms.max"},
	}},
	{name: "idle, 10,000 subscribers", args: "idle --subscribers 10000 --hold 2s", figures: []comparedFigure{
		{"server memory a subscriber, bytes", "bytes_per_subscriber"},
		{"server CPU to open one, µs", "cpu_us_per_open"},
	}},
}

var (
	deliveryFigures = []comparedFigure{
		{"deliveries per second of server CPU", "deliveries_per_cpu_second"},
		{"latency, p50, ms", "latency_ms.p50"},
		{"latency, p99, ms", "latency_ms.p99"},
	}
	publishFigures = []comparedFigure{
		{"publishes/s", "publishes_per_second"},
		{"publishes per second of server CPU", "publishes_per_cpu_second"},
		{"publish, p99, ms", "publish_ms.p99"},
	}
)

// BenchmarkCompare measures the server beside nchan, where that is installed:
// each server is started anew for each run, on the first core, and driven by
// rejoin bench on the others; the runs take turns.
func BenchmarkCompare(b *testing.B) {
	only, err := regexp.Compile(*compareOnly)
	if err != nil {
		b.Fatal(err)
	}
	servers := []string{"rejoin"}
	if _, err := os.Stat(nchanModule); err == nil {
		servers = append(servers, "nchan")
	}
	for range b.N {
		results := make(map[string][]map[string]any) // by server and comparison
		for round := range *compareRounds {
			for _, c := range comparisons {
				for _, server := range servers {
					if !only.MatchString(c.name) || c.ours && server != "rejoin" {
						continue
					}
					fmt.Fprintf(os.Stderr, "round %d of %d: %s: %s\n", round+1, *compareRounds, server, c.name)
					key := server + c.name
					results[key] = append(results[key], c.run(b, server))
				}
			}
		}
		printComparison(servers, results)
	}
}

// run measures one server once.
func (c comparison) run(b *testing.B, server string) (figures map[string]any) {
	var p *process
	if server == "rejoin" {
		p = serveBenchmark(b)
	} else {
		p = serveNchan(b)
	}
	defer p.kill()
	args := append([]string{"bench"}, strings.Fields(c.args)...)
	args = append(args, "--json", "--server", server, "--url", p.url, "--pid", fmt.Sprint(p.cmd.Process.Pid))
	cmd := exec.Command(built(b, true), args...)
	if cores := runtime.NumCPU(); cores > 1 {
		cmd = exec.Command("taskset", append([]string{"-c", fmt.Sprintf("1-%d", cores-1), built(b, true)}, args...)...)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.Errorf("%s: %s: %v: %s", server, c.name, err, stderr.String())
	}
	if err := json.Unmarshal(out, &figures); err != nil {
		b.Errorf("%s: %s: %v", server, c.name, err)
	}
	return figures
}

// median returns the median of a figure, which may be one of several of a kind,
// as in kind.figure.
func (f comparedFigure) median(results []map[string]any) (median float64, ok bool) {
	var all []float64
	for _, figures := range results {
		kind, name, nested := strings.Cut(f.key, ".")
		if nested {
			figures, _ = figures[kind].(map[string]any)
			kind = name
		}
		if n, ok := figures[kind].(float64); ok {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

// printComparison prints the table, and below it what the runs warned of.
func printComparison(servers []string, results map[string][]map[string]any) {
	const row = "%-50s %11s %11s %7s\n"
	fmt.Printf("\n"+row, "", "rejoin", "nchan", "ratio")
	var warnings []string
	for _, c := range comparisons {
		if len(results["rejoin"+c.name]) == 0 {
			continue
		}
		fmt.Println(c.name)
		for _, f := range c.figures {
			ours, _ := f.median(results["rejoin"+c.name])
			theirs, ok := f.median(results["nchan"+c.name])
			if ok {
				fmt.Printf(row, "  "+f.name, bench.Grouped(ours), bench.Grouped(theirs), fmt.Sprintf("%.2f", ours/theirs))
			} else {
				fmt.Printf(row, "  "+f.name, bench.Grouped(ours), "-", "")
			}
		}
		for _, server := range servers {
			for _, figures := range results[server+c.name] {
				said, _ := figures["warnings"].([]any)
				for _, w := range said {
					warnings = append(warnings, fmt.Sprintf("%s, %s: %v", server, c.name, w))
				}
			}
		}
	}
	fmt.Println("\nA ratio is Rejoin's figure to nchan's. Rejoin answers a publish when it is on disk; nchan keeps it in memory.")
	for _, w := range warnings {
		fmt.Println("warning:", w)
	}
	if len(servers) == 1 {
		fmt.Println("There was nothing to compare with: apt-get install nginx libnginx-mod-nchan")
	}
}

// nchanModule is where Debian's libnginx-mod-nchan puts it.
const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

const nchanConfig = `load_module ` + nchanModule + `;
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile %[3]d;
pid %[1]s/nginx.pid;
events { worker_connections %[4]d; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/client;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	nchan_shared_memory_size 256m;
	server {
		listen %[2]s backlog=4096;
		location ~ ^/sub/(.+)$ {
			nchan_subscriber eventsource;
			nchan_channel_id $1;
			nchan_subscriber_first_message newest;
		}
		location ~ ^/pub/(.+)$ {
			nchan_publisher;
			nchan_channel_id $1;
			nchan_message_buffer_length 1000;
			nchan_message_timeout 1h;
		}
	}
}
`

// serveNchan starts nginx with nchan on the first core, as a process of its own
// that has nothing to do with the service of that name.
func serveNchan(b *testing.B) *process {
	b.Helper()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // nginx wants to be told its port
	dir := b.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	most := min(files.Max, 1<<20)
	if err := os.WriteFile(config, fmt.Appendf(nil, nchanConfig, dir, address, most, most-64), 0o600); err != nil {
		b.Fatal(err)
	}
	p := launch(b, exec.Command("taskset", "-c", "0", "nginx", "-e", "stderr", "-c", config))
	p.url = "http://" + address
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return p
		}
		select {
		case <-p.done:
			b.Fatalf("nginx ended with %v:\n%s", p.err, p.log)
		case <-time.After(10 * time.Millisecond): // until it listens
		}
		if time.Now().After(deadline) {
			b.Fatalf("nginx does not listen: %v\n%s", err, p.log)
		}
	}
}

package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../../.."

// TestMetrics: the metrics of a node with Postgres and Redis, which has all there are,
// are as Prometheus wants them, and as docs/metrics.md describes them. The dashboard and
// the alerts name no others.
func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(1)
	n := c.nodes[0]
	for _, path := range []string{"/v1/feeds/chat/events", "/v1/feeds/BAD%20/events"} {
		resp, err := http.Post(n.url+path, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	text := n.scrape()
	promtool(t, text, "check", "metrics")
	live := parseMetrics(text)
	if len(live) < 60 {
		t.Fatalf("there are only %d metrics", len(live))
	}

	t.Run("docs", func(t *testing.T) {
		described := documentedMetrics(t)
		for name, m := range live {
			if d, ok := described[name]; strings.HasPrefix(name, "rejoin_") && (!ok || d.kind != m.kind || !slices.Equal(d.labels, m.labels)) {
				t.Errorf("docs/metrics.md describes %s as %+v, and it is a %s with the labels %q", name, d, m.kind, m.labels)
			}
		}
		for name := range described {
			if live[name].kind == "" {
				t.Errorf("docs/metrics.md describes %s, which does not exist", name)
			}
		}
		page := ofRoot(t, "docs/metrics.md")
		for _, match := range regexp.MustCompile(`(?m)^rejoin_.*\b(?:reason|path|source|holder|call)="(\w+)"`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(page, "`"+match[1]+"`") {
				t.Errorf("docs/metrics.md does not explain the label of %s", match[0])
			}
		}
	})

	for _, file := range []string{"deploy/grafana/rejoin.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			names := regexp.MustCompile(`\b(?:rejoin|go|process)_\w+`).FindAllString(ofRoot(t, file), -1)
			if len(names) < 10 {
				t.Fatalf("it names only %q", names)
			}
			for _, name := range names {
				if live[name].kind == "" && live[histogramPart.ReplaceAllString(name, "")].kind != "histogram" {
					t.Errorf("there is no metric %s", name)
				}
			}
		})
	}
}

// TestAlerts: Prometheus accepts the rules, and each alert fires when it should.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "rules", filepath.Join(root, "deploy/prometheus/alerts.yml"))
	promtool(t, "", "test", "rules", filepath.Join(root, "deploy/prometheus/alerts_test.yml"))
	tests := ofRoot(t, "deploy/prometheus/alerts_test.yml")
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(ofRoot(t, "deploy/prometheus/alerts.yml"), -1) {
		// Once before it fires, and once when it does.
		if strings.Count(tests, "alertname: "+alert[1]+"\n") < 2 {
			t.Errorf("alerts_test.yml does not test %s", alert[1])
		}
	}
}

// TestDashboard: Grafana can read the dashboard, and no panel lies on another.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Title  string
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(ofRoot(t, "deploy/grafana/rejoin.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var rows []string
	var rules []map[string]string // one with the expression of each target
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("%s: another panel has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			// What Grafana would send.
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", "rejoin", "$instance", ".*").Replace(target.Expr)
			rules = append(rules, map[string]string{"record": "x:" + strconv.Itoa(len(rules)), "expr": expr})
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err := errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", file)
	if want := []string{"Health", "Delivery", "Publishing", "Memory", "Store and bus"}; !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
}

// promtool runs Prometheus's tool.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("this test needs promtool: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// scrape returns all metrics.
func (p *process) scrape() string {
	p.t.Helper()
	resp, err := http.Get(p.adminURL() + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatal(resp.Status, err)
	}
	return string(text)
}

// metricFamily is what a metric is.
type metricFamily struct {
	kind   string
	labels []string // sorted
}

// histogramPart matches the end of a name that a histogram adds to its own.
var histogramPart = regexp.MustCompile(`_(bucket|sum|count)$`)

// parseMetrics returns the metrics of an exposition by name.
func parseMetrics(text string) map[string]metricFamily {
	all := map[string]metricFamily{}
	for line := range strings.Lines(text) {
		if declared, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(declared), " ")
			all[name] = metricFamily{kind: kind}
			continue
		}
		series, _, _ := strings.Cut(line, " ")
		name, labels, _ := strings.Cut(series, "{")
		if bare := histogramPart.ReplaceAllString(name, ""); all[name].kind == "" {
			name = bare
		}
		m, names := all[name], map[string]bool{}
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(labels, -1) {
			if m.kind != "histogram" || label[1] != "le" {
				names[label[1]] = true
			}
		}
		if m.kind != "" {
			m.labels = slices.Sorted(maps.Keys(names))
			all[name] = m
		}
	}
	return all
}

// documentedMetrics returns the metrics in the tables of docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]metricFamily {
	t.Helper()
	all := map[string]metricFamily{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(rejoin_\\w+)` \\| (\\w+) \\| ([^|]*)\\| .+ \\|$").FindAllStringSubmatch(ofRoot(t, "docs/metrics.md"), -1) {
		var labels []string
		for _, label := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		all[row[1]] = metricFamily{row[2], labels}
	}
	return all
}

// ofRoot returns the content of a file of the repository.
func ofRoot(t *testing.T, name string) string {
	t.Helper()
	return readFile(t, filepath.Join(root, name))
}

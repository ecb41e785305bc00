package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// The torture tries to refute that nothing is lost, nothing comes twice and
// nothing out of order: real nodes, real servers, real clients, and faults laid
// over each other by schedules that seeds repeat. docs/torture.md says more.
var (
	tortureSchedules = flag.Int("torture-schedules", 0, "how many schedules the torture runs; 0: as many as there is time for")
	tortureSeed      = flag.Uint64("torture-seed", 0, "the seed of the torture's first schedule, others count up from there; 0: from the clock")
	tortureFor       = flag.Duration("torture-for", 5*time.Second, "for how long the torture begins schedules, if it is not told how many")
	tortureWorldsFor = flag.String("torture-worlds", "", "a regular expression: the torture runs in worlds whose names it matches: redis, postgres, sqlite")
	tortureFaults    = flag.String("torture-faults", "", "a regular expression: the torture lays only faults whose names it matches")
	tortureOut       = flag.String("torture-out", "", "a file to which the torture appends its totals, as a line of JSON")
)

const (
	// tortureWorldEnds is after how many schedules a world is made anew.
	tortureWorldEnds = 25
	// tortureEnough is how many failed schedules tell the story.
	tortureEnough = 3
)

func TestTorture(t *testing.T) {
	var leftOut []string
	switch err := namespaces(); {
	case os.Getenv(insideTorture) != "":
		if err := setUpNamespaces(); err != nil {
			t.Fatal(err)
		}
	case err == nil:
		enterNamespaces(t, tortureArgs())
		return
	default:
		leftOut = []string{"partitions", "disk full"}
		t.Logf("LEFT OUT, because %v: %s", err, strings.Join(leftOut, ", "))
	}
	seed := *tortureSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixMilli())
	}
	for _, text := range []string{*tortureFaults, *tortureWorldsFor} {
		if _, err := regexp.Compile(text); err != nil {
			t.Fatal(err)
		}
	}
	runTorture(t, seed, leftOut)
}

// tortureArgs are the arguments with which the test runs itself again.
func tortureArgs() (args []string) {
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	for _, name := range []string{"test.timeout", "detect-races", "torture-schedules", "torture-seed", "torture-for", "torture-worlds", "torture-faults", "torture-out"} {
		args = append(args, fmt.Sprintf("-%s=%v", name, flag.Lookup(name).Value))
	}
	return args
}

func runTorture(t *testing.T, seed uint64, leftOut []string) {
	totals := newTortureTotals(seed, leftOut)
	enough := func() bool {
		if len(totals.FailedSeeds) >= tortureEnough {
			return true
		}
		if *tortureSchedules > 0 {
			return totals.Schedules >= *tortureSchedules
		}
		return totals.Schedules > 0 && time.Since(totals.Began) >= *tortureFor
	}
	for begun := seed; !enough(); begun = seed + uint64(totals.Schedules) {
		// Worlds end with their subtest.
		t.Run(fmt.Sprintf("from %d", begun), func(t *testing.T) { tortureWorlds(t, totals, enough) })
		if seed+uint64(totals.Schedules) == begun {
			return // it could not even start
		}
	}
	totals.close()
	fmt.Print("torture: ", totals) // also where nobody asked to be told
	if *tortureOut != "" {
		if err := totals.append(*tortureOut); err != nil {
			t.Error(err)
		}
	}
	if p99 := totals.health.Quantile(0.99); p99 > bound(boundHealth) {
		t.Errorf("in health, 1 of 100 deliveries took %v or more, the bound is %v", p99, bound(boundHealth))
	}
	if totals.Deliveries == 0 || totals.Acknowledged == 0 {
		t.Error("nothing was delivered, so nothing is proven")
	}
}

// tortureWorlds runs schedules on one world of each kind.
func tortureWorlds(t *testing.T, totals *tortureTotals, enough func() bool) {
	kinds := slices.Clone(tortureWorldKinds)
	kinds = slices.DeleteFunc(kinds, func(k tortureWorldKind) bool { return !regexp.MustCompile(*tortureWorldsFor).MatchString(k.name) })
	if len(kinds) == 0 {
		t.Fatalf("there is no world that %q matches", *tortureWorldsFor)
	}
	worlds := make(map[string]*tortureWorld)
	defer func() {
		for _, w := range worlds {
			// One may meet a node that is dead as well; all of them, hardly.
			if w.partitions.Load() > 3 && w.lost.Load() == 0 {
				t.Errorf("in %d partitions, no packet was lost", w.partitions.Load())
			}
		}
	}()
	for range tortureWorldEnds {
		if enough() || t.Failed() {
			return // a world that failed once is not to be trusted
		}
		seed := totals.Seed + uint64(totals.Schedules)
		kind := kinds[seed%uint64(len(kinds))]
		w := worlds[kind.name]
		if w == nil {
			w = kind.make(t)
			w.seed = seed
			worlds[kind.name] = w
		}
		s := w.draw(seed)
		report := s.run()
		w.ran++
		totals.add(s, report)
		if report.Violations > 0 {
			t.Error(w.failure(s, report))
		} else if testing.Verbose() {
			t.Logf("seed %d: %d events, %d deliveries, %d gaps, %d ephemeral deliveries\n%s%s", seed, report.Acknowledged, report.Deliveries, report.Gaps, report.Ephemeral, s, apart(report))
		}
	}
}

// apart is what is known of the delays that are judged apart, as lines.
func apart(r *feedtest.Report) string {
	var b strings.Builder
	for _, d := range r.Faults {
		if d.Apart != "" {
			fmt.Fprintf(&b, "\n%d deliveries to clients %s under %s, worst %v", d.Count, d.Apart, cmp.Or(strings.Join(d.Names, " + "), "no fault"), d.Worst)
		}
	}
	return b.String()
}

// failure is all that there is to know of a schedule that found something.
func (w *tortureWorld) failure(s *schedule, r *feedtest.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d violations in the schedule of seed %d. Again:\n", r.Violations, s.seed)
	again := "\tgo test ./cmd/internal/e2e -run 'Torture$' -args -torture-worlds='" + *tortureWorldsFor + "' -torture-faults='" + *tortureFaults + "' -torture-for=" + tortureFor.String() + " -torture-schedules=%d -torture-seed=%d\n"
	fmt.Fprintf(&b, again, 1, s.seed)
	if w.ran > 1 {
		fmt.Fprintf(&b, "or with those before it in its world:\n"+again, s.seed-w.seed+1, w.seed)
	}
	fmt.Fprintf(&b, "the schedule, from %v after its beginning:\n%s\n", tortureHealth, s)
	for _, f := range s.faults {
		fmt.Fprintf(&b, "%s lasted from %s to %s\n", f.Name, f.From.Format(tortureClock), f.Until.Format(tortureClock))
	}
	fmt.Fprintf(&b, "found: %v; the first:\n", r.Kinds)
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f)
	}
	for i, n := range w.nodes {
		lines := n.running().log.lines()
		fmt.Fprintf(&b, "node %d at %s, the end of its log:\n%s\n", i, n.url, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return b.String()
}

const tortureClock = "15:04:05.000"

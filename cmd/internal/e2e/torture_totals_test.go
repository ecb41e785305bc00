package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// tortureTotals is what a run of the torture came to: a line of a file, so that
// runs can be added up.
type tortureTotals struct {
	Began        time.Time                `json:"began"`
	Seconds      float64                  `json:"seconds"`
	Seed         uint64                   `json:"seed"`
	Race         bool                     `json:"race"`
	LeftOut      []string                 `json:"left_out,omitempty"`
	Schedules    int                      `json:"schedules"`
	Acknowledged int                      `json:"acknowledged"`
	Unknown      int                      `json:"unknown"`
	Deliveries   int                      `json:"deliveries"`
	Connections  int                      `json:"connections"`
	Answers      int64                    `json:"answers"`       // to subscribers and readers of pages
	AnswersHTTP2 int64                    `json:"answers_http2"` // those of them over HTTP/2
	Resets       int64                    `json:"resets"`        // of connections that clients share
	Gaps         int                      `json:"gaps"`
	Violations   int                      `json:"violations"`
	FailedSeeds  []uint64                 `json:"failed_seeds,omitempty"`
	Health       *tortureDelay            `json:"health"`
	Faults       map[string]*tortureDelay `json:"faults"`

	health feedtest.Delays
	delays map[string]*feedtest.Delays
}

// tortureDelay is how late events were.
type tortureDelay struct {
	Schedules  int     `json:"schedules"`
	Deliveries int     `json:"deliveries"`
	P99        float64 `json:"p99_ms"`
	Worst      float64 `json:"worst_ms"`
}

func newTortureTotals(seed uint64, leftOut []string) *tortureTotals {
	return &tortureTotals{
		Began: time.Now().UTC().Truncate(time.Second), Seed: seed, Race: *detectRaces, LeftOut: leftOut,
		Health: &tortureDelay{}, Faults: make(map[string]*tortureDelay), delays: make(map[string]*feedtest.Delays),
	}
}

// add adds a schedule.
func (t *tortureTotals) add(s *schedule, r *feedtest.Report) {
	t.Schedules++
	t.Acknowledged += r.Acknowledged
	t.Unknown += r.Unknown
	t.Deliveries += r.Deliveries
	t.Connections += r.Connections
	t.Answers += s.answers.Load()
	t.AnswersHTTP2 += s.answersHTTP2.Load()
	t.Resets += s.shared.resets.Load()
	t.Gaps += r.Gaps
	if t.Violations += r.Violations; r.Violations > 0 {
		t.FailedSeeds = append(t.FailedSeeds, s.seed)
	}
	t.health.Merge(&r.Health)
	t.Health.Schedules++
	names := make(map[string]bool)
	for _, b := range s.blows {
		names[b.name] = true
	}
	for name := range names {
		if t.Faults[name] == nil {
			t.Faults[name], t.delays[name] = &tortureDelay{}, &feedtest.Delays{}
		}
		t.Faults[name].Schedules++
	}
	for i := range r.Faults {
		for _, name := range r.Faults[i].Names {
			t.delays[name].Merge(&r.Faults[i].Delays)
		}
	}
}

// close finishes the figures.
func (t *tortureTotals) close() {
	t.Seconds = time.Since(t.Began).Round(time.Second).Seconds()
	t.Health.set(&t.health)
	for name, d := range t.delays {
		t.Faults[name].set(d)
	}
}

func (d *tortureDelay) set(all *feedtest.Delays) {
	d.Deliveries, d.P99, d.Worst = all.Count, milliseconds(all.Quantile(0.99)), milliseconds(all.Worst)
}

// append appends the totals to a file, as a line.
func (t *tortureTotals) append(name string) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (t *tortureTotals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d schedules from seed %d in %.0f s: %d events acknowledged, %d never known, %d deliveries checked over %d connections, %d gaps, %d violations\n",
		t.Schedules, t.Seed, t.Seconds, t.Acknowledged, t.Unknown, t.Deliveries, t.Connections, t.Gaps, t.Violations)
	fmt.Fprintf(&b, "%d of %d streams and pages came over HTTP/2; shared connections were reset %d times\n", t.AnswersHTTP2, t.Answers, t.Resets)
	fmt.Fprintf(&b, "delivery in health: p99 %v ms, worst %v ms of %d\n", t.Health.P99, t.Health.Worst, t.Health.Deliveries)
	var names []string
	for name := range t.Faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		d := t.Faults[name]
		fmt.Fprintf(&b, "%-50s %4d schedules, %7d deliveries, p99 %8.1f ms, worst %8.1f ms\n", name, d.Schedules, d.Deliveries, d.P99, d.Worst)
	}
	return b.String()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

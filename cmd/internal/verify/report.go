package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// Report is what a verification has come to.
type Report struct {
	Feeds        string             `json:"feeds"` // as a pattern
	Seconds      float64            `json:"seconds"`
	Acknowledged int                `json:"acknowledged"`
	Unknown      int                `json:"unknown"`
	Attempts     int64              `json:"attempts"`
	Subscribers  int                `json:"subscribers"`
	Connections  int                `json:"connections"`
	Deliveries   int                `json:"deliveries"`
	Replayed     int                `json:"replayed"`
	Gaps         int                `json:"gaps"`
	DelayP50     float64            `json:"delay_p50_ms"`
	DelayP99     float64            `json:"delay_p99_ms"`
	DelayWorst   float64            `json:"delay_worst_ms"`
	Violations   int                `json:"violations"`
	Findings     []feedtest.Finding `json:"findings"`
	Left         string             `json:"left,omitempty"` // why the feeds are still there
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// report makes the report of a run from the judge's.
func (v *verification) report(r *feedtest.Report) *Report {
	return &Report{
		Feeds: v.pattern, Seconds: v.took.Round(time.Millisecond).Seconds(),
		Acknowledged: r.Acknowledged, Unknown: r.Unknown, Attempts: v.counts.Attempts.Load(),
		Subscribers: r.Clients, Connections: r.Connections, Deliveries: r.Deliveries, Replayed: r.Replays, Gaps: r.Gaps,
		DelayP50: milliseconds(r.Health.Quantile(0.5)), DelayP99: milliseconds(r.Health.Quantile(0.99)), DelayWorst: milliseconds(r.Health.Worst),
		Violations: r.Violations, Findings: append([]feedtest.Finding{}, r.Findings...), Left: v.left,
	}
}

// Err returns an error unless the run has shown that all is well.
func (r *Report) Err() error {
	switch {
	case r.Violations > 0:
		return fmt.Errorf("verify: %d violations", r.Violations)
	case r.Acknowledged == 0 || r.Deliveries == 0:
		return errors.New("verify: nothing was delivered, so nothing is proven")
	}
	return nil
}

// Print prints the report as a table, or as one line of JSON.
func (r *Report) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, name+"\t"+format+"\n", args...) // Flush says what failed
	}
	row("feeds", "%s", r.Feeds)
	row("published for", "%.0f s", r.Seconds)
	row("acknowledged", "%d events, in %d attempts", r.Acknowledged, r.Attempts)
	row("never known", "%d events", r.Unknown)
	row("checked", "%d deliveries to %d subscribers over %d connections", r.Deliveries, r.Subscribers, r.Connections)
	row("of these", "%d replayed to who came back, %d gaps", r.Replayed, r.Gaps)
	row("delay", "%.1f ms (median), %.1f ms (99 of 100), %.1f ms at worst", r.DelayP50, r.DelayP99, r.DelayWorst)
	row("violations", "%d", r.Violations)
	for _, f := range r.Findings {
		row("", "%v", f)
	}
	return table.Flush()
}

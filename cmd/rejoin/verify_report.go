package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// verdict is the report of rejoin verify as JSON has it.
type verdict struct {
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

// report prints what was found. It returns an error if that is not all good.
func (v *verification) report(r *feedtest.Report) error {
	all := verdict{
		Feeds: v.prefix + "*", Seconds: v.took.Round(time.Millisecond).Seconds(),
		Acknowledged: r.Acknowledged, Unknown: r.Unknown, Attempts: v.counts.attempts.Load(),
		Subscribers: r.Clients, Connections: r.Connections, Deliveries: r.Deliveries, Replayed: r.Replays, Gaps: r.Gaps,
		DelayP50: milliseconds(r.Health.Quantile(0.5)), DelayP99: milliseconds(r.Health.Quantile(0.99)), DelayWorst: milliseconds(r.Health.Worst),
		Violations: r.Violations, Findings: append([]feedtest.Finding{}, r.Findings...), Left: v.left,
	}
	print := v.printTable
	if v.json {
		print = v.printJSON
	}
	if err := print(all); err != nil {
		return fmt.Errorf("write standard output: %w", err)
	}
	switch {
	case r.Violations > 0:
		return fmt.Errorf("verify: %d violations", r.Violations)
	case r.Acknowledged == 0 || r.Deliveries == 0:
		return errors.New("verify: nothing was delivered, so nothing is proven")
	}
	return nil
}

func (v *verification) printJSON(all verdict) error {
	encoder := json.NewEncoder(v.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(all)
}

func (v *verification) printTable(all verdict) error {
	table := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, name+"\t"+format+"\n", args...) // Flush says what failed
	}
	row("feeds", "%s", all.Feeds)
	row("published for", "%.0f s", all.Seconds)
	row("acknowledged", "%d events, in %d attempts", all.Acknowledged, all.Attempts)
	row("never known", "%d events", all.Unknown)
	row("checked", "%d deliveries to %d subscribers over %d connections", all.Deliveries, all.Subscribers, all.Connections)
	row("of these", "%d replayed to who came back, %d gaps", all.Replayed, all.Gaps)
	row("delay", "%.1f ms (median), %.1f ms (99 of 100), %.1f ms at worst", all.DelayP50, all.DelayP99, all.DelayWorst)
	row("violations", "%d", all.Violations)
	for _, f := range all.Findings {
		row("", "%v", f)
	}
	return table.Flush()
}

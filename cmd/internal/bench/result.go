package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is what a run came to. What does not apply to its mode, or was
// not asked for, is absent.
type Result struct {
	Mode        Mode    `json:"mode"`
	Server      string  `json:"server"`
	Subscribers int     `json:"subscribers,omitzero"`
	Feeds       int     `json:"feeds"`
	Publishers  int     `json:"publishers"`
	Batch       int     `json:"batch"`
	Rate        float64 `json:"rate"` // publishes a second that were asked for
	Size        int     `json:"size"` // bytes of data an event
	Backlog     int     `json:"backlog,omitzero"`

	Seconds    float64      `json:"seconds"`
	Deliveries int64        `json:"deliveries"`
	Expected   int64        `json:"expected"`
	PerSecond  float64      `json:"deliveries_per_second"`
	Latency    *Percentiles `json:"latency_ms,omitempty"`

	Lost      int64 `json:"lost"`
	Repeated  int64 `json:"repeated"`
	Reordered int64 `json:"reordered"`
	Strays    int64 `json:"strays"` // data that is not of this run, or without an id
	Ended     int64 `json:"streams_ended"`
	Failed    int64 `json:"publishes_failed"`

	Publishes          int64        `json:"publishes"`
	PublishesPerSecond float64      `json:"publishes_per_second"`
	EventsPerSecond    float64      `json:"events_per_second"`
	Answer             *Percentiles `json:"publish_ms,omitempty"`

	CatchUp     *Percentiles `json:"catch_up_ms,omitempty"`
	OpenSeconds float64      `json:"open_seconds,omitzero"`

	// Of the server, with --pid:
	OpenCPU       *float64 `json:"cpu_us_per_open,omitempty"`
	ResumeCPU     *float64 `json:"cpu_us_per_resume,omitempty"`
	Memory        *float64 `json:"bytes_per_subscriber,omitempty"`
	ServerCPU     *float64 `json:"server_cpu_seconds,omitempty"`
	PerCPU        *float64 `json:"deliveries_per_cpu_second,omitempty"`
	PublishesCPU  *float64 `json:"publishes_per_cpu_second,omitempty"`
	EventsPerCPU  *float64 `json:"events_per_cpu_second,omitempty"`
	GeneratorCPU  float64  `json:"generator_cpu_seconds"`
	GeneratorBusy float64  `json:"generator_busy"` // share of the time of its cores
	Warnings      []string `json:"warnings,omitempty"`
	measured      bool
}

// Percentiles is how long something took, in milliseconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func summary(h *histogram) *Percentiles {
	ms := func(d time.Duration) float64 { return math.Round(float64(d)/1e3) / 1e3 }
	max := time.Duration(h.most.Load())
	if max == 0 {
		return nil
	}
	return &Percentiles{ms(h.quantile(.5)), ms(h.quantile(.99)), ms(max)}
}

// take takes over what was measured in a stretch, of which the publishers were
// at work for a part.
func (x *Result) take(m *meter, use usage, published time.Duration, server bool) {
	x.measured = true
	x.Seconds = use.wall.Seconds()
	x.Deliveries, x.Expected = m.delivered(), m.expected.Load()
	x.PerSecond = float64(x.Deliveries) / x.Seconds
	x.Latency, x.Answer, x.CatchUp = summary(m.latency()), summary(&m.answer), summary(&m.returned)
	x.Publishes = m.published.Load()
	if published > 0 {
		x.PublishesPerSecond = float64(x.Publishes) / published.Seconds()
		x.EventsPerSecond = float64(m.events.Load()) / published.Seconds()
	}
	x.GeneratorCPU = use.self.Seconds()
	x.GeneratorBusy = x.GeneratorCPU / x.Seconds / float64(runtime.GOMAXPROCS(0))
	if cpu := use.server.Seconds(); server && cpu > 0 {
		x.ServerCPU = new(cpu)
		x.PerCPU = new(float64(x.Deliveries) / cpu)
		x.PublishesCPU = new(float64(x.Publishes) / cpu)
		x.EventsPerCPU = new(float64(m.events.Load()) / cpu)
		if x.Mode == Resume {
			x.ResumeCPU = new(cpu * 1e6 / float64(x.Subscribers))
			x.Latency = nil // how old a backlog is says nothing
		}
	}
}

func (x *Result) warn(format string, args ...any) {
	x.Warnings = append(x.Warnings, fmt.Sprintf(format, args...))
}

// failure returns an error if something happened that should not.
func (x *Result) failure(faults *faults) error {
	var all []error
	if x.Lost+x.Repeated+x.Reordered > 0 {
		all = append(all, fmt.Errorf("%d lost, %d repeated, %d reordered", x.Lost, x.Repeated, x.Reordered))
	}
	if x.Strays > 0 {
		all = append(all, fmt.Errorf("%d events are not of this run, or have no id", x.Strays))
	}
	if err := faults.firstEnd.Load(); err != nil {
		all = append(all, fmt.Errorf("%d times: %w", x.Ended, *err))
	}
	if err := faults.firstFailure.Load(); err != nil {
		all = append(all, fmt.Errorf("%d times: %w", x.Failed, *err))
	}
	return errors.Join(all...)
}

// Print prints the result as a table, or as one line of JSON.
func (x *Result) Print(out io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(x)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, x.title())
	for _, row := range x.rows() {
		fmt.Fprintf(table, "  %s\t%s\n", row[0], row[1])
	}
	for _, w := range x.Warnings {
		fmt.Fprintln(table, "warning:", w)
	}
	return table.Flush()
}

func (x *Result) title() string {
	parts := []string{string(x.Mode) + " on " + x.Server + ":"}
	add := func(n int, what string) {
		if n != 1 {
			what += "s"
		}
		parts = append(parts, Grouped(float64(n)), what+",")
	}
	if x.Subscribers > 0 {
		add(x.Subscribers, "subscriber")
	}
	add(x.Feeds, "feed")
	if x.Backlog > 0 {
		parts = append(parts, Grouped(float64(x.Backlog)), "events behind,")
	}
	if x.Mode == Fanout || x.Mode == Publish {
		add(x.Publishers, "publisher")
	}
	if x.Batch > 1 {
		parts = append(parts, "batches of", Grouped(float64(x.Batch))+",")
	}
	if x.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%g publishes/s,", x.Rate))
	}
	return strings.Join(parts, " ") + fmt.Sprintf(" %d bytes, %.1f s", x.Size, x.Seconds)
}

// rows are the lines of the table that say something about the mode.
func (x *Result) rows() (rows [][2]string) {
	add := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	number := func(name string, value *float64) {
		if value != nil {
			add(name, "%s", Grouped(*value))
		}
	}
	times := func(name string, d *Percentiles) {
		if d != nil {
			add(name+", p50 / p99 / max", "%.2f / %.2f / %.2f ms", d.P50, d.P99, d.Max)
		}
	}
	if x.Subscribers > 0 {
		if x.Mode != Idle {
			add("deliveries/s", "%s", Grouped(x.PerSecond))
			number("deliveries per second of server CPU", x.PerCPU)
		}
		times("latency", x.Latency)
		times("catching up", x.CatchUp)
		add("opening all", "%.2f s", x.OpenSeconds)
		if x.Mode == Resume {
			number("server CPU a subscriber, µs", x.ResumeCPU)
		} else {
			number("server CPU to open one, µs", x.OpenCPU)
		}
		number("server memory a subscriber, bytes", x.Memory)
	}
	add("lost / repeated / reordered", "%s / %s / %s", Grouped(float64(x.Lost)), Grouped(float64(x.Repeated)), Grouped(float64(x.Reordered)))
	if x.Mode == Fanout || x.Mode == Publish {
		add("publishes/s", "%s", Grouped(x.PublishesPerSecond))
		if x.Batch > 1 {
			add("events/s", "%s", Grouped(x.EventsPerSecond))
		}
		times("publish", x.Answer)
	}
	if x.Mode == Publish {
		number("publishes per second of server CPU", x.PublishesCPU)
	}
	if x.ServerCPU != nil {
		add("server CPU", "%.0f %% of a core", 100**x.ServerCPU/x.Seconds)
	}
	add("generator CPU", "%.0f %% of %d", 100*x.GeneratorCPU/x.Seconds, runtime.GOMAXPROCS(0))
	return rows
}

// Grouped writes a number with commas, and with digits behind the point only
// if it is small.
func Grouped(f float64) string {
	if math.Abs(f) < 100 && f != math.Trunc(f) {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(math.Abs(f), 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	if f < 0 {
		return "-" + digits
	}
	return digits
}

// showProgress writes a line a second to out, if that is not nil, until the
// function that it returns is called.
func (r *run) showProgress(out io.Writer) (stop func()) {
	if out == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		var last *meter
		var delivered, events int64
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			m := r.meter.Load()
			if m != last {
				last, delivered, events = m, 0, 0
			}
			d, e := m.delivered(), m.events.Load()
			fmt.Fprintf(out, "%4.0f s: %s published/s, %s delivered/s, %s to come; %d repeated, %d reordered, %d failed\n", r.now().Seconds(),
				Grouped(float64(e-events)), Grouped(float64(d-delivered)), Grouped(float64(max(0, m.expected.Load()-d))),
				r.faults.repeated.Load(), r.faults.reordered.Load(), r.faults.failed.Load())
			delivered, events = d, e
		}
	}()
	return func() { close(done); <-ended }
}

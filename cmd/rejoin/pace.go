package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// headroom is how much garbage a node may have, at least, before it is collected.
const headroom = 8 << 20

// paceCollector has the collector's pace follow what is in use: by Go's measure,
// twice that, a node with little in use collects all the time, and one that holds
// thousands of idle streams keeps as much memory again for nothing. GOGC in the
// environment is left alone.
func paceCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	p := &pace{sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, percent: 100}
	p.follow(&cycle{})
}

// pace is touched by the goroutine of finalizers alone.
type pace struct {
	sample  []metrics.Sample
	percent int
}

// cycle is garbage from the start: that it is found means that a collection has
// ended.
type cycle struct{ _ *cycle }

func (p *pace) follow(c *cycle) {
	runtime.SetFinalizer(c, func(c *cycle) {
		metrics.Read(p.sample)
		// Each change stops all goroutines for a moment.
		if percent := collectAt(p.sample[0].Value.Uint64()); percent*10 < p.percent*9 || percent*9 > p.percent*10 {
			p.percent = percent
			debug.SetGCPercent(percent)
		}
		p.follow(c)
	})
}

// collectAt returns the percentage of live bytes by which the heap may grow.
func collectAt(live uint64) int {
	const most = 400 // of a node with nothing to do
	return int(min(max(headroom*100/max(live, 1), 50), most))
}

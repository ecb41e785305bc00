package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// headroom is how much garbage a node may have, at least, before it is collected.
const headroom = 8 << 20

// overhead is what a node takes beyond its budget and its subscribers, with garbage,
// and subscriberBytes what it takes for each subscriber.
const (
	overhead        = 18 << 20
	subscriberBytes = 2 << 10
)

// paceCollector makes the collector's pace follow what is in use: at Go's pace, a node
// with little in use collects all the time, and one that holds thousands of idle
// streams keeps as much memory again for nothing. Garbage does not take the process
// beyond its budget. GOGC and GOMEMLIMIT in the environment are left alone.
func paceCollector(budget int, subscribers func() int) {
	p := &pace{sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, percent: 100, budget: budget, subscribers: subscribers}
	current.Store(p)
	p.follow(&cycle{})
}

// current is the pace of the node that was started last, if there were several.
var current atomic.Pointer[pace]

// pace is touched by the goroutine of finalizers alone.
type pace struct {
	sample      []metrics.Sample
	percent     int
	budget      int
	subscribers func() int
}

// cycle is garbage from the start: that it is found means that a collection has
// ended.
type cycle struct{ _ *cycle }

func (p *pace) follow(c *cycle) {
	runtime.SetFinalizer(c, func(c *cycle) {
		if current.Load() == p {
			p.adjust()
			p.follow(c)
		}
	})
}

func (p *pace) adjust() {
	metrics.Read(p.sample)
	// Each change stops all goroutines for a moment.
	if percent := collectAt(p.sample[0].Value.Uint64()); os.Getenv("GOGC") == "" && (percent*10 < p.percent*9 || percent*9 > p.percent*10) {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	if limit := int64(p.budget + overhead + p.subscribers()*subscriberBytes); os.Getenv("GOMEMLIMIT") == "" && limit != debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(limit)
	}
}

// collectAt returns the percentage of live bytes by which the heap may grow.
func collectAt(live uint64) int {
	const most = 400 // of a node with nothing to do
	return int(min(max(headroom*100/max(live, 1), 50), most))
}

// quietEvery is how often a node looks whether it is quiet, and quietBytes the most that it
// has allocated in that time if it is.
const (
	quietEvery = 5 * time.Second
	quietBytes = 1 << 20
)

// returnMemory gives memory back to the system when the node has become quiet, until ctx
// ends. Otherwise the garbage of the last requests stays until the next collection, which
// a quiet node hardly needs, and what handshakes have taken stays with the process.
func returnMemory(ctx context.Context) {
	sample := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	ticker := time.NewTicker(quietEvery)
	defer ticker.Stop()
	for last := uint64(0); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(sample)
		allocated, live, objects, free := sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64(), sample[3].Value.Uint64()
		if allocated-last < quietBytes && worthReturning(live, objects+free) {
			debug.FreeOSMemory()
		}
		last = allocated
	}
}

// worthReturning reports whether so much of the heap is garbage or free that a collection,
// which has to visit all that is live, pays.
func worthReturning(live, heap uint64) bool { return heap > live+live/8+headroom/4 }

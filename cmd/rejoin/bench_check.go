package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// benchOrder follows numbers that should come once each, one after another.
type benchOrder struct {
	last uint64 // the highest that has come
	seen uint64 // bit i says that last-i has come
}

// benchVerdict is what is wrong with a number.
type benchVerdict int

const (
	inOrder  benchVerdict = iota // it is higher than all before it
	repeated                     // it has come before, or is too far behind to tell
	late                         // a higher one came before it
)

// orderAfter expects what follows n.
func orderAfter(n uint64) benchOrder { return benchOrder{last: n, seen: ^uint64(0)} }

func (o *benchOrder) step(n uint64) benchVerdict {
	if n > o.last {
		// Shifting by 64 or more leaves nothing.
		o.seen = o.seen<<(n-o.last) | 1
		o.last = n
		return inOrder
	}
	behind := o.last - n
	if behind >= 64 || o.seen>>behind&1 == 1 {
		return repeated
	}
	o.seen |= 1 << behind
	return late
}

// benchHistogram counts durations, each within 3 % of itself. It may be used
// by several goroutines at once.
type benchHistogram struct {
	counts [64 * benchSteps]atomic.Uint64 // 32 for each power of two of nanoseconds
	most   atomic.Int64
}

const benchSteps = 32

func (h *benchHistogram) add(d time.Duration) {
	h.counts[benchSlot(d)].Add(1)
	for most := h.most.Load(); int64(d) > most; most = h.most.Load() {
		if h.most.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

func benchSlot(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < benchSteps {
		return int(n)
	}
	shift := bits.Len64(n) - 6 // leaves six digits, the first of which is 1
	return shift*benchSteps + int(n>>shift)
}

// slotEnd returns the longest duration of a slot.
func slotEnd(slot int) time.Duration {
	if slot < benchSteps {
		return time.Duration(slot)
	}
	shift := slot/benchSteps - 1
	return time.Duration(uint64(slot-shift*benchSteps+1)<<shift - 1)
}

// quantile returns how long all but the share 1-q took at most.
func (h *benchHistogram) quantile(q float64) time.Duration {
	var total uint64
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	left := uint64(q * float64(total))
	for i := range h.counts {
		n := h.counts[i].Load()
		if n > left {
			return min(slotEnd(i), time.Duration(h.most.Load()))
		}
		left -= n
	}
	return time.Duration(h.most.Load())
}

// merge adds what another one counted.
func (h *benchHistogram) merge(other *benchHistogram) {
	for i := range h.counts {
		h.counts[i].Add(other.counts[i].Load())
	}
	h.most.Store(max(h.most.Load(), other.most.Load()))
}

// benchShard counts deliveries. There are several of them, so that readers on
// different cores do not fight for one.
type benchShard struct {
	delivered atomic.Int64
	latency   benchHistogram
}

// benchMeter counts what happens in one stretch of a run.
type benchMeter struct {
	shards    []benchShard
	published atomic.Int64 // publishes accepted
	events    atomic.Int64 // the events in them
	expected  atomic.Int64 // deliveries of these
	answer    benchHistogram
	returned  benchHistogram // how long subscribers took to catch up
}

func newBenchMeter(shards int) *benchMeter { return &benchMeter{shards: make([]benchShard, shards)} }

func (m *benchMeter) delivered() (n int64) {
	for i := range m.shards {
		n += m.shards[i].delivered.Load()
	}
	return n
}

func (m *benchMeter) latency() *benchHistogram {
	all := &benchHistogram{}
	for i := range m.shards {
		all.merge(&m.shards[i].latency)
	}
	return all
}

// benchFaults counts what should not happen, over the whole run.
type benchFaults struct {
	repeated, reordered, strays, ended, failed atomic.Int64
	firstEnd, firstFailure                     atomic.Pointer[error]
}

// note counts a fault and keeps the first error.
func note(count *atomic.Int64, first *atomic.Pointer[error], err error) {
	count.Add(1)
	first.CompareAndSwap(nil, &err)
}

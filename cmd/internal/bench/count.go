package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// order follows numbers that should come once each, one after another.
type order struct {
	last uint64 // the highest that has come
	seen uint64 // bit i says that last-i has come
}

// verdict is what is wrong with a number.
type verdict int

const (
	inOrder  verdict = iota // it is higher than all before it
	repeated                // it has come before, or is too far behind to tell
	late                    // a higher one came before it
)

// orderAfter expects what follows n.
func orderAfter(n uint64) order { return order{last: n, seen: ^uint64(0)} }

func (o *order) step(n uint64) verdict {
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

// histogram counts durations, each within 3 % of itself. It may be used
// by several goroutines at once.
type histogram struct {
	counts [64 * steps]atomic.Uint64 // 32 for each power of two of nanoseconds
	most   atomic.Int64
}

const steps = 32

func (h *histogram) add(d time.Duration) {
	h.counts[slotOf(d)].Add(1)
	for most := h.most.Load(); int64(d) > most; most = h.most.Load() {
		if h.most.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

func slotOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < steps {
		return int(n)
	}
	shift := bits.Len64(n) - 6 // leaves six digits, the first of which is 1
	return shift*steps + int(n>>shift)
}

// slotEnd returns the longest duration of a slot.
func slotEnd(slot int) time.Duration {
	if slot < steps {
		return time.Duration(slot)
	}
	shift := slot/steps - 1
	return time.Duration(uint64(slot-shift*steps+1)<<shift - 1)
}

// quantile returns how long all but the share 1-q took at most.
func (h *histogram) quantile(q float64) time.Duration {
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
func (h *histogram) merge(other *histogram) {
	for i := range h.counts {
		h.counts[i].Add(other.counts[i].Load())
	}
	h.most.Store(max(h.most.Load(), other.most.Load()))
}

// shard counts deliveries. There are several of them, so that readers on
// different cores do not fight for one.
type shard struct {
	delivered atomic.Int64
	latency   histogram
}

// meter counts what happens in one stretch of a run.
type meter struct {
	shards    []shard
	published atomic.Int64 // publishes accepted
	events    atomic.Int64 // the events in them
	expected  atomic.Int64 // deliveries of these
	answer    histogram
	returned  histogram // how long subscribers took to catch up
}

func newMeter(shards int) *meter { return &meter{shards: make([]shard, shards)} }

func (m *meter) delivered() (n int64) {
	for i := range m.shards {
		n += m.shards[i].delivered.Load()
	}
	return n
}

func (m *meter) latency() *histogram {
	all := &histogram{}
	for i := range m.shards {
		all.merge(&m.shards[i].latency)
	}
	return all
}

// faults counts what should not happen, over the whole run.
type faults struct {
	repeated, reordered, strays, ended, failed atomic.Int64
	firstEnd, firstFailure                     atomic.Pointer[error]
}

// note counts a fault and keeps the first error.
func note(count *atomic.Int64, first *atomic.Pointer[error], err error) {
	count.Add(1)
	first.CompareAndSwap(nil, &err)
}

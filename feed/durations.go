package feed

import (
	"context"
	"sync/atomic"
	"time"
)

// Durations is a histogram of durations. Adding one costs two atomic additions. The zero
// value is ready for use, and safe for concurrent use.
type Durations struct {
	counts [len(durationBounds) + 1]atomic.Uint64 // the last one is above all bounds
	sum    atomic.Int64                           // nanoseconds
}

// durationBounds are the upper bounds of the buckets: from a read of memory to the delay
// that a fault may cause.
var durationBounds = [...]time.Duration{
	200 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Observe adds a duration. A negative one counts as 0: the clocks of nodes differ.
func (d *Durations) Observe(took time.Duration) {
	took = max(took, 0)
	i := 0
	for i < len(durationBounds) && took > durationBounds[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}

// Since adds the time since began.
func (d *Durations) Since(began time.Time) { d.Observe(time.Since(began)) }

// Read returns how many durations there are, their sum in seconds, and for each upper
// bound in seconds how many are not above it.
func (d *Durations) Read() (buckets map[float64]uint64, count uint64, sum float64) {
	buckets = make(map[float64]uint64, len(durationBounds))
	for i, bound := range durationBounds {
		count += d.counts[i].Load()
		buckets[bound.Seconds()] = count
	}
	count += d.counts[len(durationBounds)].Load()
	return buckets, count, time.Duration(d.sum.Load()).Seconds()
}

// DurationCounts has how many durations were in each bucket of a Durations.
type DurationCounts [len(durationBounds) + 1]uint64

// Counts returns the counts at this moment.
func (d *Durations) Counts() (c DurationCounts) {
	for i := range c {
		c[i] = d.counts[i].Load()
	}
	return c
}

// Plus returns the sums of both counts.
func (c DurationCounts) Plus(other DurationCounts) DurationCounts {
	for i, n := range other {
		c[i] += n
	}
	return c
}

// Minus returns the counts since earlier ones.
func (c DurationCounts) Minus(earlier DurationCounts) DurationCounts {
	for i, n := range earlier {
		c[i] -= n
	}
	return c
}

// Quantile returns about the duration that the share q of all is not above: within a
// bucket, durations count as evenly spread. ok is false if there are none.
func (c DurationCounts) Quantile(q float64) (d time.Duration, ok bool) {
	total := uint64(0)
	for _, n := range c {
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank, lower := q*float64(total), time.Duration(0)
	for i, upper := range durationBounds {
		if n := float64(c[i]); rank <= n && n > 0 {
			return lower + time.Duration(float64(upper-lower)*rank/n), true
		}
		rank -= float64(c[i])
		lower = upper
	}
	return lower, true // above all bounds
}

// StoreCall is a kind of call of a store.
type StoreCall int

// The kinds of calls. Each is a method of [Store] or [RetentionStore], but for
// CallCompare, which is the Ends of a [Comparer].
const (
	CallAppend StoreCall = iota
	CallRead
	CallBounds
	CallCompare
	CallSeek
	CallList
	CallTrim
	CallSweep
	storeCalls
)

// String returns the call's name in metrics.
func (c StoreCall) String() string {
	return [storeCalls]string{"append", "read", "bounds", "compare", "seek", "list", "trim", "sweep"}[c]
}

// StoreCalls returns all kinds of calls.
func StoreCalls() []StoreCall {
	return []StoreCall{CallAppend, CallRead, CallBounds, CallCompare, CallSeek, CallList, CallTrim, CallSweep}
}

// StoreTimes returns how long the hub's calls of the store took, and those of its
// publishers and its retention, with calls that failed.
func (h *Hub) StoreTimes(c StoreCall) *Durations { return &h.store.times[c] }

// CommitTimes returns how long the appends took that succeeded.
func (h *Hub) CommitTimes() *Durations { return h.store.commits }

// timedStore is a Store that measures its calls.
type timedStore struct {
	Store
	times   *[storeCalls]Durations
	commits *Durations
}

func (s timedStore) Append(ctx context.Context, batches []Batch) ([]Result, error) {
	began := time.Now()
	results, err := s.Store.Append(ctx, batches)
	s.times[CallAppend].Since(began)
	if err == nil {
		s.commits.Since(began)
	}
	return results, err
}

func (s timedStore) Read(ctx context.Context, feed string, after ID, limit Limit) (Page, error) {
	defer s.times[CallRead].Since(time.Now())
	return s.Store.Read(ctx, feed, after, limit)
}

func (s timedStore) Bounds(ctx context.Context, feeds []string) ([]Bounds, error) {
	defer s.times[CallBounds].Since(time.Now())
	return s.Store.Bounds(ctx, feeds)
}

func (s timedStore) Seek(ctx context.Context, feed string, t time.Time) (ID, error) {
	defer s.times[CallSeek].Since(time.Now())
	return s.Store.Seek(ctx, feed, t)
}

// ends calls the store's Ends.
func (s timedStore) ends(ctx context.Context, c Comparer, places []Place) ([]End, error) {
	defer s.times[CallCompare].Since(time.Now())
	return c.Ends(ctx, places)
}

// timedRetentionStore is a RetentionStore that measures the calls which a Store has not,
// except for RunExclusive, which takes as long as the function that it runs.
type timedRetentionStore struct {
	RetentionStore
	times *[storeCalls]Durations
}

func (s timedRetentionStore) List(ctx context.Context, prefix, after string, limit int) (FeedList, error) {
	defer s.times[CallList].Since(time.Now())
	return s.RetentionStore.List(ctx, prefix, after, limit)
}

func (s timedRetentionStore) Trim(ctx context.Context, feed string, before ID) error {
	defer s.times[CallTrim].Since(time.Now())
	return s.RetentionStore.Trim(ctx, feed, before)
}

func (s timedRetentionStore) Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error) {
	defer s.times[CallSweep].Since(time.Now())
	return s.RetentionStore.Sweep(ctx, limit, window)
}

package feedtest

import (
	"math/bits"
	"time"
)

// Delays counts delays, each known to an eighth of itself. The zero value is
// empty.
type Delays struct {
	Count int
	Worst time.Duration
	// by the position of the highest bit of the µs, and the three bits behind it
	buckets [64 * 8]int
}

func (d *Delays) add(delay time.Duration) {
	delay = max(0, delay)
	d.Count++
	d.Worst = max(d.Worst, delay)
	d.buckets[bucketOf(delay)]++
}

// Merge adds the delays that another has counted.
func (d *Delays) Merge(other *Delays) {
	d.Count += other.Count
	d.Worst = max(d.Worst, other.Worst)
	for i, n := range other.buckets {
		d.buckets[i] += n
	}
}

// Quantile returns a delay that the part q of all do not exceed, at most an
// eighth too long.
func (d *Delays) Quantile(q float64) time.Duration {
	rest := min(int(float64(d.Count)*(1-q)), d.Count-1)
	for i := len(d.buckets) - 1; i >= 0; i-- {
		if rest -= d.buckets[i]; rest < 0 {
			return min(d.Worst, topOf(i))
		}
	}
	return 0
}

func bucketOf(delay time.Duration) int {
	us := uint64(delay.Microseconds())
	if us < 8 {
		return int(us)
	}
	high := bits.Len64(us) - 1
	return (high-2)*8 + int(us>>(high-3))&7
}

// topOf returns the end of a bucket.
func topOf(bucket int) time.Duration {
	if bucket < 8 {
		return time.Duration(bucket+1) * time.Microsecond
	}
	high := bucket/8 + 2
	return time.Duration((8+bucket%8+1)<<(high-3)) * time.Microsecond
}

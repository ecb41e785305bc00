package feed

import (
	"context"
	"fmt"
	"time"
)

const (
	// clockMargin allows for a clock that is set by a leap second, and a hundredth
	// of the time that has passed for clocks that are being brought into step.
	clockMargin = time.Second

	// commitMost is the longest that the commit of an append is taken to last. A
	// store that stands still may hold it up for about as long.
	commitMost = 10 * time.Minute
)

// storeClock is the time that the clock of the store showed, and the time at which this
// process had the answer.
type storeClock struct{ shown, at time.Time }

// before returns what the clock of the store showed at a moment of this process,
// or less.
func (c storeClock) before(moment time.Time) time.Time {
	// The monotonic clock stands still while the machine sleeps, and the other one
	// can be set: the longer of the two is safe.
	passed := max(c.at.Sub(moment), c.at.Round(0).Sub(moment.Round(0)))
	return c.shown.Add(-passed - clockMargin - max(passed, 0)/100).Truncate(time.Millisecond)
}

// readClock asks the store for the time. Callers at the same time share one call.
func (h *Hub) readClock(ctx context.Context, k RetentionStore) (storeClock, error) {
	return h.clocks.do(struct{}{}, h.goWork, func() (storeClock, error) {
		if h.ctx.Err() != nil {
			return storeClock{}, ErrStopped
		}
		l, err := k.List(h.ctx, "", "", 0)
		return storeClock{l.Now, time.Now()}, err
	}).wait(ctx)
}

// seekMoment returns a cursor that is before every event committed to the feed from a
// moment of this process on.
func (h *Hub) seekMoment(ctx context.Context, feed string, moment time.Time) (ID, error) {
	k, err := h.retentionStore()
	if err != nil {
		return 0, nil // without a clock, only the whole feed is sure to have them
	}
	clock, err := h.readClock(ctx, k)
	if err != nil {
		return 0, fmt.Errorf("read the clock of the store: %w", err)
	}
	at := clock.before(moment)
	c, err := h.store.Seek(ctx, feed, at)
	if err != nil || c == 0 {
		return c, err
	}
	// The store times an append before it commits it, and may stand still in between.
	// It holds the feed meanwhile. So only the last append before the moment may have
	// become visible after it, and all events of an append have one time.
	p, err := h.store.Read(ctx, feed, c-1, Limit{Events: 1, Bytes: 1})
	if err != nil || len(p.Events) == 0 || p.Events[0].Time.Before(at.Add(-commitMost)) {
		return c, err
	}
	return h.store.Seek(ctx, feed, p.Events[0].Time)
}

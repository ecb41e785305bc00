package feed_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// crowd publishes from many goroutines, and counts the outcomes.
type crowd struct {
	pub  *feed.Publisher
	work sync.WaitGroup

	mu                                      sync.Mutex
	stored, refused, late, unknown, gone, n int
	slowest                                 time.Duration
}

// publish publishes an event of this size, and cancels after patience.
func (c *crowd) publish(size int, patience time.Duration) {
	c.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		began := time.Now()
		_, err := c.pub.Publish(ctx, feed.Draft{Feed: "a", Data: strings.Repeat("x", size)})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.n++
		c.slowest = max(c.slowest, time.Since(began))
		switch {
		case err == nil:
			c.stored++
		case errors.Is(err, feed.ErrOverloaded):
			c.refused++
		case errors.Is(err, feed.ErrUnavailable):
			c.late++
		case errors.Is(err, feed.ErrUncertain):
			c.unknown++
		case errors.Is(err, context.DeadlineExceeded):
			c.gone++
		}
	})
}

// While the store stands still, a bounded number of bytes waits for it, and every
// publish has an answer within 12 seconds.
func TestStandingStoreBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		c := crowd{pub: r.pub}
		limit := r.hub.Memory().Limit(feed.HoldPublishes)
		for range 3000 { // about twice what there is room for
			c.publish(50_000, time.Hour)
		}
		synctest.Wait()
		if c.refused < 1000 || c.n != c.refused {
			t.Errorf("of 3000 at once, %d were answered and %d refused", c.n, c.refused)
		}
		if used := r.hub.Memory().Used(feed.HoldPublishes); used > limit || used < limit/2 {
			t.Errorf("%d bytes wait, the limit is %d", used, limit)
		}
		c.work.Wait()
		if c.slowest > 12*time.Second || c.stored > 0 || c.late < 1000 || c.unknown == 0 {
			t.Errorf("the slowest took %v; %d stored, %d late, %d unknown", c.slowest, c.stored, c.late, c.unknown)
		}
		pass()
		synctest.Wait()
		if used, waiting, bytes := r.hub.Memory().Used(feed.HoldPublishes), r.pub.Waiting(), r.pub.WaitingBytes(); used != 0 || waiting != 0 || bytes != 0 {
			t.Errorf("afterwards %d bytes wait in %d calls", used, waiting)
		}
		if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a"}); err != nil {
			t.Error(err)
		}
	})
}

// The number of publishes that wait is bounded, however small they are.
func TestManyPublishesBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		c := crowd{pub: r.pub}
		for range 10_050 {
			c.publish(1, time.Hour)
		}
		synctest.Wait()
		if c.refused != 50 {
			t.Errorf("%d were refused, want 50", c.refused)
		}
		pass()
		c.work.Wait()
	})
}

// A client that leaves while the store stands still withdraws its publish: when the
// store goes on, it stores only the publishes that a commit had taken.
func TestStandingStoreStoresNothingOfThoseWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pass := r.holdAt(feedtest.AppendAsked)
		c := crowd{pub: r.pub}
		for range 70 { // seconds
			for range 20 {
				c.publish(1000, 2*time.Second)
			}
			time.Sleep(time.Second)
		}
		c.work.Wait()
		if c.gone < 1300 {
			t.Fatalf("%d of 1400 left", c.gone)
		}
		pass()
		time.Sleep(time.Second)
		synctest.Wait()
		if last := r.store.History("a").Last; last > 30 {
			t.Errorf("%d events were stored of clients that had left", last)
		}
		r.publish("a", "") // which succeeds
	})
}

package feed_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// slowly makes every append take this long.
func (r *rig) slowly(took time.Duration) {
	r.hold(func(_ context.Context, c feedtest.Call) error {
		if c.At == feedtest.AppendAsked {
			time.Sleep(took)
		}
		return nil
	})
}

// burst publishes nine times at once: one publish is alone in its commit, and the
// others share the next.
func (r *rig) burst() {
	var done sync.WaitGroup
	for range 9 {
		done.Go(func() { r.publish("a", "x") })
		synctest.Wait() // no time passes meanwhile
	}
	done.Wait()
}

// Publishers that publish one event after another share each commit, even if one
// of them was ahead of all the others.
func TestCommitGathersPublishers(t *testing.T) {
	for _, publishers := range []int{4, 8, 64} {
		synctest.Test(t, func(t *testing.T) {
			const each = 20
			r := newRig(t)
			r.slowly(time.Millisecond)
			var done sync.WaitGroup
			for i := range publishers {
				done.Go(func() {
					if i > 0 {
						time.Sleep(10 * time.Microsecond)
					}
					for range each {
						r.publish("a", "x")
						time.Sleep(10 * time.Microsecond) // the way to the publisher and back
					}
				})
			}
			done.Wait()
			// The first commit has one call, and the second may have all the others.
			if n := r.count(feedtest.AppendAsked); n > each+2 {
				t.Errorf("%d publishers: %d appends for %d events each", publishers, n, each)
			}
		})
	}
}

// A commit of several publishers is followed by a single publish. The publish waits
// for the other publishers as long as that commit took, up to a small limit.
func TestCommitDoesNotWaitLong(t *testing.T) {
	for _, test := range []struct{ took, wait time.Duration }{
		{500 * time.Microsecond, 500 * time.Microsecond},
		{300 * time.Millisecond, 2 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			publish := func() time.Duration {
				began := time.Now()
				r.publish("a", "x")
				return time.Since(began)
			}
			r.slowly(test.took)
			r.burst()

			if got, want := publish(), test.took+test.wait; got != want {
				t.Errorf("behind a commit of %v: a publish took %v, want %v", test.took, got, want)
			}
			if got := publish(); got != test.took {
				t.Errorf("behind a commit of one: a publish took %v, want %v", got, test.took)
			}
			time.Sleep(time.Second)
			if got := publish(); got != test.took {
				t.Errorf("after a pause: a publish took %v, want %v", got, test.took)
			}
		})
	}
}

// A publisher that is closed while it waits for others commits what it has.
func TestPublisherCloseWhileGathering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.slowly(time.Millisecond)
		r.burst()

		began := time.Now()
		var last sync.WaitGroup
		last.Go(func() {
			if _, err := r.pub.Publish(context.Background(), feed.Draft{Feed: "a"}); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		r.pub.Close()
		last.Wait()
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("it took %v, want one append", took)
		}
		if last := r.store.History("a").Last; last != 10 {
			t.Errorf("%d events, want 10", last)
		}
	})
}

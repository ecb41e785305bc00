package feed_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// seen reads until the feed is closed, or nothing comes for d, and returns the
// deliveries as text: "1 2 gap:2-5 6 closed".
func seen(t *testing.T, s *feed.Subscription, d time.Duration) string {
	t.Helper()
	var all []string
	for {
		delivery, err := s.Next(t.Context(), time.After(d))
		switch {
		case errors.Is(err, feed.ErrClosed):
			return strings.Join(append(all, "closed"), " ")
		case err != nil:
			t.Fatal(err)
		case delivery.Gap != nil:
			all = append(all, fmt.Sprintf("%s:%d-%d", delivery.Gap.Reason, delivery.Gap.After, delivery.Gap.Resumes))
		case len(delivery.Events()) == 0:
			return strings.Join(all, " ")
		}
		for _, e := range delivery.Events() {
			if delivery.Ephemeral {
				all = append(all, e.Data)
			} else {
				all = append(all, fmt.Sprint(e.ID))
			}
		}
	}
}

// close closes the feed with n last events.
func (r *rig) close(name string, n int) {
	r.t.Helper()
	b := feed.Publication{Feed: name, Close: true}
	for range n {
		b.Drafts = append(b.Drafts, feed.Draft{Feed: name, Data: "x"})
	}
	if _, err := r.pub.PublishBatch(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// closeElsewhere closes the feed behind the hub's back, as another node would.
func (r *rig) closeElsewhere(name string) {
	r.t.Helper()
	results, err := r.store.Append(r.t.Context(), []feed.Batch{{Feed: name, Close: true}})
	if err != nil || results[0].Err != nil {
		r.t.Fatal(err, results)
	}
}

// A closed feed ends for each subscriber when it has every event, not before and
// not later.
func TestClosedFeedIsDeliveredWhole(t *testing.T) {
	for _, c := range []struct {
		name string
		from feed.From
		do   func(*rig)
		want string
	}{
		{"from history", feed.FromStart(), func(r *rig) { r.close("a", 0) }, "1 2 3 closed"},
		{"from history, with a last event", feed.FromStart(), func(r *rig) { r.close("a", 1) }, "1 2 3 4 closed"},
		{"live", feed.From{}, func(r *rig) { r.publish("a", "x"); r.close("a", 2) }, "4 5 6 closed"},
		{"resumed", feed.FromCursor(2), func(r *rig) { r.close("a", 0) }, "3 closed"},
		{"resumed at the end", feed.FromCursor(3), func(r *rig) { r.close("a", 0) }, "closed"},
		{"ahead", feed.FromCursor(9), func(r *rig) { r.close("a", 0) }, "ahead:9-4 closed"},
		{"after a gap", feed.FromCursor(1), func(r *rig) {
			r.close("a", 0)
			if err := r.hub.Trim(r.t.Context(), "a", 3); err != nil {
				r.t.Error(err)
			}
		}, "trimmed:1-3 3 closed"},
		{"after a gap to the end", feed.FromCursor(0), func(r *rig) {
			r.close("a", 1)
			if err := r.hub.Trim(r.t.Context(), "a", 99); err != nil {
				r.t.Error(err)
			}
		}, "trimmed:0-5 closed"},
		{"closed elsewhere", feed.FromCursor(1), func(r *rig) { r.append("a", 2); r.closeElsewhere("a") }, "2 3 4 5 closed"},
		{"told of more", feed.FromCursor(2), func(r *rig) { r.close("a", 0); r.bus.waitReceiver().Grew("a", 99) }, "3 closed"},
		{"with something ephemeral before", feed.From{}, func(r *rig) {
			if err := r.pub.PublishEphemeral(r.t.Context(), feed.Draft{Feed: "a", Data: "typing"}); err != nil {
				r.t.Error(err)
			}
			r.close("a", 0)
		}, "typing closed"},
	} {
		for _, when := range []string{"before", "after"} {
			t.Run(c.name+", "+when+" the subscription", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.append("a", 3)
					want := c.want
					if when == "after" {
						s := r.subscribe("a", c.from)
						c.do(r)
						if got := seen(t, s, 1100*time.Millisecond); got != want {
							t.Errorf("saw %q, want %q", got, want)
						}
						return
					}
					c.do(r)
					if c.from == (feed.From{}) {
						want = "closed" // "now" is the end
					}
					s := r.subscribe("a", c.from)
					if !s.Bounds().Closed {
						t.Errorf("the bounds are %+v", s.Bounds())
					}
					if got := seen(t, s, time.Second); got != want {
						t.Errorf("saw %q, want %q", got, want)
					}
					if _, err := s.Next(t.Context(), nil); !errors.Is(err, feed.ErrClosed) {
						t.Errorf("once more: %v", err)
					}
				})
			})
		}
	}
}

// A subscriber that waits learns of a close on its own node at once, and of one on
// another node when the hub next asks the store.
func TestClosingReachesWaitingSubscribers(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(*rig)
		within time.Duration
	}{
		{"here", func(r *rig) { r.close("a", 0) }, 0},
		{"elsewhere", func(r *rig) { r.closeElsewhere("a") }, 1100 * time.Millisecond},
		{"with an unknown outcome", func(r *rig) {
			r.fail(feed.ErrUncertain, feedtest.AppendCommitted)
			if _, err := r.pub.PublishBatch(r.t.Context(), feed.Publication{Feed: "a", Close: true}); !errors.Is(err, feed.ErrUncertain) {
				r.t.Errorf("got %v, want ErrUncertain", err)
			}
		}, 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.append("a", 3)
				s := r.subscribe("a", feed.From{})
				began, closed := time.Now(), make(chan error, 1)
				go func() {
					_, err := s.Next(t.Context(), nil)
					closed <- err
				}()
				synctest.Wait()
				c.do(r)
				if err := <-closed; !errors.Is(err, feed.ErrClosed) {
					t.Errorf("got %v, want ErrClosed", err)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

// A store that is put back to before the close takes events again, and subscribers
// get them.
func TestClosedFeedIsRolledBack(t *testing.T) {
	for _, last := range []feed.ID{10, 9, 7} {
		t.Run(fmt.Sprint(last), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.append("a", 5)
				s := r.subscribe("a", feed.FromCursor(4)) // loads the log, which ends with 5
				pass := r.holdAt(feedtest.ReadAsked)
				r.append("a", 5)
				r.closeElsewhere("a")
				time.Sleep(1100 * time.Millisecond) // the hub knows of the new end, but has not read the events
				r.store.Rollback("a", last)
				pass()
				time.Sleep(1100 * time.Millisecond)
				reach(t, s, last, time.Second)
				if got := seen(t, s, 2*time.Second); got != "" {
					t.Errorf("saw %q", got)
				}
				r.publish("a", "x")
				reach(t, s, last+1, 2*time.Second)
				if s := r.subscribe("a", feed.From{}); s.Bounds().Closed {
					t.Errorf("the bounds are %+v", s.Bounds())
				}
			})
		})
	}
}

package feed_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// regrow rolls the feed back to the id last, and then stores n other events.
func (r *rig) regrow(name string, last feed.ID, n int) []feed.Event {
	r.t.Helper()
	time.Sleep(5 * time.Millisecond) // the new events get later times
	r.store.Rollback(name, last)
	if n == 0 {
		return nil
	}
	return r.append(name, n)
}

// gapThen demands that the subscription meets a gap, and returns what follows it
// within a second.
func gapThen(t *testing.T, s *feed.Subscription, want feed.Gap) []feed.Event {
	t.Helper()
	d := next(t, s, 2*time.Second)
	if d.Gap == nil || *d.Gap != want {
		t.Fatalf("got the gap %+v and %d events, want %+v", d.Gap, len(d.Events()), want)
	}
	return next(t, s, time.Second).Events()
}

// sameFrom fails the test unless got is the stored events from the id on.
func sameFrom(t *testing.T, got, stored []feed.Event, id feed.ID) {
	t.Helper()
	want := stored[slices.IndexFunc(stored, func(e feed.Event) bool { return e.ID == id }):]
	if !slices.Equal(got, want) {
		t.Errorf("got %d events, want %d from %d on, as they are stored", len(got), len(want), id)
	}
}

// A feed at 70 loses its last 20 events, and one commit stores 30 others. Each case
// is one way in which a node can find out.
func TestStoreThatWentBackAndGrew(t *testing.T) {
	for name, meet := range map[string]func(r *rig){
		"it compares": func(r *rig) { r.regrow("a", 50, 30) },
		"it compares a feed that has rested": func(r *rig) {
			time.Sleep(time.Minute)
			r.regrow("a", 50, 30)
		},
		"the bus brings them": func(r *rig) { r.bus.waitReceiver().Receive(r.regrow("a", 50, 30)) },
		"the bus says that it grew": func(r *rig) {
			r.regrow("a", 50, 30)
			r.bus.waitReceiver().Grew("a", 80)
		},
		"it ends where it ended": func(r *rig) { r.regrow("a", 50, 20) },
		"its own commit": func(r *rig) {
			r.regrow("a", 50, 0)
			var drafts []feed.Draft
			for range 30 {
				drafts = append(drafts, feed.Draft{Feed: "a", Data: "own"})
			}
			if _, err := r.pub.Publish(r.t.Context(), drafts...); err != nil {
				r.t.Error(err)
			}
		},
		"its own commit behind those of others": func(r *rig) {
			r.regrow("a", 50, 10)
			r.publish("a", "own")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				rested := name == "it compares a feed that has rested"
				r.append("a", 40)
				at := r.subscribe("a", feed.From{})
				for range 30 {
					time.Sleep(3 * time.Millisecond)
					r.publish("a", "old")
				}
				reach(t, at, 70, time.Second)
				if !rested {
					time.Sleep(2 * time.Second) // the hub has compared
				}
				within, beyond := r.subscribe("a", feed.FromCursor(50)), r.subscribe("a", feed.FromCursor(51))

				meet(r)

				time.Sleep(1100 * time.Millisecond)
				last := r.store.History("a").Last
				resumes := last + 1
				for _, s := range []*feed.Subscription{at, beyond} {
					if got := gapThen(t, s, feed.Gap{After: s.Cursor(), Resumes: resumes, Reason: feed.Ahead}); len(got) > 0 {
						t.Errorf("got %d events behind the end", len(got))
					}
				}
				if !rested { // otherwise the node cannot know how far back they agree
					var got []feed.Event
					for within.Cursor() < last {
						d := next(t, within, time.Second)
						if d.Gap != nil {
							t.Fatalf("an unaffected subscriber met the gap %+v", *d.Gap)
						}
						got = append(got, d.Events()...)
					}
					sameFrom(t, got, r.store.History("a").Events, 51)
				}
				e := r.publish("a", "after")
				for _, s := range []*feed.Subscription{at, beyond} {
					if got := next(t, s, time.Second).Events(); len(got) != 1 || got[0] != e {
						t.Errorf("got %v after the gap, want %v", got, e)
					}
				}
			})
		})
	}
}

// A node may read events before the store answers their append, and answers may come
// late. Neither is a sign of an older store.
func TestOwnCommitThatWasReadIsNoReplacement(t *testing.T) {
	for name, pause := range map[string]time.Duration{"held": time.Second, "given up": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := newRig(t)
				r.pub.Close()
				r.hub.Close()
				store := r.store.Through(r.notice)
				r.hub = feed.NewHub(store, r.bus, feed.HubOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				r.pub = feed.NewPublisher(store, r.hub, r.bus, feed.PublisherOptions{Logger: quiet})
				s := r.subscribe("a", feed.From{})
				pass := r.holdAt(feedtest.AppendCommitted)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, err := r.pub.Publish(context.Background(), feed.Draft{Feed: "a", Data: "x"})
					if late := pause > 11*time.Second; errors.Is(err, feed.ErrUncertain) != late || !late && err != nil {
						t.Errorf("after %v: %v", pause, err)
					}
				}()
				reach(t, s, 1, 2*time.Second) // out of the store
				time.Sleep(pause)
				pass()
				<-done
				r.publish("a", "y")
				reach(t, s, 2, time.Second)
				time.Sleep(5 * time.Second)
				if strings.Contains(log.String(), "older one") || r.hub.Stats().Ahead > 0 {
					t.Errorf("a false alarm: %s", log.String())
				}
			})
		})
	}
}

// However many feeds went back, it is logged once.
func TestReplacementIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t)
		r.hub.Close()
		r.hub = feed.NewHub(r.store, r.bus, feed.HubOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		var subs []*feed.Subscription
		names := []string{"a", "b", "c"}
		for _, name := range names {
			r.append(name, 5)
			subs = append(subs, r.subscribe(name, feed.From{}))
		}
		time.Sleep(2 * time.Second)
		for _, name := range names {
			r.regrow(name, 2, 4)
		}
		for _, s := range subs {
			gapThen(t, s, feed.Gap{After: 5, Resumes: 7, Reason: feed.Ahead})
		}
		if n := strings.Count(log.String(), "older one"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log.String())
		}
	})
}

// Events of one history must not be followed by events of another, even if the
// comparisons find the same newest event. When another server may have answered, the
// hub compares all events since the last comparison.
func TestAnotherServerHasAllCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 10)
		s := r.subscribe("a", feed.From{})
		time.Sleep(2 * time.Second)
		r.bus.waitReceiver().Receive(r.append("a", 5)) // up to 15, since the last comparison
		reach(t, s, 15, time.Second)
		again := r.regrow("a", 12, 8)
		r.store.NewEpoch()
		r.bus.waitReceiver().Receive(again[3:]) // from 16 on
		time.Sleep(1100 * time.Millisecond)
		for {
			d := next(t, s, time.Second)
			if d.Gap != nil {
				if d.Gap.Reason != feed.Ahead || d.Gap.Resumes != 21 {
					t.Errorf("got the gap %+v", *d.Gap)
				}
				return
			}
			if len(d.Events()) == 0 {
				t.Fatal("no gap")
			}
		}
	})
}

package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

func (r *rig) say(data string) {
	r.t.Helper()
	if err := r.pub.PublishEphemeral(r.t.Context(), feed.Draft{Feed: "a", Type: "note", Data: data}); err != nil {
		r.t.Fatal(err)
	}
}

// only encodes the events of one type, and omits all others.
type only struct{ kind string }

func (o only) Encode(dst []byte, e *feed.Event) []byte {
	if e.Type != o.kind {
		return dst
	}
	return fmt.Appendf(dst, "%d:%s;", e.ID, e.Data)
}

func TestEphemeral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 2)
		s := r.subscribe("a", feed.From{})
		elsewhere := r.subscribe("b", feed.From{})
		r.say("1")
		r.say("2")
		for _, want := range []string{"1", "2"} {
			d := next(t, s, 0)
			if !d.Ephemeral || d.Gap != nil || len(d.Events()) != 1 {
				t.Fatalf("got %+v", d)
			}
			e := d.Events()[0]
			if e.Feed != "a" || e.ID != 0 || e.Type != "note" || e.Data != want || e.Time.IsZero() || e.Time != e.Time.UTC().Truncate(time.Millisecond) {
				t.Errorf("got %+v", e)
			}
			if got := string(d.Encoded(only{"note"})); got != "0:"+want+";" {
				t.Errorf("encoded: %q", got)
			}
			if got := d.Encoded(only{"other"}); len(got) > 0 {
				t.Errorf("an encoding that leaves it out has %q", got)
			}
			if s.Cursor() != 2 {
				t.Errorf("the cursor is %d", s.Cursor())
			}
		}
		if got := seen(t, r.subscribe("a", feed.From{}), time.Second) + seen(t, elsewhere, time.Second); got != "" {
			t.Errorf("a later subscriber, or one of another feed, saw %q", got)
		}
		if p := r.store.History("a"); p.Last != 2 || r.count(feedtest.AppendAsked) != 0 {
			t.Errorf("something was stored: %+v", p)
		}
		if r.pub.Published() != 0 {
			t.Errorf("%d published", r.pub.Published())
		}
	})
}

// A subscriber that is too slow for ephemeral events misses the oldest. They take a
// bounded amount of memory.
func TestEphemeralSlowReader(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
		want int
	}{
		{"many", 1, 64},
		{"large", 50_000, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				s := r.subscribe("a", feed.From{})
				for i := range 1000 {
					r.say(fmt.Sprintf("%d %s", i, strings.Repeat("x", c.size)))
				}
				for i := range c.want {
					d := next(t, s, 0)
					if len(d.Events()) != 1 || !strings.HasPrefix(d.Events()[0].Data, fmt.Sprint(1000-c.want+i, " ")) {
						t.Fatalf("number %d is %.20v", i, d.Events())
					}
				}
				if d := next(t, s, time.Second); len(d.Events()) > 0 {
					t.Errorf("and then %.20v", d.Events())
				}
			})
		})
	}
}

// A quiet feed forgets its ephemeral events, and a subscriber still gets each later one
// once.
func TestEphemeralRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		r.say("old")
		time.Sleep(15 * time.Second)
		r.say("new")
		if got := seen(t, s, time.Second); got != "new" {
			t.Errorf("saw %q", got)
		}
	})
}

// A flood of ephemeral events does not keep a slow subscriber from stored events,
// nor the other way round.
func TestEphemeralTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("a", feed.From{})
		var got strings.Builder
		for i := range 10 {
			r.say("typing")
			r.say("typing")
			r.publish("a", fmt.Sprint(i))
			if next(t, s, 0).Ephemeral {
				got.WriteByte('e')
			} else {
				got.WriteByte('s')
			}
		}
		if got.String() != "eseseseses" {
			t.Errorf("got %s", got.String())
		}
		if s.Cursor() != 10 {
			t.Errorf("the cursor is %d", s.Cursor())
		}
	})
}

// Ephemeral events reach subscribers while the store is away, whether it fails or
// hangs.
func TestEphemeralWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.append("a", 1)
		s := r.subscribe("a", feed.From{})
		r.fail(feed.ErrUnavailable, feedtest.BoundsAsked, feedtest.ReadAsked)
		r.say("1")
		r.hold(func(ctx context.Context, _ feedtest.Call) error {
			<-ctx.Done()
			return ctx.Err()
		})
		r.say("2")
		if got := seen(t, s, time.Second); got != "1 2" {
			t.Errorf("saw %q", got)
		}
		began := time.Now()
		if err := r.pub.PublishEphemeral(t.Context(), feed.Draft{Feed: "unknown"}); err != nil {
			t.Errorf("to a feed that is not followed here: %v", err)
		}
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestEphemeralRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.subscribe("followed", feed.From{})
		r.close("followed", 1)
		r.close("alone", 0)
		refused := func(d feed.Draft, want error) {
			t.Helper()
			if err := r.pub.PublishEphemeral(t.Context(), d); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		synctest.Wait()
		r.bus.waitReceiver().Grew("followed", 99) // a false report
		refused(feed.Draft{Feed: "followed"}, feed.ErrClosed)
		refused(feed.Draft{Feed: "alone"}, feed.ErrClosed)
		refused(feed.Draft{Feed: "-"}, feed.ErrInvalid)
		refused(feed.Draft{Feed: "a", Type: "feed.open"}, feed.ErrInvalid)
		refused(feed.Draft{Feed: "a", Data: "{", JSON: true}, feed.ErrInvalid)
		refused(feed.Draft{Feed: "a", Data: strings.Repeat("x", feed.DefaultEventBytes+1)}, feed.ErrTooLarge)
		if got := seen(t, s, time.Second); got != "1 closed" {
			t.Errorf("saw %q", got)
		}
		r.pub.Close()
		refused(feed.Draft{Feed: "a"}, feed.ErrStopped)
	})
}

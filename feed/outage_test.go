package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// place is a store whose address is known.
type place struct{ *feedtest.Store }

func (place) String() string { return "db://host:5432/rejoin" }

// placedBus is a bus whose address is known.
type placedBus struct{ *quietBus }

func (placedBus) String() string { return "bus://host:6379" }

// logged keeps log lines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns the lines that have been logged since the last call.
func (l *logged) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(l.buf.String(), "\n")
	l.buf.Reset()
	return lines[:len(lines)-1]
}

// demand fails the test unless the new lines match wants one to one, in any order. A
// line matches if it contains all the words.
func (l *logged) demand(t *testing.T, when string, wants ...[]string) {
	t.Helper()
	synctest.Wait()
	lines := l.take()
	for _, words := range wants {
		found := -1
		for i, line := range lines {
			has := true
			for _, word := range words {
				has = has && strings.Contains(line, word)
			}
			if has {
				found = i
			}
		}
		if found < 0 {
			t.Errorf("%s: no line has %q", when, words)
			continue
		}
		lines = append(lines[:found:found], lines[found+1:]...)
	}
	if len(lines) > 0 {
		t.Errorf("%s: unexpected lines:\n%s", when, strings.Join(lines, "\n"))
	}
}

// newLoggedRig returns a rig whose hub and publisher log, and whose store and
// bus have addresses.
func newLoggedRig(t *testing.T) (*rig, *logged) {
	log := &logged{}
	logger := slog.New(slog.NewTextHandler(log, nil))
	r := &rig{t: t, store: feedtest.NewStore(), bus: &quietBus{}, calls: make(map[feedtest.Point]int)}
	store := place{r.store.Through(r.notice)}
	r.hub = feed.NewHub(store, placedBus{r.bus}, feed.HubOptions{Logger: logger})
	r.pub = feed.NewPublisher(store, r.hub, placedBus{r.bus}, feed.PublisherOptions{Logger: logger})
	t.Cleanup(func() {
		r.pass()
		r.pub.Close()
		r.hub.Close()
	})
	return r, log
}

// Comparisons and publishes succeed, but one part of a feed cannot be read. Its
// subscriber waits, and the cause is logged.
func TestReadFaultIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.append("a", 2000)
		damage := func(text string) {
			r.hold(func(_ context.Context, c feedtest.Call) error {
				if c.At == feedtest.ReadAsked && c.After < 512 {
					return errors.New(text)
				}
				return nil
			})
		}
		damage("page 7 is damaged")
		s := r.subscribe("a", feed.FromStart())
		go func() { // it polls for as long as the test runs
			for {
				if _, err := s.Next(t.Context(), nil); err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Millisecond)
		log.demand(t, "at the first try", []string{"level=ERROR", "reading a feed fails", "feed=a", "page 7 is damaged", "store=db://host:5432/rejoin"})

		// Others read the sound part, and publish.
		for range 600 {
			reach(t, r.subscribe("a", feed.FromCursor(1024)), 2000, time.Second)
			r.publish("b", "x")
			time.Sleep(time.Second)
		}
		log.demand(t, "while the cause is the same")

		damage("the disk is gone")
		time.Sleep(5 * time.Second)
		log.demand(t, "when the cause has changed", []string{"reading a feed fails", "feed=a", "the disk is gone"})

		r.pass()
		time.Sleep(5 * time.Second)
		log.demand(t, "when it works", []string{"level=INFO", "reading a feed works again", "feed=a"})
	})
}

// A fault that returns after a while is logged again.
func TestFaultReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.append("a", 3)
		for range 2 {
			r.fail(errors.New("damaged"), feedtest.ReadAsked)
			for range 3 {
				if _, err := r.hub.Read(t.Context(), "a", 0, feed.Limit{Events: 1, Bytes: 1}); err == nil {
					t.Fatal("no error")
				}
			}
			r.pass()
			log.demand(t, "after three reads", []string{"reading a feed fails", "damaged"})
			time.Sleep(time.Hour)
		}
	})
}

// However many feeds cannot be read, the log stays readable and the memory small.
func TestManyFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.fail(errors.New("damaged"), feedtest.ReadAsked)
		limit := feed.Limit{Events: 1, Bytes: 1}
		for range 50 {
			for i := range 1000 {
				_, _ = r.hub.Read(t.Context(), fmt.Sprint("feed-", i), 0, limit)
			}
			time.Sleep(time.Second)
		}
		lines := log.take()
		if more := strings.Join(lines, "\n"); len(lines) != 9 || strings.Count(more, "more feeds than are logged") != 1 {
			t.Errorf("a thousand damaged feeds left %d lines:\n%s", len(lines), more)
		}
		if n := r.hub.Faults(); n > 8 {
			t.Errorf("%d faults are kept", n)
		}
	})
}

// The cause is logged at once and when it changes, with the address of the
// store. Causes that differ only in numbers are the same.
func TestStoreOutageIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.subscribe("a", feed.From{})
		fail := func(format string, args ...any) {
			r.fail(fmt.Errorf("%w: %w", feed.ErrUnavailable, fmt.Errorf(format, args...)), feedtest.AppendAsked)
			if _, err := r.pub.Publish(t.Context(), feed.Draft{Feed: "a", Data: "x"}); err == nil {
				t.Fatal("no error")
			}
			time.Sleep(1500 * time.Millisecond) // comparisons go on
		}
		for i := range 100 {
			fail("read tcp 127.0.0.1:%d->10.0.0.1:5432: timeout after %v", 40000+i, time.Duration(i)*time.Millisecond)
		}
		log.demand(t, "one cause", []string{"level=ERROR", "storing events fails", "127.0.0.1:40000->10.0.0.1:5432", "store=db://host:5432/rejoin"})
		fail("cannot execute INSERT in a read-only transaction (SQLSTATE 25006)")
		fail("cannot execute INSERT in a read-only transaction (SQLSTATE 25006)")
		log.demand(t, "another", []string{"storing events fails for another reason", "read-only", "store=db://host:5432/rejoin"})
		r.pass()
		r.publish("a", "x")
		r.publish("a", "x")
		log.demand(t, "when it is back", []string{"level=INFO", "storing events works again"})
	})
}

// An idle node has no feeds to compare. Its health probes find the outage.
func TestHealthIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.fail(errors.New("refused"), feedtest.BoundsAsked)
		for range 3 {
			r.hub.Health(t.Context())
			time.Sleep(5 * time.Second)
		}
		log.demand(t, "after three probes", []string{"comparing feeds with the store fails", "refused", "db://host:5432/rejoin"})
	})
}

func TestTellingIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newLoggedRig(t)
		r.bus.tell = func(context.Context, []feed.Event) error { return errors.New("OOM command not allowed") }
		for range 3 {
			r.publish("a", "x")
			time.Sleep(time.Second)
		}
		log.demand(t, "after three failures", []string{"cannot write to the bus", "OOM", "bus=bus://host:6379"})
	})
}

func TestOutage(t *testing.T) {
	for _, test := range []struct {
		name, a, b string
		same       bool
	}{
		{"ports", "read tcp 127.0.0.1:4000->10.0.0.1:5432: EOF", "read tcp 127.0.0.1:4001->10.0.0.1:5432: EOF", true},
		{"ports of IPv6", "read tcp [::1]:4000->[::1]:5432: EOF", "read tcp [::1]:4001->[::1]:5432: EOF", true},
		{"servers", "dial tcp 10.0.0.1:5432: refused", "dial tcp 10.0.0.2:5432: refused", false},
		{"processes", "process 4711 waits", "process 12 waits", true},
		{"durations", "no answer after 1m30.5s", "no answer after 900ms", true},
		{"codes", "refused (SQLSTATE 57P01)", "refused (SQLSTATE 57P03)", false},
		{"words", "refused", "reset", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o feed.Outage
			if got := o.Note(errors.New(test.a)); got != feed.OutageBegan {
				t.Errorf("the first error: %v", got)
			}
			want := feed.OutageChanged
			if test.same {
				want = feed.OutageSame
			}
			if got := o.Note(errors.New(test.b)); got != want {
				t.Errorf("the second error: %v, want %v", got, want)
			}
			if got := o.Note(nil); got != feed.OutageEnded {
				t.Errorf("no error: %v", got)
			}
			if got := o.Note(nil); got != feed.OutageSame {
				t.Errorf("again no error: %v", got)
			}
		})
	}
}

// A success takes no lock, because every commit notes one.
func TestOutageNotesSuccessWithoutALock(t *testing.T) {
	var o feed.Outage
	defer o.Lock()()
	noted := make(chan feed.OutageChange)
	go func() { noted <- o.Note(nil) }()
	select {
	case got := <-noted:
		if got != feed.OutageSame {
			t.Errorf("no error: %v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Note waits for a lock")
	}
}

// An outage that comes and goes all the time is logged, and does not fill the log.
func TestOutageOverAndOver(t *testing.T) {
	for name, causes := range map[string][]error{
		"one":    {errors.New("a"), nil},
		"two":    {errors.New("a"), errors.New("b")},
		"random": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			var o feed.Outage
			lines := 0
			for i := range 600 {
				err := fmt.Errorf("cause %s", strings.Repeat("x", i))
				if causes != nil {
					err = causes[i%2]
				}
				if o.Note(err) != feed.OutageSame {
					lines++
				}
				time.Sleep(100 * time.Millisecond)
			}
			if lines < 2 || lines > 32 {
				t.Errorf("%s: %d lines in a minute", name, lines)
			}
			// An outage that lasts is logged in the end.
			began := o.Note(nil)
			for range 61 {
				if c := o.Note(errors.New("for long")); c == feed.OutageBegan {
					began = c
				}
				time.Sleep(time.Second)
			}
			if began != feed.OutageBegan {
				t.Errorf("%s: the outage after it was not logged", name)
			}
		})
	}
}

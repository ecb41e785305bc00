package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// habits are what tells one witness from another.
type habits struct {
	cut      time.Duration // after which, on average, it cuts its connection; 0: never
	old      float64       // the part of its connections that start from an older cursor than it has
	pause    time.Duration // between two events that it reads
	stall    time.Duration // for which it reads nothing, about once a second
	wait     time.Duration // between two connections, at most
	envelope bool          // it asks for envelopes
	types    []string      // of the events that it asks for; none for all
}

// witness is a subscriber that follows feeds over one connection after another,
// and writes down what each of them brings.
type witness struct {
	log     *feedtest.DeliveryLog
	feeds   []string
	at      []feed.Cursor    // where it stands in each; nil before it begins
	closed  []bool           // which of them it has to their ends
	clients []*client.Client // it connects by any of them
	random  *rand.Rand
	habits  habits
	// strict says that there is nothing between the server and the witness: a
	// stream is refused only for good, and never ends as if it were complete.
	strict    bool
	closing   bool          // some of its feeds get closed: it ends when all are
	ephemeral bool          // some events are not stored
	silence   time.Duration // after which a connection counts as dead
	heartbeat time.Duration // that it asks for; 0 for a third of that
	counts    *proofCounts
	hurry     atomic.Bool // no habits any more: what is left has to be read

	opened bool // the present connection has been
}

// run follows until ctx ends. It returns an error if there is no going on.
func (w *witness) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := w.connect(ctx)
		w.log.Cut(time.Now())
		if errors.Is(err, client.ErrViolation) {
			w.log.Broke(err.Error(), time.Now())
		}
		if errors.Is(err, errNoGoing) {
			return err
		}
		if errors.Is(err, client.ErrDelivered) {
			return nil
		}
		pause := 20*time.Millisecond + time.Duration(w.random.Int64N(int64(w.habits.wait)+1))
		if w.hurry.Load() {
			pause = 20 * time.Millisecond
		}
		_ = sleep(ctx, pause) // the loop looks at ctx
	}
	return nil
}

// asks returns what to ask for: what follows the cursors, or older ones.
func (w *witness) asks() client.Subscription {
	now := time.Now()
	w.log.Connects(now)
	if w.at == nil {
		w.at = make([]feed.Cursor, len(w.feeds))
	}
	w.closed = make([]bool, len(w.feeds))
	old := w.random.Float64() < w.habits.old && !w.hurry.Load()
	var cursor []string
	for i, name := range w.feeds {
		if old {
			w.at[i] -= feed.Cursor(w.random.Uint64N(min(uint64(w.at[i]), 100) + 1))
		}
		w.log.Asks(name, uint64(w.at[i]), now)
		if cursor = append(cursor, w.at[i].String()); len(w.feeds) > 1 {
			cursor[i] = name + "=" + cursor[i]
		}
	}
	return client.Subscription{
		Feeds: w.feeds, Cursor: strings.Join(cursor, ","), Types: w.habits.types, Envelopes: w.habits.envelope,
		Silence: w.silence, Heartbeat: w.heartbeat,
	}
}

// cursorAnywhere is a transport that has half of the cursors in the address,
// where the first connection of a client may have them, too.
type cursorAnywhere struct {
	*http.Transport
	random *rand.Rand
}

func (t *cursorAnywhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if cursor := r.Header.Get("Last-Event-ID"); cursor != "" && t.random.IntN(2) == 0 {
		r = r.Clone(r.Context()) // a RoundTripper may not change its request
		r.Header.Del("Last-Event-ID")
		query := r.URL.Query()
		query.Set("lastEventId", cursor)
		r.URL.RawQuery = query.Encode()
	}
	return t.Transport.RoundTrip(r)
}

func (w *witness) connect(ctx context.Context) error {
	w.counts.connections.Add(1)
	w.opened = false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.habits.cut > 0 {
		cut := time.AfterFunc(time.Duration(w.random.ExpFloat64()*float64(w.habits.cut)), func() {
			if !w.hurry.Load() {
				cancel()
			}
		})
		defer cut.Stop()
	}
	stream, err := w.clients[w.random.IntN(len(w.clients))].Connect(ctx, w.asks())
	if err != nil {
		return w.refused(err)
	}
	defer stream.Close()
	return w.read(ctx, stream)
}

// refused judges why there is no stream.
func (w *witness) refused(err error) error {
	problem, answered := errors.AsType[*client.Problem](err)
	switch {
	case errors.Is(err, client.ErrDelivered) && w.closing:
		w.log.TurnedAway(time.Now())
		return err
	case errors.Is(err, client.ErrDelivered):
		return broken("204 for feeds that nobody closed")
	case answered && problem.Status != http.StatusOK && !problem.Temporary():
		return fmt.Errorf("%w: subscribe: %w", errNoGoing, err)
	case answered && w.strict:
		return broken("an event stream is refused: %w", err)
	}
	return err
}

// broken returns an error for a server that has broken its promise.
func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{client.ErrViolation}, args...)...)
}

func (w *witness) read(ctx context.Context, stream *client.Stream) error {
	stalls := time.Now().Add(time.Second)
	for {
		e, err := stream.Next()
		switch {
		case err == io.EOF && w.opened && w.strict && slices.Contains(w.closed, false):
			return broken("the stream ended as if it were complete")
		case err != nil:
			return err
		}
		if err := w.take(e, time.Now()); err != nil {
			return err
		}
		if w.hurry.Load() {
			continue
		}
		if w.habits.stall > 0 && time.Now().After(stalls) {
			_ = sleep(ctx, time.Duration(w.random.Int64N(int64(w.habits.stall)))) // what then fails is the next read
			stalls = time.Now().Add(time.Second / 2).Add(time.Duration(w.random.Int64N(int64(time.Second))))
		}
		if w.habits.pause > 0 {
			_ = sleep(ctx, w.habits.pause) // the same
		}
	}
}

// take writes down one event.
func (w *witness) take(e client.Event, now time.Time) error {
	about := slices.Index(w.feeds, e.Feed)
	switch {
	case e.Kind == client.KindOpen:
		w.opened = true
		for i, name := range w.feeds {
			w.at[i] = e.Positions[i]
			w.log.Opened(name, uint64(w.at[i]), now)
		}
		return nil
	case e.Kind == client.KindCursor:
		about = -1
	case e.Kind == client.KindGap:
		w.log.Gap(e.Feed, e.Gap, now)
	case e.Kind == client.KindClosed && w.closing:
		w.log.Closed(e.Feed, e.ID, now)
		w.closed[about] = true
	case e.Kind == client.KindExpired:
		return client.ErrExpired
	case e.Kind == client.KindEphemeral && w.ephemeral:
		w.log.Hinted(e.Feed, feedtest.SumOf(e.Type, e.Data), now)
		return nil
	case e.Kind == client.KindEvent:
		w.counts.delivered.Add(1)
		w.log.Delivered(e.Feed, e.ID, feedtest.SumOf(e.Type, e.Data), now)
	default:
		return broken("%v, which nobody asked for: %.200s", e, e.Raw)
	}
	if about >= 0 {
		w.at[about] = e.Positions[about]
	}
	return w.others(e, about, now)
}

// others demands that an event leaves the feeds where they are that it is not
// about, but for what the filter keeps from the witness.
func (w *witness) others(e client.Event, about int, now time.Time) error {
	for i, at := range e.Positions {
		switch {
		case i == about || at == w.at[i]:
		case len(w.habits.types) == 0:
			return broken("%v takes %s from event %d to %d", e, w.feeds[i], w.at[i], at)
		default:
			w.log.Passed(w.feeds[i], uint64(at), now)
			w.at[i] = at
		}
	}
	return nil
}

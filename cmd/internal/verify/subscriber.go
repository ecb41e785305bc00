package verify

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

// Habits tell one subscriber from another.
type Habits struct {
	Cut      time.Duration // after which, on average, it cuts its connection; 0: never
	Old      float64       // the part of its connections that start from an older cursor than it has
	Pause    time.Duration // between two events that it reads
	Stall    time.Duration // for which it reads nothing, about once a second
	Wait     time.Duration // between two connections, at most
	Envelope bool          // it asks for envelopes
	Types    []string      // of the events that it asks for; none for all
}

// Subscriber follows feeds over one connection after another, and records what
// each of them brings.
type Subscriber struct {
	Log     *feedtest.DeliveryLog
	Feeds   []string
	At      []feed.ID        // where it stands in each; nil before it begins
	closed  []bool           // which of them it has to their ends
	Clients []*client.Client // it connects by any of them
	Random  *rand.Rand
	Habits  Habits
	// Strict is set if nothing stands between the server and the subscriber: then a
	// refusal is final, and a stream never ends as if it were complete.
	Strict    bool
	Closing   bool          // some of its feeds get closed: it ends when all are
	Ephemeral bool          // some events are not stored
	Silence   time.Duration // after which a connection counts as dead
	Heartbeat time.Duration // that it asks for; 0 for a third of that
	Counts    *Counts
	Hurry     atomic.Bool // no habits any more: what is left has to be read

	opened bool // the present connection has been
}

// Run follows until ctx ends. It returns an error if the server will go on refusing it.
func (s *Subscriber) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.connect(ctx)
		s.Log.Cut(time.Now())
		if errors.Is(err, client.ErrViolation) {
			s.Log.Broke(err.Error(), time.Now())
		}
		if errors.Is(err, ErrRefused) {
			return err
		}
		if errors.Is(err, client.ErrDelivered) {
			return nil
		}
		pause := 20*time.Millisecond + time.Duration(s.Random.Int64N(int64(s.Habits.Wait)+1))
		if s.Hurry.Load() {
			pause = 20 * time.Millisecond
		}
		_ = sleep(ctx, pause) // the loop looks at ctx
	}
	return nil
}

// asks returns what to ask for: what follows the cursors, or older ones.
func (s *Subscriber) asks() client.Subscription {
	now := time.Now()
	s.Log.Connects(now)
	if s.At == nil {
		s.At = make([]feed.ID, len(s.Feeds))
	}
	s.closed = make([]bool, len(s.Feeds))
	old := s.Random.Float64() < s.Habits.Old && !s.Hurry.Load()
	var cursor []string
	for i, name := range s.Feeds {
		if old {
			s.At[i] -= feed.ID(s.Random.Uint64N(uint64(min(s.At[i], 100)) + 1))
		}
		s.Log.Asks(name, s.At[i], now)
		if cursor = append(cursor, s.At[i].String()); len(s.Feeds) > 1 {
			cursor[i] = name + "=" + cursor[i]
		}
	}
	return client.Subscription{
		Feeds: s.Feeds, Cursor: strings.Join(cursor, ","), Types: s.Habits.Types, Envelopes: s.Habits.Envelope,
		Silence: s.Silence, Heartbeat: s.Heartbeat,
	}
}

// CursorAnywhere is a transport that has half of the cursors in the address,
// where the first connection of a client may have them, too.
type CursorAnywhere struct {
	*http.Transport
	Random *rand.Rand
}

func (t *CursorAnywhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if cursor := r.Header.Get("Last-Event-ID"); cursor != "" && t.Random.IntN(2) == 0 {
		r = r.Clone(r.Context()) // a RoundTripper may not change its request
		r.Header.Del("Last-Event-ID")
		query := r.URL.Query()
		query.Set("lastEventId", cursor)
		r.URL.RawQuery = query.Encode()
	}
	return t.Transport.RoundTrip(r)
}

func (s *Subscriber) connect(ctx context.Context) error {
	s.Counts.Connections.Add(1)
	s.opened = false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.Habits.Cut > 0 {
		cut := time.AfterFunc(time.Duration(s.Random.ExpFloat64()*float64(s.Habits.Cut)), func() {
			if !s.Hurry.Load() {
				cancel()
			}
		})
		defer cut.Stop()
	}
	stream, err := s.Clients[s.Random.IntN(len(s.Clients))].Connect(ctx, s.asks())
	if err != nil {
		return s.refused(err)
	}
	defer stream.Close()
	return s.read(ctx, stream)
}

// refused judges why there is no stream.
func (s *Subscriber) refused(err error) error {
	problem, answered := errors.AsType[*client.Problem](err)
	switch {
	case errors.Is(err, client.ErrDelivered) && s.Closing:
		s.Log.TurnedAway(time.Now())
		return err
	case errors.Is(err, client.ErrDelivered):
		return Broken("204 for feeds that nobody closed")
	case answered && problem.Status != http.StatusOK && !problem.Temporary():
		return fmt.Errorf("%w: subscribe: %w", ErrRefused, err)
	case answered && s.Strict:
		return Broken("an event stream is refused: %w", err)
	}
	return err
}

// Broken returns an error for a server that has broken its promise.
func Broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{client.ErrViolation}, args...)...)
}

func (s *Subscriber) read(ctx context.Context, stream *client.Stream) error {
	stalls := time.Now().Add(time.Second)
	for {
		e, err := stream.Next()
		switch {
		case err == io.EOF && s.opened && s.Strict && slices.Contains(s.closed, false):
			return Broken("the stream ended as if it were complete")
		case err != nil:
			return err
		}
		if err := s.take(e, time.Now()); err != nil {
			return err
		}
		if s.Hurry.Load() {
			continue
		}
		if s.Habits.Stall > 0 && time.Now().After(stalls) {
			_ = sleep(ctx, time.Duration(s.Random.Int64N(int64(s.Habits.Stall)))) // what then fails is the next read
			stalls = time.Now().Add(time.Second / 2).Add(time.Duration(s.Random.Int64N(int64(time.Second))))
		}
		if s.Habits.Pause > 0 {
			_ = sleep(ctx, s.Habits.Pause) // the same
		}
	}
}

// take writes down one event.
func (s *Subscriber) take(e client.Event, now time.Time) error {
	about := slices.Index(s.Feeds, e.Feed)
	switch {
	case e.Kind == client.KindOpen:
		s.opened = true
		for i, name := range s.Feeds {
			s.At[i] = e.Positions[i]
			s.Log.Opened(name, s.At[i], now)
		}
		return nil
	case e.Kind == client.KindCursor:
		about = -1
	case e.Kind == client.KindGap:
		s.Log.Gap(e.Feed, e.Gap, now)
	case e.Kind == client.KindClosed && s.Closing:
		s.Log.Closed(e.Feed, e.ID, now)
		s.closed[about] = true
	case e.Kind == client.KindExpired:
		return client.ErrExpired
	case e.Kind == client.KindEphemeral && s.Ephemeral:
		s.Log.Hinted(e.Feed, feedtest.SumOf(e.Type, e.Data), now)
		return nil
	case e.Kind == client.KindEvent:
		s.Counts.Delivered.Add(1)
		s.Log.Delivered(e.Feed, e.ID, feedtest.SumOf(e.Type, e.Data), now)
	default:
		return Broken("%v, which nobody asked for: %.200s", e, e.Raw)
	}
	if about >= 0 {
		s.At[about] = e.Positions[about]
	}
	return s.others(e, about, now)
}

// others demands that an event leaves the feeds where they are that it is not
// about, but for what the filter keeps from the subscriber.
func (s *Subscriber) others(e client.Event, about int, now time.Time) error {
	for i, at := range e.Positions {
		switch {
		case i == about || at == s.At[i]:
		case len(s.Habits.Types) == 0:
			return Broken("%v takes %s from event %d to %d", e, s.Feeds[i], s.At[i], at)
		default:
			s.Log.Passed(s.Feeds[i], at, now)
			s.At[i] = at
		}
	}
	return nil
}

package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Follow follows the feeds over as many connections as it takes, and yields
// what they bring. It comes back with the cursor after every broken connection,
// and after every answer that asks to come back later.
//
// It proves the order: in each feed an event follows the one before it, or a
// KindGap between them names those that are missing. With Types, events may be
// left out, and none goes back.
//
// The iteration ends without an error once all feeds are closed and have come to
// their ends, each with a KindClosed. Otherwise its last pair is an error: the cause of ctx, a
// [*Problem] for an answer that would stay the same, [ErrExpired] after a
// KindExpired, or what wraps [ErrViolation] or feed.ErrInvalid. The event that
// comes with it is zero. Each range over it begins again with s.
func (c *Client) Follow(ctx context.Context, s Subscription) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := s.check(); err != nil {
			yield(Event{}, err)
			return
		}
		f := &follower{client: c, subscription: s, places: newPlaces(s), retry: c.backoff()}
		if err := f.follow(ctx, func(e Event) bool { return yield(e, nil) }); err != nil {
			yield(Event{}, err)
		}
	}
}

// follower follows feeds over one connection after another.
type follower struct {
	client       *Client
	subscription Subscription
	places       []place // in the order of the feeds
	retry        backoff
}

// place is where a follower stands in one feed.
type place struct {
	cursor feed.ID // of the last event that was yielded
	known  bool    // the cursor is
	closed bool    // all of the feed has been yielded
}

func newPlaces(s Subscription) []place {
	places := make([]place, len(s.Feeds))
	if s.Cursor == "" {
		return places
	}
	at, _ := parseCursor(s.Feeds, s.Cursor) // check has read it
	for i, c := range at {
		if c != absent {
			places[i] = place{cursor: c, known: true}
		}
	}
	return places
}

// errLeft is for a caller that has seen enough.
var errLeft = errors.New("the caller has left")

// follow yields until all feeds are closed, or the caller leaves: then it
// returns nil.
func (f *follower) follow(ctx context.Context, yield func(Event) bool) error {
	for {
		asked, err := f.connect(ctx, yield)
		problem, refused := errors.AsType[*Problem](err)
		switch {
		case errors.Is(err, ErrDelivered):
			f.close(yield)
			return nil
		case errors.Is(err, errLeft):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrViolation), errors.Is(err, ErrExpired), refused && !problem.Temporary():
			return err
		}
		if refused {
			asked = problem.RetryAfter
		}
		wait := f.retry.next(asked)
		f.client.retrying(err, wait)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// connect follows the feeds over one connection. It returns why that ended,
// never nil, and the wait that the server asked for.
func (f *follower) connect(ctx context.Context, yield func(Event) bool) (asked time.Duration, err error) {
	s := f.subscription
	s.Cursor = f.cursor()
	stream, err := f.client.Connect(ctx, s)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		if err != nil {
			if err == io.EOF {
				err = errEnded
			}
			if !stream.opened {
				return stream.blocks.retry, err // so a server turns clients away that it has no room for
			}
			return 0, err
		}
		news, err := f.take(e)
		if err != nil {
			return 0, err
		}
		if news && !yield(e) {
			return 0, errLeft
		}
		switch {
		case e.Kind == KindExpired:
			return 0, ErrExpired
		case e.Kind == KindClosed && f.closed():
			return 0, ErrDelivered
		}
	}
}

// cursor returns what is known of the places in wire form.
func (f *follower) cursor() string {
	var parts []string
	for i, p := range f.places {
		switch {
		case !p.known:
		case f.subscription.many():
			parts = append(parts, f.subscription.Feeds[i]+"="+p.cursor.String())
		default:
			parts = append(parts, p.cursor.String())
		}
	}
	return strings.Join(parts, ",")
}

func (f *follower) closed() bool {
	return !slices.ContainsFunc(f.places, func(p place) bool { return !p.closed })
}

// close yields the KindClosed of feeds of which only the answer has shown that
// they are closed: the connection before broke right in front of them.
func (f *follower) close(yield func(Event) bool) {
	e := Event{Kind: KindClosed, Cursor: f.cursor()}
	for _, p := range f.places {
		e.Positions = append(e.Positions, p.cursor)
	}
	for i, p := range f.places {
		if e.Feed, e.ID = f.subscription.Feeds[i], p.cursor; p.known && !p.closed && !yield(e) {
			return
		}
	}
}

// take moves the places on and holds the server to its promise. It reports
// whether the event is news to the caller: the server repeats on each connection
// that a feed is closed.
func (f *follower) take(e Event) (news bool, err error) {
	switch e.Kind {
	case KindOpen:
		return true, f.open(e)
	case KindCursor:
		return true, f.pass(e, -1)
	case KindGap, KindClosed, KindEvent:
	default:
		return true, nil
	}
	about := slices.Index(f.subscription.Feeds, e.Feed)
	p, at := &f.places[about], e.Positions[about]
	filtered := len(f.subscription.Types) > 0
	news = true
	switch e.Kind {
	case KindGap:
		if after := e.Gap.After; after < p.cursor || after > p.cursor && !filtered {
			return false, violation("feed.gap %s does not follow event %d of %s", e.Data, p.cursor, e.Feed)
		}
		p.closed = false // an older store may not have it closed
	case KindClosed:
		if at < p.cursor || at > p.cursor && !filtered {
			return false, violation("%s closed at event %d, the last one seen is %d", e.Feed, at, p.cursor)
		}
		news, p.closed = !p.closed, true
	case KindEvent:
		switch {
		case p.closed:
			return false, violation("event %d of %s came after the feed was closed", at, e.Feed)
		case at <= p.cursor:
			return false, violation("event %d of %s came again after event %d", at, e.Feed, p.cursor)
		case at > p.cursor+1 && !filtered:
			return false, violation("event %d of %s came after event %d, without those between them", at, e.Feed, p.cursor)
		}
	}
	if err := f.pass(e, about); err != nil {
		return false, err
	}
	p.cursor = at
	return news, nil
}

// open takes the cursor that a connection starts from.
func (f *follower) open(e Event) error {
	for i := range f.places {
		p := &f.places[i]
		if p.known && e.Positions[i] != p.cursor {
			return violation("asked to go on after event %d of %s, it goes on after %d", p.cursor, f.subscription.Feeds[i], e.Positions[i])
		}
		p.cursor, p.known = e.Positions[i], true
	}
	f.retry.reset()
	return nil
}

// pass moves the feeds on that an event is not about. Their cursors move only
// over events that were filtered out.
func (f *follower) pass(e Event, about int) error {
	for i, at := range e.Positions {
		p, name := &f.places[i], f.subscription.Feeds[i]
		switch {
		case i == about || at == p.cursor:
		case at < p.cursor:
			return violation("%v takes %s back from event %d to %d", e, name, p.cursor, at)
		case len(f.subscription.Types) == 0:
			return violation("%v passes over events of %s, from %d to %d", e, name, p.cursor, at)
		default:
			p.cursor = at
		}
	}
	return nil
}

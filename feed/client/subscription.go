package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Subscription names the feeds to follow, and where to begin.
type Subscription struct {
	// Feeds are followed over one connection. Each keeps its own order; there is
	// none between them.
	Feeds []string
	// Cursor is the Event.Cursor of the last event that the caller has: 42, or
	// chat=42,news=7 of several feeds. It wins over From. A feed that it leaves
	// out starts at From.
	Cursor string
	// From is now, start, -N (the newest N events of each feed) or an RFC 3339
	// time (events of that instant and later), see [feed.ParseFrom]. Empty is
	// now.
	From string
	// Types, if not empty, leaves out the events of all other types. "message"
	// is the type of events without one.
	Types []string

	// Envelopes asks for events that carry their time. Those of several feeds
	// always do.
	Envelopes bool
	// Live asks for a KindLive once the history is through.
	Live bool
	// Heartbeats asks for a KindHeartbeat with each keep-alive.
	Heartbeats bool

	// Silence is how long a connection may carry nothing, not even a keep-alive,
	// before it counts as dead; 0 means 45s. Below 6s, a connection that lives
	// may count as dead: keep-alives come no closer than 2s. Time in which the
	// caller does not read is not counted.
	Silence time.Duration
	// Heartbeat is the period of the keep-alives to ask for, which the server
	// brings into 2s to 60s; 0 means a third of Silence.
	Heartbeat time.Duration
}

// Resumes reports whether the cursor has a place for every feed, so that From
// does not count. The error, which wraps feed.ErrInvalid, is about the cursor.
func (s Subscription) Resumes() (bool, error) {
	if s.Cursor == "" {
		return false, nil
	}
	at, err := parseCursor(s.Feeds, s.Cursor)
	return err == nil && !slices.Contains(at, absent), err
}

func (s Subscription) check() error {
	if len(s.Feeds) == 0 {
		return invalid("the subscription names no feed")
	}
	for i, name := range s.Feeds {
		if err := feed.CheckName(name); err != nil {
			return err
		}
		if slices.Contains(s.Feeds[:i], name) {
			return invalid("the subscription names %s twice", name)
		}
	}
	for _, t := range s.Types {
		if t == "" {
			return invalid(`events without a type are those of the type "message"`)
		}
		if err := feed.CheckType(t); err != nil {
			return err
		}
	}
	if s.From != "" {
		if _, err := feed.ParseFrom(s.From); err != nil {
			return err
		}
	}
	_, err := s.Resumes()
	return err
}

// many reports whether the subscription has the form of one of several feeds:
// an envelope around each event, and a cursor that names the feeds.
func (s Subscription) many() bool { return len(s.Feeds) > 1 }

// silence is what a zero Subscription allows.
const silence = 45 * time.Second

func (s Subscription) silence() time.Duration { return cmp.Or(s.Silence, silence) }

// request returns the request for one connection.
func (s Subscription) request(ctx context.Context, c *Client) (*http.Request, error) {
	query := url.Values{}
	to := c.URL("v1", "events")
	if s.many() {
		query["feed"] = s.Feeds
	} else {
		to = c.URL("v1", "feeds", s.Feeds[0], "events")
		if s.Envelopes {
			query.Set("envelope", "true")
		}
	}
	if resumes, _ := s.Resumes(); !resumes && s.From != "" {
		query.Set("from", s.From)
	}
	if len(s.Types) > 0 {
		query.Set("types", strings.Join(s.Types, ","))
	}
	var controls []string
	if s.Live {
		controls = append(controls, "live")
	}
	if s.Heartbeats {
		controls = append(controls, "heartbeat")
	}
	if len(controls) > 0 {
		query.Set("control", strings.Join(controls, ","))
	}
	// A third, so that three keep-alives have to go missing before a connection
	// counts as dead, however the server is configured.
	query.Set("heartbeat", cmp.Or(s.Heartbeat, s.silence()/3).String())
	to.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if s.Cursor != "" {
		req.Header.Set("Last-Event-ID", s.Cursor)
	}
	return req, nil
}

// Connect opens a single connection, which ends with ctx. It is for programs
// that decide by themselves when to come back, and where; others want
// [Client.Follow].
//
// The error is [ErrDelivered] if nothing more will come, a [*Problem] for any
// other answer that is no event stream, and wraps feed.ErrInvalid for a
// subscription that cannot be asked for.
func (c *Client) Connect(ctx context.Context, s Subscription) (*Stream, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stream := &Stream{
		feeds: s.Feeds, enveloped: s.many() || s.Envelopes, cursor: s.Cursor,
		ctx: ctx, cancel: cancel, silence: s.silence(),
	}
	stream.watch = time.AfterFunc(stream.silence, func() { cancel(fmt.Errorf("no byte for %v", stream.silence)) })
	req, err := s.request(ctx, c)
	if err == nil {
		err = stream.open(c.http, req)
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	return stream, nil
}

// open sends the request and accepts the answer.
func (s *Stream) open(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return s.because(lost(err))
	}
	s.body, s.blocks = resp.Body, newBlockReader(watchedBody{s})
	switch mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode == http.StatusNoContent:
		return ErrDelivered
	case resp.StatusCode != http.StatusOK:
		return ReadProblem(resp)
	case mediaType != "text/event-stream":
		return &Problem{Status: http.StatusOK, Detail: fmt.Sprintf("the answer is %q, not an event stream", mediaType)}
	}
	return nil
}

// Stream is the events of one connection. Its methods are for one goroutine.
type Stream struct {
	feeds     []string
	enveloped bool
	cursor    string // that the last block left the subscription at
	opened    bool   // KindOpen has come

	ctx     context.Context
	cancel  context.CancelCauseFunc
	watch   *time.Timer // ends ctx when the connection is silent
	silence time.Duration
	body    io.ReadCloser
	blocks  *blockReader
}

// Next returns the next event of the connection, io.EOF where the response ends
// as a complete one does, and any other error where it breaks. The error wraps
// [ErrViolation] if the stream makes no sense. Whether each event follows the one
// before it is for the caller to check.
func (s *Stream) Next() (Event, error) {
	b, err := s.blocks.next()
	if err != nil {
		return Event{}, s.because(err)
	}
	e, err := s.decode(b)
	if err != nil {
		return Event{}, err
	}
	s.opened = true
	if e.Positions != nil {
		s.cursor = b.id
	}
	e.Cursor = s.cursor
	return e, nil
}

// Close ends the connection.
func (s *Stream) Close() {
	s.watch.Stop()
	s.cancel(nil)
	if s.body != nil {
		s.body.Close()
	}
}

// because prefers the reason for which the connection was ended to the error
// that this brought about.
func (s *Stream) because(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	return err
}

// watchedBody is the body of a stream. It watches for silence while it is read.
type watchedBody struct{ *Stream }

func (b watchedBody) Read(p []byte) (int, error) {
	b.watch.Reset(b.silence)
	defer b.watch.Stop()
	return b.body.Read(p)
}

// absent is the place of a feed that a cursor leaves out.
const absent = ^feed.ID(0)

// parseCursor reads the cursor of a subscription to the feeds: a number, or for
// several feeds chat=42,news=7. The error wraps feed.ErrInvalid.
func parseCursor(feeds []string, cursor string) ([]feed.ID, error) {
	if len(feeds) == 1 {
		c, err := feed.ParseCursor(cursor)
		return []feed.ID{c}, err
	}
	at := make([]feed.ID, len(feeds))
	for i := range at {
		at[i] = absent
	}
	place := 0
	for part := range strings.SplitSeq(cursor, ",") {
		name, number, ok := strings.Cut(part, "=")
		if !ok {
			return nil, invalid("the cursor of several feeds is like chat=42,news=7, not %.100q", cursor)
		}
		i := place // servers keep to the order
		if place++; i >= len(feeds) || feeds[i] != name {
			i = slices.Index(feeds, name)
		}
		if i < 0 {
			return nil, invalid("it names %.100q, which is not followed", name)
		}
		if at[i] != absent {
			return nil, invalid("it names %s twice", name)
		}
		c, err := feed.ParseCursor(number)
		if err != nil {
			return nil, fmt.Errorf("of %s: %w", name, err)
		}
		at[i] = c
	}
	return at, nil
}

// errEnded is a stream that ended as a response ends, of which nothing follows
// for the feeds.
var errEnded = errors.New("the stream ended")

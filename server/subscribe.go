package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// subscribe answers with an event stream: GET /v1/feeds/{feed}/events.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request) {
	if accepts(r, "application/json") && !accepts(r, "text/event-stream") {
		s.page(w, r)
		return
	}
	request, err := s.readSubscribe(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if r.Method == http.MethodHead {
		writeStreamHead(w)
		return
	}
	sub, err := s.hub.Subscribe(r.Context(), request.feed, request.from)
	if err != nil && !errors.Is(err, feed.ErrUnavailable) {
		s.writeError(w, r, err)
		return
	}
	if sub == nil && !accepts(r, "text/event-stream") {
		s.writeError(w, r, err)
		return
	}
	s.stream(w, r, request, sub)
}

// subscribeRequest is what a client asks for.
type subscribeRequest struct {
	feed      string
	from      feed.From
	heartbeat time.Duration
}

func (s *Server) readSubscribe(r *http.Request) (subscribeRequest, error) {
	name, err := feedName(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	query, err := readQuery(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	if err := subscribeLater(r, query); err != nil {
		return subscribeRequest{}, err
	}
	from, err := readFrom(r.Header, query)
	if err != nil {
		return subscribeRequest{}, err
	}
	heartbeat, err := readHeartbeat(query, s.options.Heartbeat)
	return subscribeRequest{name, from, heartbeat}, err
}

// subscribeLater refuses what a later version will do.
func subscribeLater(r *http.Request, query url.Values) error {
	for _, name := range []string{"types", "envelope", "control", "gap", "after", "before", "limit", "wait"} {
		if query.Has(name) {
			return fmt.Errorf("the query parameter %s is %w", name, errNotYet)
		}
	}
	if !accepts(r, "text/event-stream") && accepts(r, "application/x-ndjson") {
		return fmt.Errorf("any stream but text/event-stream is %w", errNotYet)
	}
	return nil
}

// accepts says whether the Accept header names the media type itself.
func accepts(r *http.Request, mediaType string) bool {
	for _, header := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(header, ",") {
			if t, params, err := mime.ParseMediaType(item); err == nil && t == mediaType && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}

// readFrom decides where the client wants to start. The header wins over the
// query: a browser's EventSource keeps its first URL for life. An empty value
// counts as none.
func readFrom(header http.Header, query url.Values) (feed.From, error) {
	cursor := header.Get("Last-Event-ID")
	for _, name := range []string{"lastEventId", "lastEventID", "last_event_id"} {
		if cursor == "" {
			cursor = query.Get(name)
		}
	}
	if cursor != "" {
		c, err := feed.ParseCursor(cursor)
		return feed.After(c), err
	}
	if from := query.Get("from"); from != "" {
		return feed.ParseFrom(from)
	}
	return feed.From{}, nil
}

// readHeartbeat returns the period that the client asks for, brought into
// bounds.
func readHeartbeat(query url.Values, standard time.Duration) (time.Duration, error) {
	value := query.Get("heartbeat")
	if value == "" {
		return standard, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%w: heartbeat is a time such as 4s, not %.40q", feed.ErrInvalid, value)
	}
	return min(max(d, 2*time.Second), 60*time.Second), nil
}

func writeStreamHead(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would hold back even the head
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
}

// jitter returns d, give or take up to share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}

// shed turns a client away for now. An event stream must not see a status
// other than 200, which stops a browser for good: it gets the time after which
// to come back, and a connection that breaks.
func shed(w http.ResponseWriter, r *http.Request, why string) {
	if !accepts(r, "text/event-stream") {
		writeProblem(w, http.StatusServiceUnavailable, why)
		return
	}
	writeStreamHead(w)
	_, _ = w.Write(sse.AppendRetry(nil, jitter(12500*time.Millisecond, 0.6)))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

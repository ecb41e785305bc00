package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// subscribe answers with a stream of one feed, or with a page of it:
// GET /v1/feeds/{feed}/events.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request) {
	if formOf(r) == nil {
		s.page(w, r)
		return
	}
	s.answerStream(w, r, s.readSubscribe)
}

// subscribeMany answers with a stream of several feeds: GET /v1/events.
func (s *Server) subscribeMany(w http.ResponseWriter, r *http.Request) {
	if formOf(r) == nil {
		writeProblem(w, http.StatusNotAcceptable, "several feeds are a stream, as text/event-stream or application/x-ndjson; pages are of one feed")
		return
	}
	s.answerStream(w, r, s.readSubscribeMany)
}

func (s *Server) answerStream(w http.ResponseWriter, r *http.Request, read func(*http.Request) (subscribeRequest, error)) {
	request, err := read(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if r.Method == http.MethodHead {
		writeStreamHead(w, request.form)
		return
	}
	s.stream(w, r, request)
}

// formOf returns the form of stream that the client wants, nil for a page.
func formOf(r *http.Request) form {
	switch {
	case accepts(r, "text/event-stream"):
		return eventStream{}
	case accepts(r, "application/x-ndjson"):
		return lineStream{}
	case accepts(r, "application/json"):
		return nil
	}
	return eventStream{}
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

// begin subscribes, unless there is nothing to stream to this client.
func (s *Server) begin(ctx context.Context, request subscribeRequest) (*feed.Group, error) {
	group, err := s.hub.SubscribeAll(ctx, request.starts)
	if err != nil {
		return nil, err
	}
	subs := group.Subscriptions()
	if request.gapFails {
		err = checkGaps(subs)
	}
	if err == nil && request.done(subs) {
		err = errDelivered
	}
	if err != nil {
		group.Close()
		return nil, err
	}
	return group, nil
}

func checkGaps(subs []*feed.Subscription) error {
	for _, sub := range subs {
		if sub.Gap() == nil {
			continue
		}
		if err := checkGap(sub.Cursor(), sub.Bounds()); err != nil {
			return fmt.Errorf("%s: %w", sub.Feed(), err)
		}
	}
	return nil
}

// errDelivered is for who comes back to feeds that are closed and has all of
// them: an EventSource is stopped by 204.
var errDelivered = errors.New("closed, and delivered")

func writeStreamHead(w http.ResponseWriter, f form) {
	h := w.Header()
	h.Set("Content-Type", f.contentType())
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would hold back even the head
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
}

// jitter returns d, give or take up to share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}

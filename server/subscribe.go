package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// subscribe answers with a stream of one feed, or with a page of it:
// GET /v1/feeds/{feed}/events.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request) {
	if requestedFormat(r) == nil {
		s.page(w, r)
		return
	}
	s.answerStream(w, r, s.readSubscribe)
}

// subscribeMany answers with a stream of several feeds: GET /v1/events.
func (s *Server) subscribeMany(w http.ResponseWriter, r *http.Request) {
	if requestedFormat(r) == nil {
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
		writeStreamHead(w, request.format)
		return
	}
	s.stream(w, r, request)
}

// requestedFormat returns the form of stream that the client wants, nil for a page.
func requestedFormat(r *http.Request) streamFormat {
	lines, page := preference(r, "application/x-ndjson"), preference(r, "application/json")
	switch {
	case accepts(r, "text/event-stream"):
		return sseFormat{}
	case lines > 0 && lines >= page:
		return ndjsonFormat{}
	case page > 0:
		return nil
	}
	return sseFormat{}
}

// accepts says whether the Accept header names the media type itself.
func accepts(r *http.Request, mediaType string) bool { return preference(r, mediaType) > 0 }

// preference returns the weight that the Accept header gives the media type
// itself, from 0 to 1 (RFC 9110, section 12.5.1).
func preference(r *http.Request, mediaType string) (weight float64) {
	for _, header := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(header, ",") {
			// Only what is meant is worth parsing, which takes its time.
			if t, _, _ := strings.Cut(item, ";"); !strings.EqualFold(strings.TrimSpace(t), mediaType) {
				continue
			}
			_, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			q, err := strconv.ParseFloat(valueOr(params["q"], "1"), 64)
			if err == nil && q <= 1 {
				weight = max(weight, q)
			}
		}
	}
	return weight
}

func checkGaps(group *feed.Subscriber) error {
	for i := range group.Size() {
		sub := group.At(i)
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

func writeStreamHead(w http.ResponseWriter, f streamFormat) {
	setStreamHead(w.Header(), f)
	w.WriteHeader(http.StatusOK)
}

func setStreamHead(h http.Header, f streamFormat) {
	h["Content-Type"] = f.contentType()
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = noBuffering // nginx would hold back even the head
	h["X-Content-Type-Options"] = noSniffing
}

// What every stream has in its head, of which net/http changes nothing.
var (
	noStore     = []string{"no-store, no-transform"}
	noBuffering = []string{"no"}
	noSniffing  = []string{"nosniff"}
)

// jitter returns d, give or take up to share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}

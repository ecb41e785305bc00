package server

import (
	"net/http"
	"strconv"
	"unsafe"

	"github.com/rejoin/rejoin/feed"
)

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// publish publishes events to one feed: POST /v1/feeds/{feed}/events.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	request, err := readPublish(r)
	switch {
	case err != nil:
	case request.ephemeral:
		err = s.publishEphemeral(w, r, request)
	case request.stream:
		err = s.publishStream(w, r, request)
	case request.isBatch():
		err = s.publishBatch(w, r, request)
	default:
		err = s.publishOne(w, r, request)
	}
	if err != nil {
		s.writeError(w, r, err)
	}
}

// publishMany publishes events to several feeds: POST /v1/events.
func (s *Server) publishMany(w http.ResponseWriter, r *http.Request) {
	request, err := readPublishMany(r)
	if err == nil {
		err = s.publishBatch(w, r, request) // checks the permission
	}
	if err != nil {
		s.deny(w, r, err)
	}
}

func (s *Server) publishOne(w http.ResponseWriter, r *http.Request, request publishRequest) error {
	if err := s.publisherOf(r).take(1); err != nil {
		return err
	}
	draft, err := s.readDraft(w, r, request)
	if err != nil {
		return err
	}
	result, err := s.publisher.PublishBatch(r.Context(), request.publication(draft))
	if err != nil {
		return err
	}
	e := result.Events[0]
	answer := make([]byte, 0, len(e.Feed)+80)
	answer = appendEntry(answer, e)
	answer = append(answer, `,"time":"`...)
	answer = e.Time.AppendFormat(answer, timeFormat)
	answer = append(answer, "\"}\n"...)
	w.Header().Set("Location", basePathOf(r)+"/v1/feeds/"+e.Feed+"/events/"+e.ID.String())
	s.logClosed(w, r, request)
	writePublished(w, request, result, answer)
	return nil
}

func (s *Server) publishBatch(w http.ResponseWriter, r *http.Request, request publishRequest) error {
	var lines lines
	err := s.readBody(w, r, "batch", s.options().BatchBytes, func(body []byte) (err error) {
		lines, err = parseLines(body, request.feed, s.options().BatchEvents)
		if err == nil && request.feed == "" {
			err = s.authorize(w, r, publishing, lines.feeds()...)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.publisherOf(r).take(len(lines.drafts)); err != nil {
		return err
	}
	result, err := s.publisher.PublishBatch(r.Context(), request.publication(lines.drafts...))
	if err != nil {
		return lines.blame(err)
	}
	size := 20
	for i := range result.Events {
		size += len(result.Events[i].Feed) + 40
	}
	answer := append(make([]byte, 0, size), `{"events":[`...)
	for i, e := range result.Events {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = append(appendEntry(answer, e), '}')
	}
	answer = append(answer, "]}\n"...)
	s.logClosed(w, r, request)
	// Without it, net/http would send a long answer in chunks.
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	writePublished(w, request, result, answer)
	return nil
}

// appendEntry appends the beginning of a JSON object about the event. The name of a feed
// has no characters that need an escape.
func appendEntry(b []byte, e feed.Event) []byte {
	b = append(b, `{"feed":"`...)
	b = append(b, e.Feed...)
	b = append(b, `","id":`...)
	return e.ID.Append(b)
}

// writePublished answers that the events are stored. A repeated request gets the same
// answer, with one more header.
func writePublished(w http.ResponseWriter, request publishRequest, result feed.Result, answer []byte) {
	if result.Replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	if request.feed != "" {
		w.Header().Set("ETag", lastTag(result.Events[len(result.Events)-1].ID))
	}
	writeBody(w, "application/json", http.StatusCreated, answer)
}

// lastTag returns a feed's last id in the form for If-Match.
func lastTag(last feed.ID) string { return `"` + last.String() + `"` }

func (s *Server) publishEphemeral(w http.ResponseWriter, r *http.Request, request publishRequest) error {
	if err := s.publisherOf(r).take(1); err != nil {
		return err
	}
	draft, err := s.readDraft(w, r, request)
	if err != nil {
		return err
	}
	if err := s.publisher.PublishEphemeral(r.Context(), draft); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// readDraft reads the body of a single event.
func (s *Server) readDraft(w http.ResponseWriter, r *http.Request, request publishRequest) (feed.Draft, error) {
	// CR LF becomes one byte, so the body can be twice as large as its data.
	d := feed.Draft{Feed: request.feed, Type: request.eventType, JSON: request.media == mediaJSON}
	err := s.readBody(w, r, "body", 2*s.options().EventBytes, func(body []byte) error {
		d.Data = textOf(body)
		return nil
	})
	if err == nil && d.JSON {
		err = checkDepth(d.Data)
	}
	return d, err
}

// logClosed logs that a publish has closed its feed, if it has.
func (s *Server) logClosed(w http.ResponseWriter, r *http.Request, request publishRequest) {
	if request.close {
		s.logChange(w, r, "feed closed", request.feed)
	}
}

// textOf returns the body as a string, and so keeps it. It copies the body only if the
// buffer has much spare room: a large event would otherwise be there twice.
func textOf(body []byte) string {
	if cap(body)-len(body) > len(body)/8+8 {
		return string(body)
	}
	return unsafe.String(unsafe.SliceData(body), len(body))
}

// closeFeed closes a feed: POST /v1/feeds/{feed}/close.
func (s *Server) closeFeed(w http.ResponseWriter, r *http.Request) {
	closing, err := readClose(r)
	if err == nil {
		_, err = s.publisher.PublishBatch(r.Context(), closing)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.logChange(w, r, "feed closed", closing.Feed)
	w.WriteHeader(http.StatusNoContent)
}

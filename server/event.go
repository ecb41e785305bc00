package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

// eventCaching is for a single event, which never changes: nobody need ask
// about it again. But it can be trimmed or deleted, sometimes because it must
// be, and nothing calls back a copy that a browser keeps: so it keeps it for
// minutes, not for a year.
const eventCaching = "private, max-age=300, immutable"

// event answers with one event: GET /v1/feeds/{feed}/events/{id}.
func (s *Server) event(w http.ResponseWriter, r *http.Request) {
	e, err := s.readEvent(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if notModified(w, r, eventTag(s.hub.StoreID(), e), eventCaching) {
		return
	}
	body := append(envelope.Append(nil, e), '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who is gone needs no answer
}

func (s *Server) readEvent(r *http.Request) (*feed.Event, error) {
	name, err := feedName(r)
	if err != nil {
		return nil, err
	}
	value, err := url.PathUnescape(chi.URLParam(r, "id"))
	if err != nil {
		value = chi.URLParam(r, "id")
	}
	id, err := readNumber("the event's id", value)
	if err != nil {
		return nil, err
	}
	p, err := s.hub.Read(r.Context(), name, feed.Cursor(max(id, 1)-1), feed.Limit{Events: 1, Bytes: 1})
	switch {
	case err != nil:
		return nil, err
	case len(p.Events) > 0 && p.Events[0].ID == id:
		return &p.Events[0], nil
	case id > 0 && id <= p.Last:
		return nil, fmt.Errorf("event %d of %s is %w", id, name, errGone)
	}
	return nil, fmt.Errorf("event %d of %s %w", id, name, errNotFound)
}

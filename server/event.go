package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

// eventCaching lets a browser keep an event, which never changes, without asking again.
// An event can be trimmed or deleted, sometimes for legal reasons, and no server can
// recall a browser's copy: so the browser keeps it for minutes, not for a year.
const eventCaching = "private, max-age=300, immutable"

// event answers with one event: GET /v1/feeds/{feed}/events/{id}.
func (s *Server) event(w http.ResponseWriter, r *http.Request) {
	e, err := s.readEvent(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	tag := entityTag(s.hub.StoreID(), e.Feed, e.ID, e.Time.UnixMilli())
	if notModified(w, r, tag, eventCaching) {
		return
	}
	body := append(envelope.Append(nil, e), '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // an error means that the client has gone
}

func (s *Server) readEvent(r *http.Request) (*feed.Event, error) {
	name, err := feedName(r)
	if err != nil {
		return nil, err
	}
	id, err := readID("the event's id", pathParam(r, "id"))
	if err != nil {
		return nil, err
	}
	p, err := s.hub.Read(r.Context(), name, max(id, 1)-1, feed.Limit{Events: 1, Bytes: 1})
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

// entityTag returns an entity tag for a body that the parts determine. In one store, an
// id always belongs to the same event. The parts include the time of the newest event:
// a store that was restored from a backup may assign an id for the second time.
func entityTag(parts ...any) string {
	sum := sha256.Sum256(fmt.Appendln(nil, parts...))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// notModified writes the headers for caches. If the client has the body that the tag
// stands for, it answers the request and reports true.
func notModified(w http.ResponseWriter, r *http.Request, tag, caching string) bool {
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", caching)
	for _, header := range r.Header.Values("If-None-Match") {
		// This server's tags contain no comma.
		for known := range strings.SplitSeq(header, ",") {
			known = strings.TrimPrefix(strings.TrimSpace(known), "W/") // set by a proxy that compresses
			if known == tag || known == "*" {
				w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}

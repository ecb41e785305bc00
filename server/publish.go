package server

import (
	"bytes"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// publish appends one event: POST /v1/feeds/{feed}/events.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	draft, err := s.readDraft(w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	events, err := s.publisher.Publish(r.Context(), draft)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	e := events[0]
	w.Header().Set("Location", "/v1/feeds/"+e.Feed+"/events/"+strconv.FormatUint(e.ID, 10))
	writeJSON(w, "application/json", http.StatusCreated, struct {
		Feed string `json:"feed"`
		ID   uint64 `json:"id"`
		Time string `json:"time"`
	}{e.Feed, e.ID, e.Time.Format(timeFormat)})
}

func (s *Server) readDraft(w http.ResponseWriter, r *http.Request) (feed.Draft, error) {
	name, err := feedName(r)
	if err != nil {
		return feed.Draft{}, err
	}
	query, err := readQuery(r)
	if err != nil {
		return feed.Draft{}, err
	}
	contentType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err := publishLater(r, query, contentType); err != nil {
		return feed.Draft{}, err
	}
	eventType, err := readType(r, query)
	if err != nil {
		return feed.Draft{}, err
	}
	data, err := s.readBody(w, r)
	if err != nil {
		return feed.Draft{}, err
	}
	return feed.Draft{Feed: name, Type: eventType, Data: data, JSON: contentType == "application/json"}, nil
}

// publishLater refuses what a later version will do.
func publishLater(r *http.Request, query url.Values, contentType string) error {
	for _, name := range []string{"Idempotency-Key", "If-Match"} {
		if r.Header.Get(name) != "" {
			return fmt.Errorf("the header %s is %w", name, errNotYet)
		}
	}
	for _, name := range []string{"close", "ephemeral"} {
		if query.Has(name) {
			return fmt.Errorf("the query parameter %s is %w", name, errNotYet)
		}
	}
	if contentType == "application/x-ndjson" {
		return fmt.Errorf("publishing batches (application/x-ndjson) is %w", errNotYet)
	}
	return nil
}

// readType returns the type that the header or the query gives the event.
func readType(r *http.Request, query url.Values) (string, error) {
	header, param := r.Header.Get("Event-Type"), query.Get("type")
	if header != "" && param != "" && header != param {
		return "", fmt.Errorf("%w: the header Event-Type and the query parameter type name different types", feed.ErrInvalid)
	}
	if header == "" {
		header = param
	}
	return header, feed.CheckType(header)
}

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (string, error) {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return "", fmt.Errorf("%w: the content coding %q is not understood; send the body as it is", errMediaType, coding)
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	// CR LF counts as one byte, so a body can be twice as large as its data.
	limit := 2 * int64(s.options.EventBytes)
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), limit)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return "", fmt.Errorf("%w: reading the body: %w", feed.ErrInvalid, err)
	}
	return body.String(), nil
}

// readQuery parses the query strictly: what cannot be read is refused, not
// dropped.
func readQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query cannot be read: %w", feed.ErrInvalid, err)
	}
	return query, nil
}

package clienttest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Script is a server that answers each request with the next of its answers, the last
// one again and again.
type Script struct {
	Answers []http.HandlerFunc
	Visits  []Visit // to be read when no request is under way

	mu   sync.Mutex
	last time.Time
}

// Visit is one request for a stream as the server received it.
type Visit struct {
	Cursor, From string
	After        time.Duration // since the one before
}

func (s *Script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	v := Visit{Cursor: r.Header.Get("Last-Event-ID"), From: r.URL.Query().Get("from")}
	if !s.last.IsZero() {
		v.After = time.Since(s.last)
	}
	s.last = time.Now()
	answer := s.Answers[min(len(s.Visits), len(s.Answers)-1)]
	s.Visits = append(s.Visits, v)
	s.mu.Unlock()
	answer(w, r)
}

// Cursors returns the cursor of each visit, followed by its from.
func (s *Script) Cursors() (cursors []string) {
	for _, v := range s.Visits {
		cursors = append(cursors, v.Cursor+v.From)
	}
	return cursors
}

// Sends answers with an event stream of these bytes that ends cleanly.
func Sends(blocks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		for _, b := range blocks {
			_, _ = io.WriteString(w, b)
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// Breaks answers with an event stream of these bytes that breaks off.
func Breaks(blocks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		Sends(blocks...)(w, r)
		panic(http.ErrAbortHandler)
	}
}

// Fails answers with a problem.
func Fails(status int, header map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"title":"%s","status":%d,"detail":"the detail of %d"}`, http.StatusText(status), status, status)
	}
}

// Away answers that the store is away, with the given member "stored".
func Away(stored string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"title":"Service Unavailable","status":503,"detail":"the store is away","stored":%q}`, stored)
	}
}

// halfAnswer breaks off in the middle of the answer to a publication.
func halfAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, `{"id":`)
}

// Uncertain has answers after which a publication may be stored or not, by what has
// happened.
var Uncertain = map[string]http.HandlerFunc{
	"connection lost":        Vanishes,
	"no answer":              Hangs,
	"half an answer":         halfAnswer,
	"the store cannot tell":  Away("unknown"),
	"a proxy's 503":          Fails(503, nil),
	"a proxy's 504":          Fails(504, nil),
	"an error of the server": Fails(500, nil),
	"slow bytes":             Fails(408, nil),
}

// Vanishes breaks the connection off without an answer.
func Vanishes(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Hangs answers nothing until the client has gone.
func Hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Delivered answers that the feeds are closed and the client has all of their events.
func Delivered(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// Opened is the first block of a stream of the feed chat.
func Opened(cursor int) string {
	return "retry: 2143\n" + Control("open", fmt.Sprintf(`{"feed":"chat","cursor":"%d","first":1,"last":9}`, cursor), fmt.Sprint(cursor))
}

// OpenedAt is the first block of a stream of several feeds.
func OpenedAt(cursor string) string { return Control("open", `{"feeds":[]}`, cursor) }

// Sent is the block of an event without a type.
func Sent(id int, data string) string {
	return fmt.Sprintf("data: %s\nid: %d\n\n", strings.ReplaceAll(data, "\n", "\ndata: "), id)
}

// Wrapped is the block of an Envelope.
func Wrapped(name string, id int, data, cursor string) string {
	return fmt.Sprintf("data: %s\nid: %s\n\n", Envelope(name, id, data), cursor)
}

// Envelope is an event of the feed name in its envelope; data is JSON.
func Envelope(name string, id int, data string) string {
	return fmt.Sprintf(`{"feed":%q,"id":%d,"type":"message","time":"2026-01-31T09:30:00.000Z","data":%s}`, name, id, data)
}

// Control is the block of the control event "feed." + kind; an empty id leaves the
// line out.
func Control(kind, data, id string) string {
	b := "event: feed." + kind + "\ndata: " + data + "\n"
	if id != "" {
		b += "id: " + id + "\n"
	}
	return b + "\n"
}

// Gap is the block of a gap of the feed name.
func Gap(name string, after, resumes int, reason, id string) string {
	return Control("gap", fmt.Sprintf(`{"feed":%q,"after":"%d","resumes":%d,"reason":%q}`, name, after, resumes, reason), id)
}

// Closed is the block that follows the last event of the feed name.
func Closed(name string, last int, id string) string {
	return Control("closed", fmt.Sprintf(`{"feed":%q,"last":%d}`, name, last), id)
}

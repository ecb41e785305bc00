package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

// problem is an error as RFC 9457 has it, of type about:blank.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Stored is about what a 503 refused to publish: "no" if nothing of it was
	// stored, "unknown" if nobody can tell.
	Stored string `json:"stored,omitempty"`
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	problem{Status: status, Detail: detail}.write(w)
}

func (p problem) write(w http.ResponseWriter) {
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	// What is not there now may be there next time, and some caches keep a 404.
	w.Header().Set("Cache-Control", "no-store")
	p.Title = http.StatusText(p.Status)
	writeJSON(w, "application/problem+json", p.Status, p)
}

// retryAfter is what clients other than event streams are told to wait, in
// seconds.
const retryAfter = 2

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is written are plain structs of our own
	}
	writeBody(w, contentType, status, append(body, '\n'))
}

func writeBody(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // who is gone needs no answer
}

// errMediaType is for bodies in a form that is not understood.
var errMediaType = errors.New("unsupported")

// errNotFound is for what was never there, errGone for what no longer is.
var (
	errNotFound = errors.New("does not exist")
	errGone     = errors.New("no longer kept")
)

// statuses maps errors to what the client is told, first match first.
var statuses = []struct {
	err    error
	status int
}{
	{errDelivered, http.StatusNoContent},
	{errBodyLate, http.StatusRequestTimeout},
	{feed.ErrInvalid, http.StatusBadRequest},
	{feed.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{errForbidden, http.StatusForbidden},
	{auth.ErrUnavailable, http.StatusServiceUnavailable},
	{errMediaType, http.StatusUnsupportedMediaType},
	{feed.ErrClosed, http.StatusConflict},
	{feed.ErrKeyReused, http.StatusUnprocessableEntity},
	{errNotFound, http.StatusNotFound},
	{errGone, http.StatusGone},
	{errors.ErrUnsupported, http.StatusNotImplemented}, // by this store
	{feed.ErrUncertain, http.StatusServiceUnavailable},
	{feed.ErrOverloaded, http.StatusServiceUnavailable},
	{feed.ErrUnavailable, http.StatusServiceUnavailable},
	{feed.ErrBusy, http.StatusServiceUnavailable},
	{feed.ErrStopped, http.StatusServiceUnavailable},
	{context.Canceled, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusServiceUnavailable}, // of a call of the store …
	{os.ErrDeadlineExceeded, http.StatusServiceUnavailable},   // … or of its connection
}

// writeError answers with the problem that err is.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if other, ok := errors.AsType[*feed.LastError](err); ok {
		w.Header().Set("ETag", lastTag(other.Last))
		writeProblem(w, http.StatusPreconditionFailed, other.Error())
		return
	}
	switch status := statusOf(err); status {
	case http.StatusNoContent:
		w.WriteHeader(status)
	case http.StatusInternalServerError:
		s.logFailure(r, err)
		writeProblem(w, status, "something went wrong here; the log says what")
	default:
		words := detail(err)
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			words = strings.TrimSuffix(words, nothingStored) // nor could it have been
		}
		problem{Status: status, Detail: words, Stored: stored(r, status, err)}.write(w)
	}
}

// statusOf returns 500 for an error that nobody has foreseen.
func statusOf(err error) int {
	for _, known := range statuses {
		if errors.Is(err, known.err) {
			return known.status
		}
	}
	return http.StatusInternalServerError
}

func (s *Server) logFailure(r *http.Request, err error) {
	s.logger.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
}

// stored says what became of the events of a publish that got a 503.
func stored(r *http.Request, status int, err error) string {
	switch {
	case r.Method != http.MethodPost || status != http.StatusServiceUnavailable:
		return ""
	case errors.Is(err, feed.ErrUncertain):
		return "unknown"
	}
	return "no"
}

const nothingStored = "; nothing was stored"

// detail says what err means for the client. The words of drivers and disks
// stay in the log.
func detail(err error) string {
	switch {
	case errors.Is(err, feed.ErrUncertain):
		return "the store's answer was lost: what was published may or may not have been stored"
	case errors.Is(err, feed.ErrOverloaded):
		return "as many publishes as may are waiting for the store" + nothingStored
	case errors.Is(err, feed.ErrBusy):
		return "another transaction of the store's database holds the feed; nothing was done"
	case errors.Is(err, feed.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "the store cannot be used right now" + nothingStored
	case errors.Is(err, feed.ErrStopped):
		return "this node is stopping" + nothingStored
	case errors.Is(err, feed.ErrKeyReused):
		return "the Idempotency-Key came with another body or type before"
	case errors.Is(err, errors.ErrUnsupported):
		return "this server's store cannot do that"
	}
	return strings.TrimPrefix(err.Error(), feed.ErrInvalid.Error()+": ")
}

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
)

// problem is an error as RFC 9457 has it, of type about:blank.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	// What is not there now may be there next time, and some caches keep a 404.
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, "application/problem+json", status, problem{http.StatusText(status), status, detail})
}

// retryAfter is what clients other than event streams are told to wait, in
// seconds.
const retryAfter = 2

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is written are plain structs of our own
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // who is gone needs no answer
}

// errNotYet is for parts of the interface that this version does not have: they
// are refused, because who asks for a guarantee must not be left to believe
// that it holds.
var errNotYet = errors.New("not in this version of rejoin")

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
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
	{feed.ErrInvalid, http.StatusBadRequest},
	{feed.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{errMediaType, http.StatusUnsupportedMediaType},
	{errNotFound, http.StatusNotFound},
	{errGone, http.StatusGone},
	{errNotYet, http.StatusNotImplemented},
	{errors.ErrUnsupported, http.StatusNotImplemented}, // by this store
	{feed.ErrUncertain, http.StatusServiceUnavailable},
	{feed.ErrUnavailable, http.StatusServiceUnavailable},
	{feed.ErrStopped, http.StatusServiceUnavailable},
	{context.Canceled, http.StatusServiceUnavailable},
}

// writeError answers with the problem that err is.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		writeProblem(w, http.StatusRequestEntityTooLarge, "the body has more than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		return
	}
	for _, known := range statuses {
		if errors.Is(err, known.err) {
			writeProblem(w, known.status, detail(err))
			return
		}
	}
	s.logger.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	writeProblem(w, http.StatusInternalServerError, "something went wrong here; the log says what")
}

// detail says what err means for the client. The words of drivers and disks
// stay in the log.
func detail(err error) string {
	switch {
	case errors.Is(err, feed.ErrUncertain):
		return "the store's answer was lost: the event may or may not have been stored"
	case errors.Is(err, feed.ErrUnavailable):
		return "the store cannot be used right now; nothing was stored"
	case errors.Is(err, feed.ErrStopped):
		return "this node is stopping; nothing was stored"
	case errors.Is(err, errors.ErrUnsupported):
		return "this server's store cannot do that"
	}
	return strings.TrimPrefix(err.Error(), feed.ErrInvalid.Error()+": ")
}

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

// The errors of this package that several requests share.
var (
	errMediaType = errors.New("unsupported")
	errNotFound  = errors.New("does not exist") // and never did
	errGone      = errors.New("no longer kept")
)

const nothingStored = "; nothing was stored"

const storeAway = "the store cannot be used right now" + nothingStored

// answers maps errors to the status and the detail of the answer, and to the reason in
// metrics; the first match counts. Without a detail, the answer has the error's own
// text. The texts of drivers and disks go to the log only.
var answers = []struct {
	err    error
	status int
	detail string
	reason string // empty if the request is not refused
}{
	{errDelivered, http.StatusNoContent, "", ""},
	{errBodyLate, http.StatusRequestTimeout, "", "body_late"},
	{errBodySilent, http.StatusRequestTimeout, "", "body_late"},
	{auth.ErrNoToken, http.StatusUnauthorized, "", refusedToken},
	{auth.ErrBadToken, http.StatusUnauthorized, "", refusedToken},
	{errForeign, http.StatusForbidden, "", refusedOrigin},
	{feed.ErrInvalid, http.StatusBadRequest, "", "invalid"},
	{feed.ErrTooLarge, http.StatusRequestEntityTooLarge, "", "too_large"},
	{errForbidden, http.StatusForbidden, "", "forbidden"},
	{auth.ErrRefused, http.StatusForbidden, "", "forbidden"},
	{auth.ErrUnavailable, http.StatusServiceUnavailable, "", "auth_unavailable"},
	{errMediaType, http.StatusUnsupportedMediaType, "", "media_type"},
	{feed.ErrClosed, http.StatusConflict, "", "closed"},
	{feed.ErrKeyReused, http.StatusUnprocessableEntity, "the Idempotency-Key came with another body or type before", "key_reused"},
	{errNotFound, http.StatusNotFound, "", "not_found"},
	{errGone, http.StatusGone, "", "gone"},
	{errors.ErrUnsupported, http.StatusNotImplemented, "this server's store cannot do that", "unsupported"},
	{feed.ErrUncertain, http.StatusServiceUnavailable, "the store's answer was lost: what was published may or may not have been stored", "uncertain"},
	{feed.ErrOverloaded, http.StatusServiceUnavailable, "too many publishes are waiting for the store" + nothingStored, "overloaded"},
	{feed.ErrBusy, http.StatusServiceUnavailable, "another transaction of the store's database holds the feed; nothing was done", "busy"},
	{feed.ErrUnavailable, http.StatusServiceUnavailable, storeAway, "unavailable"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, storeAway, "unavailable"}, // of a call of the store …
	{os.ErrDeadlineExceeded, http.StatusServiceUnavailable, storeAway, "unavailable"},   // … or of its connection
	{feed.ErrStopped, http.StatusServiceUnavailable, "this node is stopping" + nothingStored, "draining"},
	{context.Canceled, http.StatusServiceUnavailable, "", "canceled"},
	{errDraining, http.StatusServiceUnavailable, "", "draining"},
	{errFull, http.StatusServiceUnavailable, "", "subscribers"},
	{errAddressFull, http.StatusTooManyRequests, "", "subscribers_per_address"},
	{errNoMemory, http.StatusServiceUnavailable, "", "memory"},
	{errRate, http.StatusTooManyRequests, "", "rate"},
}

// answerTo returns the status and the detail for an error. An error that is not in the
// table has the status 500.
func answerTo(err error) (status int, detail string) {
	status = http.StatusInternalServerError
	for _, answer := range answers {
		if errors.Is(err, answer.err) {
			status, detail = answer.status, answer.detail
			break
		}
	}
	if detail == "" {
		detail = strings.TrimPrefix(err.Error(), feed.ErrInvalid.Error()+": ")
	}
	return status, detail
}

func statusOf(err error) int {
	status, _ := answerTo(err)
	return status
}

func detailOf(err error) string {
	_, detail := answerTo(err)
	return detail
}

// writeError answers with the problem that err is.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	s.refusals.refuse(w, r, refusalOf(err))
	stream, ofStream := errors.AsType[*streamError](err)
	if other, ok := errors.AsType[*feed.LastError](err); ok {
		w.Header().Set("ETag", lastTag(other.Last))
		problem{Status: http.StatusPreconditionFailed, Detail: other.Error()}.of(stream).write(w)
		return
	}
	switch status, detail := answerTo(err); status {
	case http.StatusNoContent:
		w.WriteHeader(status)
	case http.StatusInternalServerError:
		problem{Status: status, Detail: "something went wrong here; the server's log has the cause"}.of(stream).write(w)
	default:
		if challenges := challengesTo(status, err); len(challenges) > 0 {
			w.Header()["Www-Authenticate"] = challenges
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead || ofStream {
			detail = strings.TrimSuffix(detail, nothingStored) // a read stores nothing anyway, a stream names a number
		}
		if tooFast, ok := errors.AsType[*rateError](err); ok {
			w.Header().Set("Retry-After", strconv.Itoa(tooFast.seconds()))
		}
		problem{Status: status, Detail: detail, Stored: stored(r, status, err)}.of(stream).write(w)
	}
}

// stored returns the member "stored" of the problem: whether a publish that got a 503
// stored its events.
func stored(r *http.Request, status int, err error) string {
	switch {
	case r.Method != http.MethodPost || status != http.StatusServiceUnavailable:
		return ""
	case errors.Is(err, feed.ErrUncertain):
		return "unknown"
	}
	return "no"
}

// problem is the body of an error, as in RFC 9457, of type about:blank.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Stored string `json:"stored,omitempty"` // "no", "unknown", or empty if it does not apply

	// Of a published stream: how many events are stored, and the line of the refused one.
	Events *int `json:"events,omitempty"`
	Line   int  `json:"line,omitempty"`
}

// streamError ends a published stream before the end of its body.
type streamError struct {
	events int // that are stored
	err    error
}

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// of adds to the problem what e has about its stream. e may be nil.
func (p problem) of(e *streamError) problem {
	if e == nil {
		return p
	}
	p.Events = &e.events
	if bad, ok := errors.AsType[*lineError](e.err); ok {
		p.Line = bad.number
	}
	return p
}

// retryAfter is the value of Retry-After, in seconds, for clients without an event
// stream.
const retryAfter = 2

func writeProblem(w http.ResponseWriter, status int, detail string) {
	problem{Status: status, Detail: detail}.write(w)
}

func (p problem) write(w http.ResponseWriter) {
	if again := p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests; again && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	// The next request may succeed, but some caches keep even a 404.
	w.Header().Set("Cache-Control", "no-store")
	p.Title = http.StatusText(p.Status)
	writeJSON(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is always one of this package's own structs
	}
	writeBody(w, contentType, status, append(body, '\n'))
}

func writeBody(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has gone
}

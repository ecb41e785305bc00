package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

var (
	// ErrViolation is for a server that broke the contract: an event is missing,
	// came twice or out of order, or a stream cannot be understood. To go on
	// would lose events.
	ErrViolation = errors.New("the server broke its promise")
	// ErrExpired is for a token whose time is up in mid-stream.
	ErrExpired = errors.New("the token's time is up")
	// ErrDelivered is for a subscription whose feeds are all closed, and whose
	// cursor is at their ends.
	ErrDelivered = errors.New("all is delivered, and closed")
)

// Problem is an answer other than the one that was hoped for.
//
// errors.Is finds in it the error of package feed that the status stands for:
// feed.ErrInvalid, feed.ErrTooLarge, feed.ErrClosed, feed.ErrKeyReused, and a
// [*feed.LastError] with the feed's last id if that was not IfLast.
type Problem struct {
	Status     int
	Detail     string
	Stored     string        // "no" if nothing was stored, "unknown" if the server cannot tell; else empty
	RetryAfter time.Duration // that the server asks for
	Events     int           // of a published stream, that are stored
	Line       int           // of a published stream: the refused one, from 1; else 0

	cause error
}

func (p *Problem) Error() string { return fmt.Sprintf("%s (status %d)", p.Detail, p.Status) }

// Unwrap returns the error of package feed, or nil.
func (p *Problem) Unwrap() error { return p.cause }

// Temporary reports whether the same request may succeed later.
func (p *Problem) Temporary() bool {
	return p.Status == http.StatusTooManyRequests || p.Status == http.StatusRequestTimeout ||
		p.Status >= 500 && p.Status != http.StatusNotImplemented
}

// causes maps statuses to errors of package feed.
var causes = map[int]error{
	http.StatusBadRequest:            feed.ErrInvalid,
	http.StatusRequestEntityTooLarge: feed.ErrTooLarge,
	http.StatusConflict:              feed.ErrClosed,
	http.StatusUnprocessableEntity:   feed.ErrKeyReused,
}

// problemBytes bounds what is read of an error response.
const problemBytes = 64 << 10

// ReadProblem reads an error response, of this server or of a proxy. It does
// not close the body.
func ReadProblem(resp *http.Response) *Problem {
	p := &Problem{Status: resp.StatusCode, Detail: http.StatusText(resp.StatusCode), cause: causes[resp.StatusCode]}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	if p.Detail == "" {
		p.Detail = "unexpected answer"
	}
	if last, err := feed.ParseCursor(strings.Trim(resp.Header.Get("ETag"), `"`)); err == nil && p.Status == http.StatusPreconditionFailed {
		p.cause = &feed.LastError{Last: last}
	}
	if location, err := resp.Location(); err == nil && p.Status/100 == 3 {
		p.Detail = "the server points to " + location.Redacted() + ", which its URL should say"
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "application/problem+json" {
		return p
	}
	var body struct {
		Title, Detail, Stored string
		Events, Line          int
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, problemBytes)).Decode(&body); err != nil {
		return p
	}
	p.Stored, p.Events, p.Line = body.Stored, body.Events, body.Line
	for _, words := range []string{body.Title, body.Detail} {
		if words != "" {
			p.Detail = words
		}
	}
	return p
}

package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 30 * time.Second

// boundBody bounds the time that the request's body may take, whether somebody
// reads it or not: before it answers, net/http waits for what nobody has read.
// It lifts the bound itself when the body is there.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// boundBodies bounds bodies, those too that no request of the kind should have.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundBody(w, r)
		next.ServeHTTP(w, r)
	})
}

// readBody returns the whole body, of at most limit bytes. what is its name in
// the error, which wraps feed.ErrInvalid, feed.ErrTooLarge or
// os.ErrDeadlineExceeded.
func readBody(w http.ResponseWriter, r *http.Request, what string, limit int) ([]byte, error) {
	if r.ContentLength > int64(limit) {
		return nil, bodyTooLarge(what, limit)
	}
	// What is announced may never come.
	const trusted = 128 << 10
	body := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), trusted)+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(limit)))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge(what, limit)
	}
	switch {
	case err == nil:
		return body.Bytes(), nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the %s took longer than %v to come: %w", what, bodyTimeout, os.ErrDeadlineExceeded)
	}
	return nil, invalid("reading the %s: %v", what, err)
}

func bodyTooLarge(what string, limit int) error {
	return fmt.Errorf("%w: the %s has more than %d bytes", feed.ErrTooLarge, what, limit)
}

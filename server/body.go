package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
//
// A body in chunks is the last of its connection. It may have had a
// Content-Length too, which net/http passes over in silence: a proxy that went
// by that would take the rest of it for the next client's request (RFC 9112,
// section 6.1).
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	if len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close")
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
	body, err := readAll(w, r, limit)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge(what, limit)
	}
	switch {
	case err == nil:
		return body, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the %s took longer than %v to come: %w", what, bodyTimeout, os.ErrDeadlineExceeded)
	}
	return nil, invalid("reading the %s: %v", what, err)
}

func readAll(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	// What is announced may never come.
	const trusted = 128 << 10
	if 0 <= r.ContentLength && r.ContentLength <= trusted {
		// A byte more, to see the end.
		body := make([]byte, r.ContentLength+1)
		n, err := io.ReadFull(r.Body, body)
		if int64(n) == r.ContentLength && (err == io.EOF || err == io.ErrUnexpectedEOF) {
			err = nil
		}
		return body[:n], err
	}
	body := bytes.NewBuffer(make([]byte, 0, trusted+bytes.MinRead))
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(limit)))
	return body.Bytes(), err
}

func bodyTooLarge(what string, limit int) error {
	return fmt.Errorf("%w: the %s has more than %d bytes", feed.ErrTooLarge, what, limit)
}

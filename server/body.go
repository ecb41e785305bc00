package server

import (
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

var errBodyLate = fmt.Errorf("took longer than %v to come", bodyTimeout)

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

// readBody hands the whole body, of at most limit bytes, to use, which does not keep
// it. what is its name in the error, which is that of use, or wraps feed.ErrInvalid,
// feed.ErrTooLarge, feed.ErrOverloaded or errBodyLate.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, what string, limit int, use func(body []byte) error) error {
	if r.ContentLength > int64(limit) {
		return bodyTooLarge(what, limit)
	}
	body, held, err := s.readAll(http.MaxBytesReader(w, r.Body, int64(limit)), r.ContentLength)
	defer s.memory.Give(feed.HoldPublishes, held)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return bodyTooLarge(what, limit)
	}
	switch {
	case err == nil:
		return use(body)
	case errors.Is(err, feed.ErrOverloaded):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the %s %w", what, errBodyLate)
	}
	return invalid("reading the %s: %v", what, err)
}

// readAll reads a body that is said to have so many bytes; less than 0 is unknown. It
// takes memory as they come, since what is announced may never come: the caller gives
// it back.
func (s *Server) readAll(from io.Reader, announced int64) (body []byte, held int, err error) {
	const trusted = 4 << 10
	size := trusted
	if announced >= 0 {
		size = int(min(announced+1, trusted)) // a byte more, to see the end
		if !s.memory.Has(feed.HoldPublishes, int(announced)) {
			return nil, 0, feed.ErrOverloaded // which spares us to read it
		}
	}
	for {
		if !s.memory.Take(feed.HoldPublishes, size-held) {
			return nil, held, feed.ErrOverloaded
		}
		held = size
		body = append(make([]byte, 0, size), body...)
		for len(body) < cap(body) {
			n, err := from.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			if err == io.EOF {
				return body, held, nil
			}
			if err != nil {
				return nil, held, err
			}
		}
		// Of a body that has begun to come, the rest is likely to.
		if size *= 16; announced >= int64(len(body)) {
			size = int(min(int64(size), announced+1))
		}
	}
}

func bodyTooLarge(what string, limit int) error {
	return fmt.Errorf("%w: the %s has more than %d bytes", feed.ErrTooLarge, what, limit)
}

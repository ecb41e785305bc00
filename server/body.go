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

// BodyTimeout limits the time that a client takes to send a body. As the ReadTimeout
// of an http.Server without TLS, it costs a request less than a deadline of its own.
const BodyTimeout = 30 * time.Second

var errBodyLate = fmt.Errorf("took longer than %v to arrive", BodyTimeout)

// boundBody sets a deadline for the request's body, even if no handler reads it:
// net/http reads the rest before it answers. It removes the deadline itself after the
// body.
//
// A chunked body is the last on its connection. The request may also have had a
// Content-Length, which net/http ignores: a proxy that relied on it would take the rest
// of the body for the next client's request (RFC 9112, section 6.1).
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	if !boundByServer(r) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(BodyTimeout))
	}
	if len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close")
	}
}

// boundByServer reports whether net/http has set a deadline for the body already.
func boundByServer(r *http.Request) bool {
	s, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	return ok && r.ProtoMajor == 1 && 0 < s.ReadTimeout && s.ReadTimeout <= BodyTimeout
}

// boundBodies sets the deadline for all requests, including those that should have no
// body.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundBody(w, r)
		next.ServeHTTP(w, r)
	})
}

// readBody passes the whole body, of up to limit bytes, to use, which must not change it.
// Errors call the body by name. They are from use, or wrap feed.ErrInvalid,
// feed.ErrTooLarge, feed.ErrOverloaded or errBodyLate.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, name string, limit int, use func(body []byte) error) error {
	if r.ContentLength > int64(limit) {
		return bodyTooLarge(name, limit)
	}
	body, held, err := s.readAll(http.MaxBytesReader(original(w), r.Body, int64(limit)), r.ContentLength)
	defer s.memory.Give(feed.HoldPublishes, held)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return bodyTooLarge(name, limit)
	}
	switch {
	case err == nil:
		return use(body)
	case errors.Is(err, feed.ErrOverloaded):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the %s %w", name, errBodyLate)
	}
	return invalid("reading the %s: %v", name, err)
}

// readAll reads a body that announces its length; -1 means that it does not. It charges
// the memory budget for bytes as they arrive, because announced bytes may never come.
// The caller gives held back.
func (s *Server) readAll(from io.Reader, announced int64) (body []byte, held int, err error) {
	const trusted = 4 << 10
	size := trusted
	if announced >= 0 {
		size = int(min(announced+1, trusted)) // a byte more, to see the end
		if !s.memory.Has(feed.HoldPublishes, int(announced)) {
			return nil, 0, feed.ErrOverloaded // without reading it
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
		// The rest of a body that has begun to arrive is likely to arrive, too.
		if size *= 16; announced >= int64(len(body)) {
			size = int(min(int64(size), announced+1))
		}
	}
}

func bodyTooLarge(name string, limit int) error {
	return fmt.Errorf("%w: the %s has more than %d bytes", feed.ErrTooLarge, name, limit)
}

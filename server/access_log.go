package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// accessEntry is what the access log has about a request.
type accessEntry struct {
	method, path, feed, subject, id string
	address                         netip.Addr
	began                           time.Time
	bytes                           int64 // of the answer's body
	stream                          bool  // it is a stream's, which logs it at its end
}

// describe notes what the request is, once its route is known. It keeps nothing of the
// request in memory.
func (a *accessEntry) describe(s *Server, w http.ResponseWriter, r *http.Request) {
	a.method, a.path = strings.Clone(shortened(r.Method)), strings.Clone(pathOf(r))
	a.feed, a.id = strings.Clone(feedOf(r, nil)), strings.Clone(requestID(w))
	a.address = s.options().TrustedProxies.Client(r).Address
}

// log logs a request that has ended. A reason is why a stream ended.
func (a *accessEntry) log(logger *slog.Logger, status int, reason string) {
	attrs := append(make([]slog.Attr, 0, 10),
		slog.String("method", a.method), slog.String("path", a.path), slog.Int("status", status),
		slog.Int64("bytes", a.bytes), slog.Duration("duration", time.Since(a.began).Round(time.Microsecond)))
	if reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	logger.LogAttrs(context.Background(), slog.LevelInfo, "request", appendOrigin(attrs, a.feed, a.subject, a.address, a.id)...)
}

// countRequests counts each request after its answer, and logs it if there is an access
// log. A stream that the engine writes counts when the engine takes it over, any other
// when it has ended. Streams log themselves when they have ended.
func (s *Server) countRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, returned := &countedResponse{ResponseWriter: w}, false
		identify(w, r, &answer.id)
		if s.options().AccessLog {
			answer.access = &accessEntry{began: time.Now()}
		}
		defer func() {
			status, reason := answer.status, ""
			switch {
			case status != 0:
			case returned:
				status = http.StatusOK
			default:
				status = http.StatusInternalServerError // it panicked
			}
			if !returned {
				reason = "broken off"
			}
			s.counters.request(r.Pattern, status)
			if a := answer.access; a != nil && !a.stream {
				a.describe(s, w, r)
				a.log(s.logger, status, reason)
			}
		}()
		next.ServeHTTP(answer, r)
		returned = true
	})
}

// countedResponse notes what became of an answer.
type countedResponse struct {
	http.ResponseWriter
	status int          // 0 before there is one
	access *accessEntry // nil without an access log
	id     [1]string    // backs the header with the request's id
}

func (w *countedResponse) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedResponse) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	if w.access != nil {
		w.access.bytes += int64(n)
	}
	return n, err
}

// Unwrap is for [http.ResponseController].
func (w *countedResponse) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// original returns the writer of net/http, which [http.MaxBytesReader] needs.
func original(w http.ResponseWriter) http.ResponseWriter {
	if counted, ok := w.(*countedResponse); ok {
		return counted.ResponseWriter
	}
	return w
}

// noteSubject notes the subject of the request's token for the access log.
func noteSubject(w http.ResponseWriter, subject string) {
	if answer, ok := w.(*countedResponse); ok && answer.access != nil {
		answer.access.subject = subject
	}
}

// takeAccess returns the entry of a stream, which logs it at its end. It is nil without
// an access log.
func (s *Server) takeAccess(w http.ResponseWriter, r *http.Request) *accessEntry {
	answer, ok := w.(*countedResponse)
	if !ok || answer.access == nil {
		return nil
	}
	answer.access.describe(s, w, r)
	answer.access.stream = true
	access := *answer.access // which also counts what net/http writes
	return &access
}

// logChange logs a change of a feed that a client has made.
func (s *Server) logChange(w http.ResponseWriter, r *http.Request, change, feed string, more ...slog.Attr) {
	if !s.logger.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	address := s.options().TrustedProxies.Client(r).Address
	s.logger.LogAttrs(r.Context(), slog.LevelInfo, change, appendOrigin(more, feed, grantOf(r.Context()).Subject(), address, requestID(w))...)
}

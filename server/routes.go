package server

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// router returns the whole route table.
func (s *Server) router() http.Handler {
	r := chi.NewRouter()
	r.Use(escapedPaths, s.logRequests, boundBodies)

	r.Post("/v1/feeds/{feed}/events", s.publish)
	r.Post("/v1/feeds/{feed}/close", s.closeFeed)
	r.Post("/v1/events", s.publishMany)
	r.Get("/v1/feeds/{feed}/events", s.subscribe)
	r.Head("/v1/feeds/{feed}/events", s.subscribe)

	r.Get("/healthz", s.healthz)
	r.Get("/readyz", s.readyz)

	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)
	return r
}

// escapedPaths makes chi match the path as it was sent, so that feedName can
// unescape it once, whatever it holds.
func escapedPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chi.RouteContext(r.Context()).RoutePath = r.URL.EscapedPath()
		next.ServeHTTP(w, r)
	})
}

// feedName returns the name of the feed in the path. The error wraps
// feed.ErrInvalid.
func feedName(r *http.Request) (string, error) {
	name, err := url.PathUnescape(chi.URLParam(r, "feed"))
	if err != nil {
		name = chi.URLParam(r, "feed")
	}
	return name, feed.CheckName(name)
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if s.options.Console != nil {
		s.options.Console.ServeHTTP(w, r)
		return
	}
	writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %.100s", r.URL.Path))
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), method, r.URL.EscapedPath()) {
			w.Header().Add("Allow", method)
		}
	}
	writeProblem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%.20s is not possible here", r.Method))
}

// logRequests logs each request when it has been answered, for debugging. The
// query stays out: it is where tokens travel.
func (s *Server) logRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		defer func() {
			s.logger.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "took", time.Since(begin))
		}()
		next.ServeHTTP(w, r)
	})
}

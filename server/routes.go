package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// router returns the whole route table.
func (s *Server) router() http.Handler {
	r := chi.NewRouter()
	r.Use(escapedPaths, s.logRequests, boundBodies, allowOrigins(s.options.Origins))

	r.Group(func(r chi.Router) {
		r.Use(s.authenticate)

		publishes := r.With(s.may(publishing))
		publishes.Post("/v1/feeds/{feed}/events", s.publish)
		publishes.Post("/v1/feeds/{feed}/close", s.closeFeed)
		r.Post("/v1/events", s.publishMany) // asks for each feed

		subscribes := r.With(s.may(subscribing))
		getAndHead(subscribes, "/v1/feeds/{feed}/events", s.subscribe)
		getAndHead(subscribes, "/v1/feeds/{feed}/events/{id}", s.event)
		getAndHead(subscribes, "/v1/feeds/{feed}", s.feedInfo)
		getAndHead(r, "/v1/events", s.subscribeMany) // asks for each feed

		admins := r.With(s.mayAdmin)
		getAndHead(admins, "/v1/feeds", s.feeds)
		admins.Delete("/v1/feeds/{feed}", s.deleteFeed)
		admins.Delete("/v1/feeds/{feed}/events", s.trim)
	})

	getAndHead(r, "/healthz", s.healthz)
	getAndHead(r, "/readyz", s.readyz)
	getAndHead(r, "/openapi.yaml", describeInterface)

	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)
	return r
}

func getAndHead(r chi.Router, pattern string, h http.HandlerFunc) {
	r.Get(pattern, h)
	r.Head(pattern, h)
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
		if !s.logger.Enabled(r.Context(), slog.LevelDebug) {
			next.ServeHTTP(w, r)
			return
		}
		begin := time.Now()
		defer func() {
			s.logger.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "took", time.Since(begin))
		}()
		next.ServeHTTP(w, r)
	})
}

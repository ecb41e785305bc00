package server

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// requestContext is the context of a request. It has from the start what chi and
// authenticate would add, because a request is copied for each context it gets. It hides
// the router in which the server is mounted.
type requestContext struct {
	context.Context
	route  *chi.Context
	access access
}

// Value implements [context.Context].
func (c *requestContext) Value(key any) any {
	switch key {
	case chi.RouteCtxKey:
		return c.route
	case accessKey{}:
		return &c.access
	}
	return c.Context.Value(key)
}

// routeContexts holds contexts for requests to come.
var routeContexts = sync.Pool{New: func() any { return chi.NewRouteContext() }}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route := routeContexts.Get().(*chi.Context)
	route.Reset()
	route.Routes = s.routes
	r = withoutBasePath(r, s.options().BasePath)
	s.routes.ServeHTTP(w, r.WithContext(&requestContext{Context: r.Context(), route: route}))
	routeContexts.Put(route) // unless the handler has panicked, and may still use it
}

// router returns the whole route table.
func (s *Server) router(traces *Traces) chi.Router {
	r := chi.NewRouter()
	r.Use(escapedPaths, s.countRequests, boundBodies, s.allowOrigins)

	r.Group(func(r chi.Router) {
		r.Use(s.authenticate)

		publishes := r.With(s.may(publishing), traces.publishes)
		publishes.Post("/v1/feeds/{feed}/events", s.publish)
		r.With(s.may(closing)).Post("/v1/feeds/{feed}/close", s.closeFeed)
		r.With(traces.publishes).Post("/v1/events", s.publishMany) // checks the permission for each feed

		streams := r.With(s.mayStream)
		getAndHead(streams, "/v1/feeds/{feed}/events", s.subscribe) // a stream or a page
		getAndHead(streams, "/v1/feeds/{feed}/stream", s.subscribeBare)
		subscribes := r.With(s.may(subscribing))
		getAndHead(subscribes, "/v1/feeds/{feed}/events/{id}", s.event)
		getAndHead(subscribes, "/v1/feeds/{feed}", s.feedInfo)
		getAndHead(r, "/v1/events", s.subscribeMany) // checks the permission for each feed

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

// Waiting returns the handler of a node that has not reached its store yet: it is alive
// and not ready. It serves the console, which shows that and needs no store. Event streams
// get a retry time, which does not stop a browser; all other requests get 503. Of the
// options, BasePath, Console, Origins and Refusals count.
func Waiting(o Options) http.Handler {
	wait := func(w http.ResponseWriter, r *http.Request) {
		refuse := func() { o.Refusals.refuse(w, r, refusalOf(feed.ErrUnavailable)) }
		boundBody(w, r)
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case r.URL.Path == "/healthz":
			writeAlive(w)
		case r.URL.Path == "/readyz":
			writeReadiness(w, readiness{Store: "down", Bus: "down"})
		case r.URL.Path == "/openapi.yaml" && reads:
			describeInterface(w, r)
		case o.Console != nil && reads && !strings.HasPrefix(r.URL.Path, "/v1/"):
			serveConsole(o.Console, o.Refusals, w, r)
		case r.Method == http.MethodPost:
			refuse()
			status := http.StatusServiceUnavailable
			problem{Status: status, Detail: detailOf(feed.ErrUnavailable), Stored: stored(r, status, nil)}.write(w)
		default:
			refuse()
			answerRetryLater(w, r, http.StatusServiceUnavailable, "this node has not reached its store yet")
		}
	}
	handler := o.Refusals.watchPreflights(o.Origins)(allowOrigins(o.Origins)(http.HandlerFunc(wait)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &countedResponse{ResponseWriter: w}
		identify(answer, r, &answer.id)
		handler.ServeHTTP(answer, withoutBasePath(r, o.BasePath))
	})
}

func getAndHead(r chi.Router, pattern string, h http.HandlerFunc) {
	r.Get(pattern, h)
	r.Head(pattern, h)
}

// allowOrigins lets pages of other origins use next, as the options of the moment have it.
func (s *Server) allowOrigins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.options().allowOrigins(next).ServeHTTP(w, r)
	})
}

// escapedPaths makes chi match the path as it was sent, so that pathParam can unescape
// each part once.
func escapedPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chi.RouteContext(r.Context()).RoutePath = r.URL.EscapedPath()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	if console := s.options().Console; console != nil {
		serveConsole(console, s.refusals, w, r)
		return
	}
	s.refusals.refuse(w, r, refusal{refusedPath, http.StatusNotFound, nil})
	writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is nothing at %.100s", r.URL.Path))
}

// serveConsole answers with the console, and counts what that refuses. The pages are below
// the base path, so the base path itself leads there.
func serveConsole(console http.Handler, refusals *Refusals, w http.ResponseWriter, r *http.Request) {
	if base := basePathOf(r); base != "" && r.URL.Path == "" && r.URL.Opaque == "" {
		w.Header().Set("Location", base+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	console.ServeHTTP(w, r)
	if answer, ok := w.(*countedResponse); ok && answer.status >= http.StatusBadRequest {
		reason := refusedPath
		if answer.status == http.StatusMethodNotAllowed {
			reason = refusedMethod
		}
		refusals.refuse(w, r, refusal{reason, answer.status, nil})
	}
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), method, r.URL.EscapedPath()) {
			w.Header().Add("Allow", method)
		}
	}
	s.refusals.refuse(w, r, refusal{refusedMethod, http.StatusMethodNotAllowed, nil})
	writeProblem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%.20s is not possible here", r.Method))
}

// openAPI describes the interface. A test compares it with the routes and their
// answers.
//
//go:embed openapi.yaml
var openAPI string

var openAPITag = entityTag(openAPI)

const openAPIServer = "\nservers:\n  - url: /"

// describeInterface answers with the description of the interface: GET /openapi.yaml.
func describeInterface(w http.ResponseWriter, r *http.Request) {
	base := basePathOf(r)
	if notModified(w, r, entityTag(openAPITag, base), "no-cache") {
		return
	}
	text := strings.Replace(openAPI, openAPIServer, openAPIServer+strings.TrimPrefix(base, "/"), 1)
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text) // an error means that the client has gone
}

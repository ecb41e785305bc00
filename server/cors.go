package server

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/cors"
)

// anyOrigin means all origins in Options.Origins.
const anyOrigin = "*"

// preflightSeconds is how long a browser may cache the answer to a preflight request.
const preflightSeconds = 600

// CheckOrigins returns an error unless each origin has the exact form that browsers
// send (RFC 6454, section 6.2), or the list is * alone.
func CheckOrigins(origins []string) error {
	for _, origin := range origins {
		if origin == anyOrigin {
			if len(origins) > 1 {
				return errors.New("* cannot be combined with other origins")
			}
			return nil
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || origin != strings.ToLower(u.Scheme+"://"+u.Host) || strings.Contains(origin, "*") {
			return fmt.Errorf("%.100q is not an origin such as https://example.com", origin)
		}
		if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
			return fmt.Errorf("%.100q has the default port, which browsers omit", origin)
		}
	}
	return nil
}

// crossOriginProtection returns a protection against requests from pages of other
// origins than these. It ignores those that CheckOrigins refuses.
func crossOriginProtection(origins []string) *http.CrossOriginProtection {
	protection := http.NewCrossOriginProtection()
	for _, origin := range origins {
		_ = protection.AddTrustedOrigin(origin)
	}
	return protection
}

// allowOrigins lets pages of these origins use next: with cookies, unless all origins
// are allowed.
func allowOrigins(origins []string) func(next http.Handler) http.Handler {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	options := cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete},
		AllowedHeaders: []string{"Accept", "Authorization", "Cache-Control", "Content-Type", "Event-Type", "Idempotency-Key",
			"If-Match", "If-None-Match", "Last-Event-ID", traceparent, requestIDHeader},
		ExposedHeaders: []string{"ETag", "Idempotency-Replayed", "Link", "Location", "Retry-After", requestIDHeader, tailIndexHeader},
		MaxAge:         preflightSeconds,
	}
	if !slices.Contains(origins, anyOrigin) {
		// The library's list of origins would also match patterns.
		options.AllowOriginFunc = func(_ *http.Request, origin string) bool { return slices.Contains(origins, origin) }
		options.AllowCredentials = true
	}
	return cors.Handler(options)
}

// watchPreflights notes the preflight requests of pages that allowOrigins refuses. Their
// answers look like any other: they only lack what lets the browser go on.
func (f *Refusals) watchPreflights(origins []string) func(next http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if len(origins) == 0 || slices.Contains(origins, anyOrigin) {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			origin := r.Header.Get("Origin")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && !slices.Contains(origins, origin) {
				f.refuse(w, r, refusal{refusedOrigin, http.StatusForbidden, fmt.Errorf("the origin is %.100q", origin)})
			}
			next.ServeHTTP(w, r)
		})
	}
}

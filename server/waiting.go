package server

import "net/http"

// Waiting returns the handler of a node that has yet to reach its store: alive,
// not ready. Event streams are told to come back soon, and nothing that would
// stop a browser; everybody else gets 503. A browser has to be allowed to see
// even that, so origins are as in [Options].
func Waiting(origins []string) http.Handler {
	return allowOrigins(origins)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			alive(w)
		case "/readyz":
			writeReadiness(w, readiness{Store: "down", Bus: "down"})
		default:
			shed(w, r, http.StatusServiceUnavailable, "this node has not reached its store yet; nothing was stored")
		}
	}))
}

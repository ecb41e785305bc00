package server

import (
	"net/http"

	"github.com/rejoin/rejoin/feed"
)

// Waiting returns the handler of a node that has yet to reach its store: alive,
// not ready. Event streams are told to come back soon, and nothing that would
// stop a browser; everybody else gets 503. A browser has to be allowed to see
// even that, so origins are as in [Options].
func Waiting(origins []string) http.Handler {
	return allowOrigins(origins)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundBody(w, r)
		switch {
		case r.URL.Path == "/healthz":
			alive(w)
		case r.URL.Path == "/readyz":
			writeReadiness(w, readiness{Store: "down", Bus: "down"})
		case r.URL.Path == "/openapi.yaml" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			describeInterface(w, r)
		case r.Method == http.MethodPost:
			status := http.StatusServiceUnavailable
			problem{Status: status, Detail: detail(feed.ErrUnavailable), Stored: stored(r, status, nil)}.write(w)
		default:
			answerRetryLater(w, r, http.StatusServiceUnavailable, "this node has not reached its store yet")
		}
	}))
}

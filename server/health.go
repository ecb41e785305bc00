package server

import (
	"context"
	"net/http"
	"time"
)

// readyTimeout is how long the store and the bus have to show that they work.
const readyTimeout = 2 * time.Second

// healthz says that the process is alive.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, "application/json", http.StatusOK, struct {
		Status string `json:"status"`
	}{"alive"})
}

// readyz says whether this node should get traffic: its store answers and it
// is not draining. The bus being away does not count, as nothing is lost by it.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	health := s.hub.Health(ctx)
	draining := s.isDraining()
	status := http.StatusOK
	if health.Store != nil || draining {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, "application/json", status, struct {
		Ready    bool   `json:"ready"`
		Draining bool   `json:"draining"`
		Store    string `json:"store"`
		Bus      string `json:"bus"`
	}{status == http.StatusOK, draining, state(health.Store), state(health.Bus)})
}

func state(err error) string {
	if err != nil {
		return "down"
	}
	return "up"
}

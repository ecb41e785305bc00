package server

import (
	"context"
	"net/http"
	"time"
)

// readyTimeout is how long the store and the bus have to show that they work.
const readyTimeout = 2 * time.Second

// healthz says that the process is alive.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { alive(w) }

func alive(w http.ResponseWriter) {
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
	writeReadiness(w, readiness{
		Ready:    health.Store == nil && !draining,
		Draining: draining,
		Store:    state(health.Store),
		Bus:      state(health.Bus),
	})
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready    bool   `json:"ready"`
	Draining bool   `json:"draining"`
	Store    string `json:"store"` // up or down
	Bus      string `json:"bus"`
}

func writeReadiness(w http.ResponseWriter, ready readiness) {
	status := http.StatusOK
	if !ready.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, "application/json", status, ready)
}

func state(err error) string {
	if err != nil {
		return "down"
	}
	return "up"
}

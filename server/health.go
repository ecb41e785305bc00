package server

import (
	"context"
	"net/http"
	"time"
)

// readyTimeout limits the time in which the store and the bus have to answer.
const readyTimeout = 2 * time.Second

// healthz reports that the process is alive.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { writeAlive(w) }

func writeAlive(w http.ResponseWriter) {
	writeJSON(w, "application/json", http.StatusOK, struct {
		Status string `json:"status"`
	}{"alive"})
}

// readyz reports whether this node should get traffic: its store answers and it is not
// draining. The bus does not count, because its absence loses nothing.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	health := s.hub.Health(ctx)
	draining := s.isDraining()
	writeReadiness(w, readiness{
		Ready:    health.Store == nil && !draining,
		Draining: draining,
		Store:    upOrDown(health.Store),
		Bus:      upOrDown(health.Bus),
	})
}

// readiness is the body of /readyz.
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

func upOrDown(err error) string {
	if err != nil {
		return "down"
	}
	return "up"
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// TestErrorStatus: an error of the store has the right answer, whatever it wraps.
func TestErrorStatus(t *testing.T) {
	s := &Server{refusals: NewRefusals(slog.New(slog.DiscardHandler), nil), counters: newCounters(chi.NewRouter())}
	for _, test := range []struct {
		name   string
		err    error
		status int
		words  string
		stored string
	}{
		{"the body is late", fmt.Errorf("the event %w", errBodyLate), 408, "the event took", ""},
		{"away, after a deadline of the network", fmt.Errorf("%w: %w", feed.ErrUnavailable, os.ErrDeadlineExceeded), 503, "the store cannot be used right now", "no"},
		{"away, after a deadline of a call", fmt.Errorf("%w: %w", feed.ErrUnavailable, context.DeadlineExceeded), 503, "the store cannot be used right now", "no"},
		{"uncertain, after a deadline", fmt.Errorf("%w: %w", feed.ErrUncertain, os.ErrDeadlineExceeded), 503, "may or may not have been stored", "unknown"},
		{"a deadline of the network alone", fmt.Errorf("secret: %w", os.ErrDeadlineExceeded), 503, "the store cannot be used right now", "no"},
		{"a deadline of a call alone", fmt.Errorf("secret: %w", context.DeadlineExceeded), 503, "the store cannot be used right now", "no"},
		{"held", fmt.Errorf("%w: x", feed.ErrBusy), 503, "another transaction of the store's database holds the feed", "no"},
		{"held for long", fmt.Errorf("%w: %w: secret", feed.ErrUnavailable, feed.ErrBusy), 503, "another transaction of the store's database holds the feed", "no"},
		{"anything else", errors.New("secret"), 500, "the server's log has the cause", ""},
	} {
		w := httptest.NewRecorder()
		s.writeError(w, httptest.NewRequest("POST", "/v1/feeds/chat/events", nil), test.err)
		var p problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if w.Code != test.status || !strings.Contains(p.Detail, test.words) || p.Stored != test.stored || strings.Contains(p.Detail, "secret") {
			t.Errorf("%s: got %d %+v, want %d, %q, stored %q", test.name, w.Code, p, test.status, test.words, test.stored)
		}
	}
}

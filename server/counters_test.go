package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/engine"
)

func TestEndingOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{engine.ErrClientGone, "client"},
		{fmt.Errorf("write: %w", io.ErrClosedPipe), "client"},
		{context.Canceled, "client"},
		{engine.ErrStalled, "stalled"},
		{fmt.Errorf("write: %w", os.ErrDeadlineExceeded), "stalled"},
		{feed.ErrClosed, "closed"},
		{errExpired, "expired"},
		{errMaxAge, "max_age"},
		{errDraining, "draining"},
		{feed.ErrStopped, "draining"},
		{engine.ErrStopped, "draining"},
		{errNoMemory, "memory"},
		{errGap, "gap"},
		{errTorn, "torn"},
		{&engine.PanicError{}, "failed"},
	} {
		if got := endingOf(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
}

func TestRefusalOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&feed.LastError{}, "precondition"},
		{fmt.Errorf("%w: x", feed.ErrInvalid), "invalid"},
		{fmt.Errorf("%w: %w", feed.ErrUnavailable, feed.ErrBusy), "busy"},
		{fmt.Errorf("publish: %w", feed.ErrOverloaded), "overloaded"},
		{errAddressFull, "subscribers_per_address"},
		{errDelivered, ""},
		{errors.New("secret"), "failed"},
	} {
		if got := refusalOf(test.err); got.reason != test.want {
			t.Errorf("%v: %q, want %q", test.err, got.reason, test.want)
		}
	}
}

// TestRequestsAreBounded: neither a path nor a status of a request makes a new series.
func TestRequestsAreBounded(t *testing.T) {
	s := New(newHub(t), nil, Options{})
	series := len(s.counters.requests)
	for _, path := range []string{"/", "/x", "/v1/feeds/a/b/c", "/v1/feeds/%2F/events", "//"} {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	s.counters.request("/made/up", http.StatusOK)
	s.counters.request(otherRoute, 0)
	s.counters.request(otherRoute, 999)
	if len(s.counters.requests) != series || s.counters.requests[otherRoute][http.StatusOK-100].Load() != 1 {
		t.Errorf("%d series, want %d", len(s.counters.requests), series)
	}
}

// TestCountedResponse: a panic before the answer counts as a failure, and net/http still
// closes the connection after a body that is too large.
func TestCountedResponse(t *testing.T) {
	router := chi.NewRouter()
	s := &Server{}
	s.settings.Store(&settings{})
	router.Use(s.countRequests)
	router.Get("/panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	router.Get("/late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		panic(http.ErrAbortHandler)
	})
	router.Get("/nothing", func(http.ResponseWriter, *http.Request) {})
	s.counters = newCounters(router)
	for path, status := range map[string]int{"/panic": 500, "/late": 418, "/nothing": 200} {
		func() {
			defer func() { _ = recover() }()
			router.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		}()
		if n := s.counters.requests[path][status-100].Load(); n != 1 {
			t.Errorf("%s: %d answers with %d", path, n, status)
		}
	}
	w := httptest.NewRecorder()
	if original(&countedResponse{ResponseWriter: w}) != http.ResponseWriter(w) || original(w) != http.ResponseWriter(w) {
		t.Error("the writer of net/http is lost")
	}
}

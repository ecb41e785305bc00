package server

import (
	"errors"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/engine"
)

// counters counts what a server does, for [Metrics].
type counters struct {
	rejected   atomic.Uint64 // subscribers that were not admitted
	opened     atomic.Uint64 // streams
	ended      map[string]*atomic.Uint64
	slow       atomic.Int64               // streams whose client does not keep up
	refused    map[string]*atomic.Uint64  // requests, by reason
	requests   map[string]*requestCounts  // by route
	deliveries [len(paths)]feed.Durations // see paths
}

// newCounters returns counters for the routes, a chi.Routes.
func newCounters(routes chi.Routes) *counters {
	c := &counters{
		ended:    map[string]*atomic.Uint64{endedByClient: {}, endedByPanic: {}},
		refused:  map[string]*atomic.Uint64{refusedUnknown: {}, refusedToken: {}, refusedPrecondition: {}},
		requests: map[string]*requestCounts{otherRoute: {}},
	}
	for _, e := range endings {
		c.ended[e.reason] = &atomic.Uint64{}
	}
	for _, a := range answers {
		if a.reason != "" {
			c.refused[a.reason] = &atomic.Uint64{}
		}
	}
	err := chi.Walk(routes, func(_, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		c.requests[route] = &requestCounts{}
		return nil
	})
	if err != nil {
		panic(err) // the function above returns none
	}
	return c
}

// requestCounts counts the answers to the requests of a route by status, from 100.
type requestCounts [500]atomic.Uint64

// otherRoute stands for requests that fit no route: for the console, and for paths that
// do not exist.
const otherRoute = "other"

// request counts a request.
func (c *counters) request(route string, status int) {
	counts := c.requests[route]
	if counts == nil {
		counts = c.requests[otherRoute]
	}
	if i := status - 100; 0 <= i && i < len(counts) {
		counts[i].Add(1)
	}
}

// countRequests counts each request after its answer. A stream that the engine writes
// counts when the engine takes it over, any other when it has ended.
func (s *Server) countRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted, returned := &countedResponse{ResponseWriter: w}, false
		defer func() {
			status := counted.status
			switch {
			case status != 0:
			case returned:
				status = http.StatusOK
			default:
				status = http.StatusInternalServerError // it panicked
			}
			s.counters.request(chi.RouteContext(r.Context()).RoutePattern(), status)
		}()
		next.ServeHTTP(counted, r)
		returned = true
	})
}

// countedResponse notes the status of an answer.
type countedResponse struct {
	http.ResponseWriter
	status int // 0 before there is one
}

func (w *countedResponse) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedResponse) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (w *countedResponse) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// original returns the writer of net/http, which [http.MaxBytesReader] needs.
func original(w http.ResponseWriter) http.ResponseWriter {
	if counted, ok := w.(*countedResponse); ok {
		return counted.ResponseWriter
	}
	return w
}

// The reasons for refusals that are not in answers.
const (
	refusedToken        = "token"
	refusedPrecondition = "precondition"
	refusedUnknown      = "failed"
)

// refuse counts a request that is answered with err.
func (c *counters) refuse(err error) {
	if reason := refusalOf(err); reason != "" {
		c.refused[reason].Add(1)
	}
}

// refusalOf returns the reason for a refusal in metrics. It is empty for an error that
// is none.
func refusalOf(err error) string {
	if _, ok := errors.AsType[*feed.LastError](err); ok {
		return refusedPrecondition
	}
	for _, a := range answers {
		if errors.Is(err, a.err) {
			return a.reason
		}
	}
	return refusedUnknown
}

const (
	endedByClient = "client"
	endedByPanic  = "failed"
)

// endings maps the reasons for which a stream ends to their names in metrics; the first
// match counts. For any other error, the client has gone.
var endings = []struct {
	err    error
	reason string
}{
	{engine.ErrStalled, "stalled"},
	{os.ErrDeadlineExceeded, "stalled"}, // of a write with net/http
	{feed.ErrClosed, "closed"},
	{errExpired, "expired"},
	{errMaxAge, "max_age"},
	{errDraining, "draining"},
	{feed.ErrStopped, "draining"},
	{engine.ErrStopped, "draining"},
	{errNoMemory, "memory"},
	{errGap, "gap"},
	{errTorn, "torn"},
}

// end counts a stream that has ended for the reason why.
func (c *counters) end(why error) { c.ended[endingOf(why)].Add(1) }

func endingOf(why error) string {
	if _, panicked := errors.AsType[*engine.PanicError](why); panicked {
		return endedByPanic
	}
	for _, e := range endings {
		if errors.Is(why, e.err) {
			return e.reason
		}
	}
	return endedByClient
}

// paths are the ways in which events reach a stream, from this node's memory or from the
// store, by their names in metrics.
var paths = [...]string{"log", "store"}

// pathOf returns the index in paths.
func pathOf(fromStore bool) int {
	if fromStore {
		return 1
	}
	return 0
}

// opens notes that the client is about to get the stream's first bytes.
func (st *stream) opens() {
	st.opened = true
	st.server.counters.opened.Add(1)
}

// setSlow notes whether bytes wait for which the client's socket has no room.
func (st *stream) setSlow(slow bool) {
	if st.slow == slow {
		return
	}
	st.slow = slow
	if slow {
		st.server.counters.slow.Add(1)
	} else {
		st.server.counters.slow.Add(-1)
	}
}

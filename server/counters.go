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
	requests   map[string]*requestCounts  // by route
	deliveries [len(paths)]feed.Durations // see paths
}

// newCounters returns counters for the routes, a chi.Routes.
func newCounters(routes chi.Routes) *counters {
	c := &counters{
		ended:    map[string]*atomic.Uint64{endedByClient: {}, endedByPanic: {}},
		requests: map[string]*requestCounts{otherRoute: {}},
	}
	for _, e := range endings {
		c.ended[e.reason] = &atomic.Uint64{}
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
	{errRevoked, "revoked"},
	{errUndecided, "undecided"},
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

// pathIndex returns the index in paths.
func pathIndex(fromStore bool) int {
	if fromStore {
		return 1
	}
	return 0
}

// opens notes that the client is about to get the stream's first bytes.
func (st *stream) opens(w http.ResponseWriter, r *http.Request) {
	st.opened = true
	st.access = st.server.takeAccess(w, r)
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

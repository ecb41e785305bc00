// Package server is Rejoin's HTTP interface: it turns requests into calls on
// package feed, and feeds into event streams.
package server

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/server/engine"
)

// Options tunes a server. The zero value is good.
type Options struct {
	// Heartbeat is the time without an event after which a stream gets a
	// keep-alive, up to a quarter sooner; 0 means 15 seconds.
	Heartbeat time.Duration
	// Retry is about how long a client is told to wait before it connects
	// again: each is told a time of its own within half of it either way;
	// 0 means 2 seconds.
	Retry time.Duration
	// WriteTimeout is how long a subscriber may read nothing at all while
	// something is waiting for it; 0 means 30 seconds.
	WriteTimeout time.Duration
	// MaxAge ends streams that are about as old, a fifth either way; 0 means
	// never.
	MaxAge time.Duration
	// Subscribers is how many subscribers there may be at one time, and
	// SubscribersPerAddress how many from one address; 0 means any number.
	Subscribers, SubscribersPerAddress int
	// FeedsPerSubscription is how many feeds one subscriber may follow over one
	// connection; 0 means 100.
	FeedsPerSubscription int
	// EventBytes is the publisher's limit, feed.PublisherOptions.EventBytes.
	// A request body with more than twice as many is not read to its end.
	EventBytes int
	// BatchEvents and BatchBytes are the most events, and bytes of the request
	// body, that are published at once; 0 means 1000, and 4 MiB.
	BatchEvents, BatchBytes int
	// Auth says who may do what; nil means that everybody may everything.
	Auth *auth.Verifier
	// Origins are those whose pages may use this server from a browser, as
	// [CheckOrigins] wants them; "*" is all of them, but not with cookies.
	Origins []string
	// Console serves everything that is not part of the interface, if set.
	Console http.Handler
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

// Server is the http.Handler of one node.
type Server struct {
	hub       *feed.Hub
	publisher *feed.Publisher
	memory    *feed.Memory // of the node
	options   Options
	logger    *slog.Logger
	routes    http.Handler
	started   time.Time

	engineOnce sync.Once
	engine     *engine.Engine // nil where there is none, or no need of one yet
	returned   *engine.Returned

	sameOrigin  *http.CrossOriginProtection
	rejected    atomic.Uint64 // subscribers that were turned away
	deliveries  *deliveries
	mu          sync.Mutex
	subscribers subscribers
}

// New returns a server that publishes to publisher and subscribes to hub. Drain
// and Close end it.
func New(hub *feed.Hub, publisher *feed.Publisher, o Options) *Server {
	o.Heartbeat = cmp.Or(o.Heartbeat, 15*time.Second)
	o.Retry = cmp.Or(o.Retry, 2*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.FeedsPerSubscription = cmp.Or(o.FeedsPerSubscription, 100)
	o.EventBytes = cmp.Or(o.EventBytes, feed.DefaultEventBytes)
	o.BatchEvents = cmp.Or(o.BatchEvents, 1000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 4<<20)
	s := &Server{
		hub:        hub,
		publisher:  publisher,
		memory:     hub.Memory(),
		options:    o,
		logger:     cmp.Or(o.Logger, slog.Default()),
		returned:   engine.NewReturned(),
		sameOrigin: trusting(o.Origins),
		deliveries: &deliveries{},
		subscribers: subscribers{
			addresses: make(map[netip.Addr]int),
			gone:      make(chan struct{}),
		},
		started: time.Now(),
	}
	s.routes = s.router()
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// AnnounceDrain has /readyz say that the server is draining, while everything else
// goes on: whoever sends traffic here has the time to notice before Drain.
func (s *Server) AnnounceDrain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers.announced = true
}

// Drain makes the server not ready, takes no more subscribers, and breaks off
// its streams one after another over the window, so that their clients do not
// all arrive elsewhere at once. When ctx ends, it breaks the remaining ones off
// at once. It returns when the last stream has ended, or ctx.
func (s *Server) Drain(ctx context.Context, window time.Duration) {
	all := s.stopAdmitting()
	began := time.Now()
	for i, one := range all {
		// Each has a time of its own, so that one late timer delays no others.
		due := began.Add(window * time.Duration(i) / time.Duration(len(all)))
		if early := time.Until(due); early > 0 {
			select {
			case <-time.After(early):
			case <-s.subscribers.gone:
				return
			case <-ctx.Done():
			}
		}
		one.drain()
	}
	select {
	case <-s.subscribers.gone:
	case <-ctx.Done():
	}
}

// Close ends what Drain has left, and returns when everything that the server
// started has ended. It comes after the Close of the hub.
func (s *Server) Close() {
	s.engineOnce.Do(func() {})
	if s.engine != nil {
		s.engine.Close()
	}
	_ = s.returned.Close()
}

// now is the clock of the streams.
func (s *Server) now() time.Duration { return time.Since(s.started) }

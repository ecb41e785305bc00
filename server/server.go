// Package server is Rejoin's HTTP interface: it turns requests into calls on package
// feed, and feeds into event streams.
//
// All routes are in routes.go. A request for a stream takes this way:
//
//	subscribe          reads the request into a subscribeRequest
//	serveStream        admits a stream and subscribes it to the hub
//	socketCarrier      hands the connection to package engine, or
//	netHTTPCarrier     writes with net/http where the engine cannot
//	stream.Next        decides which bytes come next; both carriers call it
//	streamEncoder      turns the hub's deliveries into these bytes
package server

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/server/engine"
	"github.com/rejoin/rejoin/server/h2"
)

// Options configures a server. The zero value has the defaults.
type Options struct {
	// Heartbeat is the time without an event after which a stream gets a
	// keep-alive, up to a quarter sooner; 0 means 15 seconds.
	Heartbeat time.Duration
	// Retry is the average time after which clients reconnect: each gets a time of
	// its own, up to half more or less; 0 means 2 seconds.
	Retry time.Duration
	// WriteTimeout limits how long a subscriber may read nothing while bytes wait
	// for it; 0 means 30 seconds.
	WriteTimeout time.Duration
	// MaxAge is about the age at which the server ends a stream, up to a fifth more
	// or less; 0 means no limit.
	MaxAge time.Duration
	// Subscribers limits the subscribers at one time, and SubscribersPerAddress
	// those from one address; 0 means no limit.
	Subscribers, SubscribersPerAddress int
	// FeedsPerSubscription limits the feeds of one subscription; 0 means 100.
	FeedsPerSubscription int
	// EventBytes is the publisher's limit, feed.PublisherOptions.EventBytes. The
	// server stops reading a request body at twice that size.
	EventBytes int
	// BatchEvents and BatchBytes limit the events and the bytes of a batch; 0 means
	// 1000, and 4 MiB.
	BatchEvents, BatchBytes int
	// PublishesPerSecond limits the events in a second that come from one address, and
	// those that are published with tokens of one subject; 0 means no limit.
	PublishesPerSecond int
	// PublishIdle is how long the body of a published stream may be silent; 0 means
	// a minute.
	PublishIdle time.Duration
	// Auth decides what the senders of requests may do; nil disables authorization.
	Auth auth.Authorizer
	// Origins lists the origins whose pages may use this server from a browser, in
	// the form that [CheckOrigins] demands; "*" allows all, without cookies.
	Origins []string
	// TrustedProxies are believed about the addresses of their clients.
	TrustedProxies Proxies
	// BasePath is the path under which clients see this server, in the form that
	// [ParseBasePath] returns; empty means the root. Addresses in answers begin with
	// it. The server answers under it and, for proxies and handlers that remove it,
	// without it.
	BasePath string
	// Refusals counts and logs the requests that are refused; nil means new ones. Close
	// of the server closes them.
	Refusals *Refusals
	// AccessLog logs each request at its end.
	AccessLog bool
	// Traces, if not nil, gets the spans of publishes.
	Traces *Traces
	// Node names this node for operators, and Version is that of its program; both may
	// be empty. See feed.NodesFeed.
	Node, Version string
	// Console, if set, serves all paths outside the interface.
	Console http.Handler
	// Logger receives messages for operators; nil means slog.Default.
	Logger *slog.Logger
}

// Server is the http.Handler of one node.
type Server struct {
	hub       *feed.Hub
	publisher *feed.Publisher
	memory    *feed.Memory // the node's budget
	settings  atomic.Pointer[settings]
	logger    *slog.Logger
	routes    chi.Router
	started   time.Time

	engineOnce sync.Once
	engine     *engine.Engine // nil before the first stream, and where none is possible
	returned   *engine.Returned
	http2Once  sync.Once
	http2      *h2.Server // nil before the first connection

	counters    *counters
	refusals    *Refusals
	mu          sync.Mutex
	subscribers subscribers
	publishers  publishers
	rechecks    rechecks

	publishLimits publishLimits
}

// New returns a server that publishes to publisher and subscribes to hub. The caller
// ends it with Drain and Close.
func New(hub *feed.Hub, publisher *feed.Publisher, o Options) *Server {
	s := &Server{
		hub:       hub,
		publisher: publisher,
		memory:    hub.Memory(),
		logger:    cmp.Or(o.Logger, slog.Default()),
		returned:  engine.NewReturned(),
		subscribers: subscribers{
			addresses: make(map[netip.Addr]int),
			gone:      make(chan struct{}),
		},
		publishers: publishers{stopping: make(chan struct{})},
		refusals:   o.Refusals,
		rechecks:   rechecks{memory: hub.Memory()},
		started:    time.Now(),
	}
	if s.refusals == nil {
		s.refusals = NewRefusals(s.logger, o.TrustedProxies)
	}
	s.Reconfigure(o)
	routes := s.router(o.Traces)
	s.routes, s.counters = routes, newCounters(routes)
	hub.Report(s.reporter())
	return s
}

// settings are the options of the moment, and what follows from them.
type settings struct {
	Options
	sameOrigin   *http.CrossOriginProtection
	allowOrigins func(next http.Handler) http.Handler
}

// Reconfigure replaces the options, but for Logger, Refusals and Traces. No request and no stream that has
// begun ends because of it.
func (s *Server) Reconfigure(o Options) {
	o.Heartbeat = cmp.Or(o.Heartbeat, 15*time.Second)
	o.Retry = cmp.Or(o.Retry, 2*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.FeedsPerSubscription = cmp.Or(o.FeedsPerSubscription, 100)
	o.EventBytes = cmp.Or(o.EventBytes, feed.DefaultEventBytes)
	o.BatchEvents = cmp.Or(o.BatchEvents, 1000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 4<<20)
	o.BasePath = strings.TrimSuffix(o.BasePath, "/")
	o.PublishIdle = cmp.Or(o.PublishIdle, time.Minute)
	s.publishLimits.set(o.PublishesPerSecond)
	watch, allow := s.refusals.watchPreflights(o.Origins), allowOrigins(o.Origins)
	s.settings.Store(&settings{o, crossOriginProtection(o.Origins), func(next http.Handler) http.Handler { return watch(allow(next)) }})
}

// options returns the settings of the moment. A caller that needs several of them to
// agree calls it once.
func (s *Server) options() *settings { return s.settings.Load() }

// AnnounceDrain makes /readyz report that the server is draining and changes nothing
// else. It gives load balancers time to notice before Drain.
func (s *Server) AnnounceDrain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers.announced = true
}

// Drain makes the server not ready, admits no more subscribers, and ends its streams
// one after another over the window, so that their clients do not all reach another
// node at once. Streams that are being published may end by themselves until then.
// When ctx ends, it ends the remaining ones at once. It returns when the last stream or
// ctx has ended.
func (s *Server) Drain(ctx context.Context, window time.Duration) {
	began := time.Now()
	s.drainSubscribers(ctx, began, window)
	timeout := time.NewTimer(time.Until(began.Add(window)))
	defer timeout.Stop()
	select {
	case <-s.publishers.none():
	case <-timeout.C:
	case <-ctx.Done():
	}
	s.publishers.stop()
}

func (s *Server) drainSubscribers(ctx context.Context, began time.Time, window time.Duration) {
	all := s.stopAdmitting()
	for i, one := range all {
		// The times are absolute, so one late timer does not delay the others.
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

// Close ends the streams that Drain has left, and returns after every goroutine of the
// server has ended. Close the hub first.
func (s *Server) Close() {
	s.rechecks.close()
	s.engineOnce.Do(func() {})
	if s.engine != nil {
		s.engine.Close()
	}
	s.http2Once.Do(func() {})
	if s.http2 != nil {
		s.http2.Close()
	}
	_ = s.returned.Close()
	s.refusals.Close()
}

// now returns the time on the streams' clock.
func (s *Server) now() time.Duration { return time.Since(s.started) }

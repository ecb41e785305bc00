package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/demo"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/sqlite"
	"github.com/rejoin/rejoin/web"
)

// node is everything behind the addresses of a rejoin serve.
type node struct {
	store   feed.Store
	bus     feed.Bus
	feeds   *feed.Node
	traces  *traces // nil if there are none
	refused func() uint64
	redis   *feed.Durations // round trips; nil without Redis
	appends *server.Appends
	demo    *demo.Demo // nil without one
	console http.Handler
	server  *server.Server
}

// openNode opens what the configuration names on top of store, which it owns
// from here on.
func openNode(ctx context.Context, store feed.Store, c Config, authorizer auth.Authorizer, refusals *server.Refusals, logger *slog.Logger) (*node, error) {
	n := &node{store: store, appends: server.NewAppends()}
	var err error
	if n.traces, err = openTraces(ctx, logger); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if err := n.openBus(ctx, c.Bus, logger); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if n.feeds, err = feed.Open(store, n.bus, n.feedOptions(c, logger)); err != nil {
		return nil, errors.Join(fmt.Errorf("start feeds: %w", err), n.bus.Close(), store.Close())
	}
	n.openConsole(c, logger)
	o := n.serverOptions(c, authorizer, logger)
	o.Refusals = refusals
	n.server = server.New(n.feeds.Hub, n.feeds.Publisher, o)
	return n, nil
}

// openConsole sets the console, with the demo if that is on.
func (n *node) openConsole(c Config, logger *slog.Logger) {
	if n.console = pages(c); !c.Server.Demo {
		return
	}
	proxies := c.Server.proxies()
	visitor := func(r *http.Request) string { return proxies.Client(r).Address.String() }
	n.demo = demo.New(n.feeds.Publisher, demo.Options{Visitor: visitor, Logger: logger})
	n.console = n.demo.Handler(n.console)
}

// pages returns the handler of the pages, which need no store to be served.
func pages(c Config) http.Handler {
	if c.Server.Demo {
		return web.HandlerWithDemo()
	}
	return web.Handler()
}

// reconfigure takes over from c what a running node can.
func (n *node) reconfigure(c Config, authorizer auth.Authorizer, logger *slog.Logger) error {
	if err := n.feeds.Reconfigure(n.feedOptions(c, logger)); err != nil {
		return fmt.Errorf("reconfigure feeds: %w", err)
	}
	n.server.Reconfigure(n.serverOptions(c, authorizer, logger))
	return nil
}

func (n *node) feedOptions(c Config, logger *slog.Logger) feed.Options {
	o := feed.Options{
		EventBytes:    c.Limits.EventBytes,
		Memory:        c.Limits.Memory,
		KeyWindow:     c.Idempotency.Window,
		Verify:        c.Bus.Verify,
		Rules:         c.Retention,
		ObserveAppend: n.appends.Observe,
		Logger:        logger,
	}
	if c.Server.Demo {
		o.Rules = slices.Concat(demo.Rules, o.Rules)
	}
	if n.traces != nil {
		o.Tracer = n.traces.spans
	}
	return o
}

func (n *node) serverOptions(c Config, authorizer auth.Authorizer, logger *slog.Logger) server.Options {
	return server.Options{
		Heartbeat:             c.Subscribe.Heartbeat,
		Retry:                 c.Subscribe.Retry,
		WriteTimeout:          c.Subscribe.WriteTimeout,
		MaxAge:                c.Subscribe.MaxAge,
		Subscribers:           c.Limits.Subscribers,
		SubscribersPerAddress: c.Limits.SubscribersPerAddress,
		FeedsPerSubscription:  c.Limits.FeedsPerSubscription,
		EventBytes:            c.Limits.EventBytes,
		BatchEvents:           c.Limits.BatchEvents,
		BatchBytes:            c.Limits.BatchBytes,
		PublishIdle:           c.Limits.PublishIdle,
		PublishesPerSecond:    c.Limits.PublishesPerSecond,
		Auth:                  authorizer,
		Origins:               c.CORS.Origins,
		TrustedProxies:        c.Server.proxies(),
		BasePath:              c.Server.basePath(),
		AccessLog:             c.Log.Access,
		Traces:                n.traces.server(),
		Node:                  nodeName(c.Listen),
		Version:               currentVersion(),
		Console:               n.console,
		Logger:                logger,
	}
}

// nodeName names this node for operators: its machine, and the port if that is known.
func nodeName(listen string) string {
	name, err := os.Hostname()
	if _, port, splitErr := net.SplitHostPort(listen); splitErr == nil && port != "0" && err == nil {
		name = net.JoinHostPort(name, port)
	}
	return name
}

func (n *node) openBus(ctx context.Context, c BusConfig, logger *slog.Logger) error {
	scheme, _, _ := strings.Cut(c.URL, ":")
	switch {
	case c.URL == "memory":
		n.bus = memory.NewBus()
		return nil
	case slices.Contains(postgresSchemes, scheme):
		return n.openPostgresBus(ctx, c.URL)
	}
	return n.openRedisBus(c, logger)
}

// openPostgresBus makes the store's database the bus. The URL may be just "postgres".
func (n *node) openPostgresBus(ctx context.Context, url string) error {
	store, ok := n.store.(*postgres.Store)
	if !ok {
		return errors.New("open bus: the store is not in Postgres")
	}
	if url == "postgres" {
		url = ""
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	bus, err := store.OpenBus(ctx, url)
	if err != nil {
		return fmt.Errorf("bus.url: %w", err)
	}
	n.bus = bus
	return nil
}

func (n *node) openRedisBus(c BusConfig, logger *slog.Logger) error {
	id := n.store.ID
	if _, file := n.store.(*sqlite.Store); file {
		// No other node has this file, but one may have a copy of it.
		process := rand.Text()
		id = func() string { return n.store.ID() + "-" + process }
	}
	bus, err := redis.Open(c.URL, redis.Options{
		StoreID:      id,
		Prefix:       c.Prefix,
		Shards:       c.Shards,
		StreamLength: c.StreamLength,
		Logger:       logger,
	})
	if err != nil {
		return fmt.Errorf("open bus: %w", err)
	}
	n.bus, n.refused, n.redis = bus, func() uint64 { return bus.Stats().Refused }, bus.RoundTrips()
	return nil
}

func (n *node) sources() server.Sources {
	s := server.Sources{
		Hub: n.feeds.Hub, Publisher: n.feeds.Publisher, Server: n.server,
		Refused: n.refused, Redis: n.redis, Appends: n.appends, Version: currentVersion(),
	}
	if store, ok := n.store.(*postgres.Store); ok {
		s.EnqueueRefused = store.Refused
	}
	return s
}

// close closes everything, what takes from others before what gives.
func (n *node) close() error {
	if n.demo != nil {
		n.demo.Close()
	}
	n.feeds.Close()
	n.server.Close()
	var errs []error
	if err := n.bus.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close bus: %w", err))
	}
	if err := n.store.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close store: %w", err))
	}
	n.traces.close()
	return errors.Join(errs...)
}

// cacheShare is the part of limits.memory that SQLite's cache may have beside it.
const cacheShare = 10

// openStore tries once to open the store. A notYet error may go away by itself.
func openStore(ctx context.Context, c Config, logger *slog.Logger) (feed.Store, error) {
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok {
		store, err := sqlite.Open(ctx, path, sqlite.Options{Cache: min(c.Limits.Memory/cacheShare, sqlite.DefaultCache)})
		switch {
		case err == nil:
			return store, nil
		case errors.Is(err, feed.ErrUnavailable): // the disk is full
			return nil, notYet{err}
		case errors.Is(err, sqlite.ErrInUse):
			err = fmt.Errorf("%w; is Rejoin running already?", err)
		}
		return nil, err // not store: a nil *sqlite.Store is no nil feed.Store
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	store, err := postgres.Open(ctx, c.Store.URL, postgresOptions(c, logger))
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, feed.ErrUnavailable), ctx.Err() != nil:
		return nil, notYet{err}
	}
	return nil, err
}

func postgresOptions(c Config, logger *slog.Logger) postgres.Options {
	return postgres.Options{
		EventBytes: c.Limits.EventBytes, KeyWindow: c.Idempotency.Window,
		Alone: c.Bus.URL == "memory", Logger: logger,
	}
}

// notYet is an error of a store that cannot be reached yet.
type notYet struct{ error }

func (e notYet) Unwrap() error { return e.error }

func isNotYet(err error) bool {
	_, ok := errors.AsType[notYet](err)
	return ok
}

// storeAt returns where the store of a URL is, without names and passwords.
func storeAt(url string) string {
	if strings.HasPrefix(url, "sqlite:") {
		return url
	}
	return postgres.Location(url)
}

const (
	openTimeout = 30 * time.Second // for one try, with the migrations
	openPause   = 500 * time.Millisecond
)

// awaitStore opens the store as soon as it can be reached, after a first try
// that failed with err. It logs each cause why not.
func awaitStore(ctx context.Context, c Config, err error, logger *slog.Logger) (feed.Store, error) {
	logger = logger.With("store", storeAt(c.Store.URL))
	var outage feed.Outage
	for {
		switch outage.Note(err) {
		case feed.OutageBegan:
			logger.Warn("the store cannot be reached; waiting for it", "error", err)
		case feed.OutageChanged:
			logger.Warn("the store still cannot be reached, for another reason", "error", err)
		}
		select {
		case <-time.After(openPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var store feed.Store
		if store, err = openStore(ctx, c, logger); err == nil || !isNotYet(err) || ctx.Err() != nil {
			if err == nil {
				logger.Info("the store is there", "after", outage.Lasted())
			}
			return store, err
		}
	}
}

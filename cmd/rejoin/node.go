package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

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
	refused func() uint64
	appends *server.Appends
	server  *server.Server
}

// openNode opens what the configuration names on top of store, which it owns
// from here on.
func openNode(store feed.Store, c Config, verifier *auth.Verifier, logger *slog.Logger) (*node, error) {
	n := &node{store: store, appends: server.NewAppends()}
	if err := n.openBus(c.Bus, logger); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	var err error
	if n.feeds, err = feed.Open(store, n.bus, feed.Options{
		EventBytes:    c.Limits.EventBytes,
		Memory:        c.Limits.Memory,
		KeyWindow:     c.Idempotency.Window,
		Verify:        c.Bus.Verify,
		Rules:         c.Retention,
		ObserveAppend: n.appends.Observe,
		Logger:        logger,
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("start feeds: %w", err), n.bus.Close(), store.Close())
	}
	n.server = server.New(n.feeds.Hub, n.feeds.Publisher, server.Options{
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
		Auth:                  verifier,
		Origins:               c.CORS.Origins,
		Console:               web.Handler(),
		Logger:                logger,
	})
	return n, nil
}

func (n *node) openBus(c BusConfig, logger *slog.Logger) error {
	if c.URL == "memory" {
		n.bus = memory.NewBus()
		return nil
	}
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
	n.bus, n.refused = bus, func() uint64 { return bus.Stats().Refused }
	return nil
}

func (n *node) sources() server.Sources {
	return server.Sources{Hub: n.feeds.Hub, Publisher: n.feeds.Publisher, Server: n.server, Refused: n.refused, Appends: n.appends}
}

// close closes everything, what takes from others before what gives.
func (n *node) close() error {
	n.feeds.Close()
	n.server.Close()
	var errs []error
	if err := n.bus.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close bus: %w", err))
	}
	if err := n.store.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close store: %w", err))
	}
	return errors.Join(errs...)
}

// openStore tries once to open the store. A notYet error may go away by itself.
func openStore(ctx context.Context, url string) (feed.Store, error) {
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		store, err := sqlite.Open(ctx, path)
		switch {
		case err == nil:
			return store, nil
		case errors.Is(err, feed.ErrUnavailable): // the disk is full
			return nil, notYet{err}
		}
		return nil, err // not store: a nil *sqlite.Store is no nil feed.Store
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	store, err := postgres.Open(ctx, url, postgres.Options{})
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, feed.ErrUnavailable), ctx.Err() != nil:
		return nil, notYet{err}
	}
	return nil, err
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
func awaitStore(ctx context.Context, url string, err error, logger *slog.Logger) (feed.Store, error) {
	logger = logger.With("store", storeAt(url))
	var outage feed.Outage
	for {
		switch outage.Note(err) {
		case feed.OutageBegan:
			logger.Warn("the store cannot be reached; waiting for it", "error", err)
		case feed.OutageChanged:
			logger.Warn("the store still cannot be reached, for another reason", "error", err)
		}
		if sleep(ctx, openPause) != nil {
			return nil, ctx.Err()
		}
		var store feed.Store
		if store, err = openStore(ctx, url); err == nil || !isNotYet(err) || ctx.Err() != nil {
			return store, err
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/sqlite"
)

func (k *checker) store(ctx context.Context, c Config) {
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok {
		k.sqlite(ctx, path)
		return
	}
	at := storeAt(c.Store.URL)
	found, err := postgres.Inspect(ctx, c.Store.URL, postgresOptions(c, slog.New(slog.DiscardHandler)))
	if err != nil {
		breaks, do := noStart, "correct store.url, or what the message names"
		if errors.Is(err, feed.ErrUnavailable) {
			breaks, do = "the server would wait for its store, and answer 503", "start Postgres, or correct the host and port in store.url"
		}
		k.problem("store", at, breaks, err.Error(), do)
		return
	}
	for _, lack := range found.Lacks {
		k.problem("store", at, noStart+", or fail later", "the role lacks "+lack.Privilege, lack.Grant)
	}
	if len(found.Lacks) == 0 {
		k.ok("store", at, schema(found.Schema).String())
	}
	k.clocks(at, found.Clock, found.At)
}

// leastSpace is the free space that a SQLite store should have: twice the size that its
// log can reach.
const leastSpace = 128 << 20

func (k *checker) sqlite(ctx context.Context, path string) {
	found, err := sqlite.Inspect(ctx, path)
	if err != nil {
		k.problem("store", path, noStart, err.Error(), "correct what the message names, or store.url")
		return
	}
	if found.Free >= 0 && found.Free < leastSpace {
		k.problem("store", path, "publishes would soon get 503", fmt.Sprintf("the disk has %d MiB free", found.Free>>20),
			fmt.Sprintf("free %d MiB or more, or limit feeds with retention", leastSpace>>20))
		return
	}
	text := schema(found.Schema).String()
	if found.Free >= 0 {
		text += fmt.Sprintf("; %d MiB free on the disk", found.Free>>20)
	}
	k.ok("store", path, text)
}

func (s schema) String() string {
	if len(s.Pending) == 0 {
		return fmt.Sprintf("schema version %d, nothing to migrate", s.Version)
	}
	return fmt.Sprintf("schema version %d of %d; a start migrates %s", s.Version, s.Newest, s.pending())
}

func (k *checker) bus(ctx context.Context, c Config) {
	scheme, _, _ := strings.Cut(c.Bus.URL, ":")
	switch {
	case c.Bus.URL == "memory":
		k.ok("bus", "", "memory, for one node")
	case c.Bus.URL == "postgres":
		k.ok("bus", storeAt(c.Store.URL), "the listener connects to the store")
	case slices.Contains(postgresSchemes, scheme):
		k.postgresBus(ctx, c)
	default:
		k.redis(ctx, c.Bus)
	}
}

func (k *checker) postgresBus(ctx context.Context, c Config) {
	at := postgres.Location(c.Bus.URL)
	if err := postgres.InspectBus(ctx, c.Store.URL, c.Bus.URL, postgresOptions(c, slog.New(slog.DiscardHandler))); err != nil {
		k.problem("bus", at, "the server would not start, or not hear of other nodes' events at once", err.Error(),
			"set bus.url to the database of the store, past any pooler")
		return
	}
	k.ok("bus", at, "a notification arrives")
}

// forSignals are the rules of an ACL that only signals need, beside that of channels.
var forSignals = []string{"+publish", "+subscribe"}

func (k *checker) redis(ctx context.Context, c BusConfig) {
	at := redis.Location(c.URL)
	found, err := redis.Inspect(ctx, c.URL, redis.Options{Prefix: c.Prefix, Shards: c.Shards})
	if err != nil {
		k.problem("bus", at, "events of other nodes would arrive late, within bus.verify, or the server would not start", err.Error(),
			"start Redis, or correct bus.url")
		return
	}
	for _, fault := range found.Faults {
		k.problem("bus", at, "a failover may stop the bus, or a part of the feeds", fault, "repair it, or correct bus.url")
	}
	for _, rule := range found.Lacks {
		breaks := "events of other nodes would arrive late, within bus.verify"
		if slices.Contains(forSignals, rule) || strings.HasPrefix(rule, "&") {
			breaks = "ephemeral events and counts of subscribers would stay on their nodes"
		}
		k.problem("bus", at, breaks, "the user of bus.url lacks "+rule, "ACL SETUSER with the user's name and "+rule)
	}
	if len(found.Faults)+len(found.Lacks) == 0 {
		k.ok("bus", at, "every command and key is allowed")
	}
	if !found.Clock.IsZero() {
		k.clocks(at, found.Clock, found.At)
	}
}

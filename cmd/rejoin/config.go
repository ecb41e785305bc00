package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Config is everything that can be configured. [DefaultConfig] has the
// defaults, [Load] reads it, Validate judges it.
type Config struct {
	Listen      string
	Admin       AdminConfig
	Server      ServerConfig
	Store       StoreConfig
	Bus         BusConfig
	Subscribe   SubscribeConfig
	Limits      LimitsConfig
	Idempotency IdempotencyConfig
	Retention   []feed.Rule // the first that matches a feed; none: everything is kept
	Auth        AuthConfig
	TLS         TLSConfig
	CORS        CORSConfig
	Drain       DrainConfig
	Log         LogConfig
}

// AdminConfig is about the address for operators.
type AdminConfig struct {
	Listen string // an address, or off
}

// ServerConfig is about what this server is to its clients.
type ServerConfig struct {
	Hosts          []string // accepted beside localhost where no token is needed
	TrustedProxies []string // networks of proxies that are believed about their clients
	BasePath       string   // under which a proxy shows this server; empty: the root
	Demo           bool     // serve /demo
	HTTP2          string   // what carries HTTP/2: engine or nethttp
}

// StoreConfig is the place where events are kept.
type StoreConfig struct {
	URL string // sqlite:PATH or postgres://…
}

// BusConfig is the way in which nodes notify each other of events.
type BusConfig struct {
	URL          string        // memory, postgres, or redis://… and its like
	Prefix       string        // of all keys in Redis
	Shards       int           // hash slots that feeds are spread over
	StreamLength int           // events that a feed's stream keeps, roughly
	Verify       time.Duration // between two looks at the store for what the bus lost
}

// SubscribeConfig is about streams.
type SubscribeConfig struct {
	Heartbeat    time.Duration // between keep-alives
	Retry        time.Duration // the time that clients wait, on average
	WriteTimeout time.Duration // how long a subscriber may not read at all
	MaxAge       time.Duration // of a stream; 0: never too old
}

// LimitsConfig is what clients may ask for, and how many of them there may be.
type LimitsConfig struct {
	EventBytes            int // of one event's data in its longest form
	BatchEvents           int // that are published at once
	BatchBytes            int // of the body that they come in
	FeedsPerSubscription  int
	Subscribers           int           // of this node; 0: any number
	SubscribersPerAddress int           // 0: any number
	Memory                int           // bytes that the node holds on behalf of clients
	PublishIdle           time.Duration // for which a published stream may be silent
	PublishesPerSecond    int           // of a token's subject, and from an address; 0: any number
}

// IdempotencyConfig is about publishing that can be repeated.
type IdempotencyConfig struct {
	Window time.Duration // for which keys are remembered
}

// AuthConfig says who may subscribe and publish.
type AuthConfig struct {
	Mode string // none, jwt, forward
	// Written notes that the mode was chosen, not left to the default.
	Written bool
	JWT     JWTConfig
	Forward ForwardConfig
}

// DrainConfig is about stopping.
type DrainConfig struct {
	Delay  time.Duration // for which nothing but /readyz changes
	Window time.Duration // over which streams are ended
}

// LogConfig is about the log on standard error.
type LogConfig struct {
	Level  string // debug, info, warn, error
	Format string // text, json
	Access bool   // a line for each request
}

// DefaultConfig returns the configuration of a server without settings.
func DefaultConfig() Config {
	return Config{
		Listen:      "127.0.0.1:8080",
		Admin:       AdminConfig{Listen: "off"},
		Server:      ServerConfig{HTTP2: "engine"},
		Store:       StoreConfig{URL: "sqlite:rejoin.db"},
		Bus:         BusConfig{URL: "memory", Prefix: "rejoin", Shards: 16, StreamLength: 1000, Verify: time.Second},
		Subscribe:   SubscribeConfig{Heartbeat: 15 * time.Second, Retry: 2 * time.Second, WriteTimeout: 30 * time.Second},
		Limits:      LimitsConfig{EventBytes: feed.DefaultEventBytes, BatchEvents: 1000, BatchBytes: 4 << 20, FeedsPerSubscription: 100, Memory: feed.DefaultMemory, PublishIdle: time.Minute},
		Idempotency: IdempotencyConfig{Window: feed.DefaultKeyWindow},
		Auth: AuthConfig{Mode: "none", Forward: ForwardConfig{
			Timeout: 5 * time.Second, Cache: 10 * time.Second, Recheck: time.Minute, Grace: 10 * time.Minute, Concurrency: 64,
		}},
		Drain: DrainConfig{Window: 10 * time.Second},
		Log:   LogConfig{Level: "info", Format: "text"},
	}
}

// Validate returns every fault of the configuration, each naming its key.
func (c Config) Validate() error {
	return errors.Join(
		checkListen(c.Listen, c.Auth),
		checkAdmin(c.Admin.Listen),
		checkHosts(c.Server.Hosts),
		checkProxies(c.Server.TrustedProxies),
		checkBasePath(c.Server.BasePath),
		checkDemo(c),
		checkOneOf("server.http2", c.Server.HTTP2, "engine", "nethttp"),
		checkStore(c.Store.URL),
		checkBus(c.Bus.URL, c.Store.URL),
		checkPrefix(c.Bus.Prefix),
		checkBetween("bus.shards", c.Bus.Shards, 1, 1024),
		checkBetween("bus.stream_length", c.Bus.StreamLength, 1, 1_000_000),
		checkBetween("bus.verify", c.Bus.Verify, 10*time.Millisecond, time.Minute),
		checkBetween("subscribe.heartbeat", c.Subscribe.Heartbeat, 100*time.Millisecond, 10*time.Minute),
		checkBetween("subscribe.retry", c.Subscribe.Retry, 10*time.Millisecond, 10*time.Minute),
		checkBetween("subscribe.write_timeout", c.Subscribe.WriteTimeout, 100*time.Millisecond, 10*time.Minute),
		checkMaxAge(c.Subscribe.MaxAge),
		// Above the default, an event in its longest form no longer fits the 64 KiB at
		// which common client libraries fail: they would reconnect to the
		// same event for ever.
		checkBetween("limits.event_bytes", c.Limits.EventBytes, 1, feed.DefaultEventBytes),
		checkBetween("limits.batch_events", c.Limits.BatchEvents, 1, 10_000),
		checkBetween("limits.batch_bytes", c.Limits.BatchBytes, 1, batchBytesMost),
		checkBetween("limits.feeds_per_subscription", c.Limits.FeedsPerSubscription, 1, 1000),
		checkBetween("limits.subscribers", c.Limits.Subscribers, 0, 10_000_000),
		checkBetween("limits.subscribers_per_address", c.Limits.SubscribersPerAddress, 0, 10_000_000),
		checkMemory(c.Limits),
		checkBetween("limits.publish_idle", c.Limits.PublishIdle, 100*time.Millisecond, 24*time.Hour),
		checkBetween("limits.publishes_per_second", c.Limits.PublishesPerSecond, 0, 1_000_000),
		checkBetween("idempotency.window", c.Idempotency.Window, time.Second, 365*24*time.Hour),
		checkOneOf("auth.mode", c.Auth.Mode, "none", "jwt", "forward"),
		checkJWT(c.Auth),
		checkForward(c.Auth),
		checkTLS(c.TLS),
		checkOrigins(c.CORS.Origins),
		checkBetween("drain.delay", c.Drain.Delay, 0, 10*time.Minute),
		checkBetween("drain.window", c.Drain.Window, 0, 10*time.Minute),
		checkOneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		checkOneOf("log.format", c.Log.Format, "text", "json"),
	)
}

// SlogLevel returns log.level.
func (c LogConfig) SlogLevel() slog.Level {
	var level slog.Level
	// Validate has seen to it that it can be read.
	_ = level.UnmarshalText([]byte(c.Level))
	return level
}

func checkListen(listen string, auth AuthConfig) error {
	host, err := checkAddress("listen", listen)
	if err != nil {
		return err
	}
	if auth.Mode == "none" && !auth.Written && !loopback(host) {
		return fmt.Errorf("auth.mode: %q is not a loopback address, so other machines may reach it: write auth.mode: none (REJOIN_AUTH_MODE=none, --auth none) if anyone who reaches it may read and publish everything", listen)
	}
	return nil
}

// checkAddress returns the host of an address to listen on.
func checkAddress(key, listen string) (host string, err error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("%s: %q is not an address such as 127.0.0.1:8080", key, listen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%s: %q does not end in a port from 0 to 65535", key, listen)
	}
	return host, nil
}

// checkDemo refuses a demo whose pages would be refused everything.
func checkDemo(c Config) error {
	if c.Server.Demo && c.Auth.Mode != "none" {
		return fmt.Errorf("server.demo: the demo (--demo) needs auth.mode none, and it is %s: its pages publish and subscribe without a token", c.Auth.Mode)
	}
	return nil
}

func checkAdmin(listen string) error {
	if listen == "off" {
		return nil
	}
	_, err := checkAddress("admin.listen", listen)
	return err
}

// loopback reports whether host is surely this machine only. Names other than
// localhost are not looked up: what they mean can change.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// checkStore and checkBus never repeat the URL: it may hold a password.
func checkStore(url string) error {
	scheme, path, ok := strings.Cut(url, ":")
	switch {
	case ok && slices.Contains(postgresSchemes, scheme):
		return nil // the store judges the rest
	case !ok || scheme != "sqlite":
		return errors.New("store.url: it begins with sqlite: as in sqlite:rejoin.db, or is a postgres:// URL")
	case path == "" || strings.HasSuffix(path, "/"):
		return errors.New("store.url: sqlite: is not followed by a file name")
	case path == ":memory:" || strings.ContainsAny(path, "?#"):
		return errors.New("store.url: sqlite: is followed by a plain file name, without parameters")
	case strings.HasPrefix(path, "//"):
		return errors.New("store.url: sqlite: is followed by a path, not by //host; write sqlite:rejoin.db or sqlite:/var/lib/rejoin.db")
	}
	return nil
}

var (
	postgresSchemes = []string{"postgres", "postgresql"}
	redisSchemes    = []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)

func checkBus(url, store string) error {
	scheme, _, _ := strings.Cut(url, ":")
	switch {
	case url == "memory":
		return nil
	case slices.Contains(redisSchemes, scheme):
		return nil // the bus judges the rest
	case !slices.Contains(postgresSchemes, scheme):
		return errors.New("bus.url: it is memory, postgres, or a redis:// URL (rediss://, redis+sentinel://, redis+cluster://)")
	case strings.HasPrefix(store, "sqlite:"):
		return errors.New("bus.url: it is Postgres, and store.url is not: the bus is the database of the store")
	}
	return nil // as of the store
}

func checkPrefix(prefix string) error {
	if prefix == "" || strings.ContainsAny(prefix, "{} \t\r\n") {
		return fmt.Errorf("bus.prefix: %q is empty or has a brace or a space in it", prefix)
	}
	return nil
}

const batchBytesMost = 64 << 20

// checkMemory sees to it that the share of publishes has room for two of the largest.
func checkMemory(c LimitsConfig) error {
	if err := checkBetween("limits.memory", c.Memory, 32<<20, 1<<40); err != nil {
		return err
	}
	if c.BatchBytes <= batchBytesMost && c.Memory/4 < 2*c.BatchBytes {
		return fmt.Errorf("limits.memory: %d is less than eight times limits.batch_bytes (%d): a quarter of it has to hold two batches", c.Memory, c.BatchBytes)
	}
	return nil
}

func checkMaxAge(age time.Duration) error {
	if age == 0 {
		return nil
	}
	return checkBetween("subscribe.max_age", age, time.Second, 10*365*24*time.Hour)
}

func checkBetween[T int | time.Duration](key string, value, least, most T) error {
	if value < least || value > most {
		return fmt.Errorf("%s: %v is not from %v to %v", key, value, least, most)
	}
	return nil
}

func checkOneOf(key, value string, known ...string) error {
	for _, k := range known {
		if value == k {
			return nil
		}
	}
	if len(known) == 1 {
		return fmt.Errorf("%s: %q is not %s, which is all that this version has", key, value, known[0])
	}
	return fmt.Errorf("%s: %q is not one of %s", key, value, strings.Join(known, ", "))
}

package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

// Options tunes a bus. StoreID is required; every other zero value is a default.
type Options struct {
	// StoreID returns the id of the store whose events the bus carries, as
	// [feed.Store] ID does. It has no braces, and changes when the store may hold
	// other events. Buses with different ids share nothing.
	StoreID func() string
	// Prefix begins all keys; "" means "rejoin".
	Prefix string
	// Shards is the number of hash slots that feeds are spread over on Cluster,
	// the same on all nodes; 0 means 16. Elsewhere one is used.
	Shards int
	// StreamLength is how many events the stream of a feed keeps, roughly;
	// 0 means 1000.
	StreamLength int
	// Expiry is how long the stream of a feed outlives its last event; 0 means
	// 1 hour. It is rounded up to whole seconds.
	Expiry time.Duration
	// TLS is used for rediss URLs; nil means the certificates of the system.
	TLS *tls.Config
	// Logger gets messages for operators; nil means slog.Default.
	Logger *slog.Logger
}

const maxShards = 1024

// Bus is a [feed.Bus] on Redis. It is safe for concurrent use.
type Bus struct {
	address address
	prefix  string
	storeID func() string
	length  any   // a number, as it goes into each command
	expiry  int64 // seconds
	logger  *slog.Logger

	current atomic.Pointer[keyspace] // see keys
	moving  sync.Mutex               // held to change it

	teller       goredis.UniversalClient
	breaker      breaker
	probeLimiter probeLimiter
	echoes       echoes

	signals signals
	health  health
	trips   feed.Durations // see RoundTrips
	counts  counters
}

// Open returns a bus on the Redis that the URL names: redis://, rediss://, and
// both with +sentinel or +cluster. It is no error if Redis cannot be reached: the
// bus works once it can be. It is an error if Redis refuses the password.
//
// Errors and log lines of the bus contain no secrets.
func Open(url string, o Options) (*Bus, error) {
	a, err := parseURL(url, o.TLS)
	if err != nil {
		return nil, fmt.Errorf("open redis: read the URL: %w", err)
	}
	shards := cmp.Or(o.Shards, 16)
	if shards < 1 || shards > maxShards {
		return nil, fmt.Errorf("open redis: %d shards are not between 1 and %d", shards, maxShards)
	}
	if a.kind != "cluster" {
		shards = 1
	}
	if o.StoreID == nil {
		return nil, errors.New("open redis: there is no store id")
	}
	prefix, id := cmp.Or(o.Prefix, "rejoin"), o.StoreID()
	if err := errors.Join(checkPart("prefix", prefix), checkPart("store id", id)); err != nil {
		return nil, fmt.Errorf("open redis: %w", err)
	}
	expiry := cmp.Or(o.Expiry, time.Hour)
	if o.StreamLength < 0 || expiry < 0 {
		return nil, errors.New("open redis: neither the length nor the expiry of a stream can be negative")
	}
	b := &Bus{
		address: *a,
		prefix:  prefix,
		storeID: o.StoreID,
		length:  cmp.Or(o.StreamLength, 1000),
		expiry:  int64((expiry + time.Second - 1) / time.Second),
		logger:  cmp.Or(o.Logger, slog.Default()).With("bus", a.String()),
		teller:  a.client(block + grace),
	}
	b.current.Store(newKeyspace(prefix, id, shards))
	b.health.logger = b.logger
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if err := b.teller.Ping(ctx).Err(); err != nil && isLoginRefused(err) {
		b.teller.Close()
		return nil, fmt.Errorf("open redis: log in: %w", err)
	}
	return b, nil
}

// String returns where the Redis is, without names and passwords.
func (b *Bus) String() string { return b.address.String() }

// Close releases the bus. Tail and Signals must have returned.
func (b *Bus) Close() error {
	if err := b.teller.Close(); err != nil && !errors.Is(err, goredis.ErrClosed) {
		return fmt.Errorf("close redis: %w", err)
	}
	return nil
}

// Ping reports whether the bus works. It fails while a tail has no connection, and
// after a failed Tell until one succeeds or some seconds have passed. It asks
// Redis only if neither a tail nor a Tell has run lately.
func (b *Bus) Ping(ctx context.Context) error {
	known, err := b.health.state(time.Now())
	if err == nil && !known {
		err = b.teller.Ping(ctx).Err()
	}
	if err != nil {
		return fmt.Errorf("ping redis: %w", err)
	}
	return nil
}

// RoundTrips returns how long Redis took to answer, with calls that failed, but without
// those that wait in Redis for news.
func (b *Bus) RoundTrips() *feed.Durations { return &b.trips }

// exec runs the commands of the pipe, and measures that.
func (b *Bus) exec(ctx context.Context, pipe goredis.Pipeliner) error {
	defer b.trips.Since(time.Now())
	_, err := pipe.Exec(ctx)
	return err
}

// process runs the command, and measures that.
func (b *Bus) process(ctx context.Context, client goredis.UniversalClient, cmd goredis.Cmder) error {
	defer b.trips.Since(time.Now())
	return client.Process(ctx, cmd)
}

// Stats counts what a bus has done since it was opened.
type Stats struct {
	Up bool // the tail is connected, and the last Tell did not fail

	Told       uint64 // events told, refused ones included
	Refused    uint64 // events that Redis refused: it had them, or a later one of their feed
	TellErrors uint64 // calls of Tell that failed
	Resets     uint64 // streams deleted because they could take no events

	Wakes      uint64 // wake entries read
	Events     uint64 // events read and handed to the receiver
	Grew       uint64 // calls of Grew: a stream lacked events
	Missed     uint64 // calls of Missed: any event may have been lost
	Reconnects uint64 // connections that a tail lost
}

// Stats returns what the bus has done so far.
func (b *Bus) Stats() Stats {
	known, err := b.health.state(time.Now())
	return Stats{
		Up:         known && err == nil,
		Told:       b.counts.told.Load(),
		Refused:    b.counts.refused.Load(),
		TellErrors: b.counts.tellErrors.Load(),
		Resets:     b.counts.reset.Load(),
		Wakes:      b.counts.wakes.Load(),
		Events:     b.counts.events.Load(),
		Grew:       b.counts.grew.Load(),
		Missed:     b.counts.missed.Load(),
		Reconnects: b.counts.reconnects.Load(),
	}
}

type counters struct {
	told, refused, tellErrors, reset        atomic.Uint64
	wakes, events, grew, missed, reconnects atomic.Uint64
}

// health is the state of the bus as its own calls show it.
type health struct {
	logger *slog.Logger

	mu         sync.Mutex
	shardTails map[*shardTail]error // of running tails: nil once connected
	down       bool                 // one of them is not connected
	outage     feed.Outage
	tell       error // of the last Tell
	toldAt     time.Time
}

// tellMemory is how long a failed Tell counts if none follows it.
const tellMemory = 10 * time.Second

var errStarting = errors.New("the tail is not connected yet")

// state returns the current error of the bus, and whether the state is known.
func (h *health) state(now time.Time) (known bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, err := range h.shardTails {
		if err != nil {
			return true, err
		}
	}
	if h.tell != nil && now.Sub(h.toldAt) < tellMemory {
		return true, h.tell
	}
	return len(h.shardTails) > 0 || h.tell == nil && !h.toldAt.IsZero() && now.Sub(h.toldAt) < tellMemory, nil
}

func (h *health) told(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell, h.toldAt = err, time.Now()
}

// tails notes the state of a shardTail. It logs when the state of the bus changes,
// and when the reason does.
func (h *health) tails(l *shardTail, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shardTails == nil {
		h.shardTails = make(map[*shardTail]error)
	}
	h.shardTails[l] = err
	if err == errStarting {
		return
	}
	var first error
	for _, e := range h.shardTails {
		first = cmp.Or(first, e)
	}
	if err == nil && first != nil {
		return // another one is still down, and has noted it
	}
	h.down = err != nil
	switch h.outage.Note(err) {
	case feed.OutageBegan:
		h.logger.Warn("bus unavailable; events of other nodes arrive late until it is back", "error", err)
	case feed.OutageChanged:
		h.logger.Warn("bus still unavailable, for another reason", "error", err)
	case feed.OutageEnded:
		h.logger.Info("bus available again", "after", h.outage.Lasted())
	}
}

// away reports whether a tail is not connected.
func (h *health) away() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// leave removes a shardTail that has ended.
func (h *health) leave(l *shardTail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.shardTails, l)
}

var _ feed.Bus = (*Bus)(nil)

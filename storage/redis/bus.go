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

// Options tunes a bus. StoreID has to be set; every other zero value is good.
type Options struct {
	// StoreID returns the id of the store whose events the bus carries, as
	// [feed.Store] ID does: without braces, and another if what the store holds
	// may be another. Buses with different ids have nothing in common.
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
	// Logger gets what operators should see; nil means slog.Default.
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

	teller goredis.UniversalClient
	gate   gate
	wary   wary
	echoes echoes

	signals signals
	health  health
	counts  counters
}

// Open returns a bus on the Redis that the URL names: redis://, rediss://, and
// both with +sentinel or +cluster. A Redis that can't be reached is no error:
// the bus works once it can be. One that refuses the password is.
//
// No error, and no line that the bus logs, has a secret in it.
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

// Ping says whether the bus works, as far as its own work shows: it fails while
// a tail has no connection, and after a failed Tell until one succeeds or some
// seconds have passed. Only where nothing is known it asks Redis.
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

// Stats is what a bus has done since it was opened, and whether it works.
type Stats struct {
	Up bool // the tail is connected, and the last Tell did not fail

	Told       uint64 // events told, those refused among them
	Refused    uint64 // events that Redis had, or had a later one of
	TellErrors uint64 // calls of Tell that failed
	Mended     uint64 // streams deleted because they could take no events

	Wakes      uint64 // wake entries read
	Events     uint64 // events read and handed to the receiver
	Grew       uint64 // times a stream did not have what it should
	Missed     uint64 // times anything may have been lost
	Reconnects uint64 // times a tail lost its connection
}

// Stats returns what the bus has done so far.
func (b *Bus) Stats() Stats {
	known, err := b.health.state(time.Now())
	return Stats{
		Up:         known && err == nil,
		Told:       b.counts.told.Load(),
		Refused:    b.counts.refused.Load(),
		TellErrors: b.counts.tellErrors.Load(),
		Mended:     b.counts.mended.Load(),
		Wakes:      b.counts.wakes.Load(),
		Events:     b.counts.events.Load(),
		Grew:       b.counts.grew.Load(),
		Missed:     b.counts.missed.Load(),
		Reconnects: b.counts.reconnects.Load(),
	}
}

type counters struct {
	told, refused, tellErrors, mended       atomic.Uint64
	wakes, events, grew, missed, reconnects atomic.Uint64
}

// health is what is known of how the bus does.
type health struct {
	logger *slog.Logger

	mu     sync.Mutex
	lanes  map[*lane]error // of running tails: nil once connected
	down   bool            // one of them is not
	outage feed.Outage
	tell   error // of the last Tell
	toldAt time.Time
}

// tellMemory is how long a failed Tell counts if none follows it.
const tellMemory = 10 * time.Second

var errStarting = errors.New("the tail is not connected yet")

// state returns the error that the bus has, and whether anything is known.
func (h *health) state(now time.Time) (known bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, err := range h.lanes {
		if err != nil {
			return true, err
		}
	}
	if h.tell != nil && now.Sub(h.toldAt) < tellMemory {
		return true, h.tell
	}
	return len(h.lanes) > 0 || h.tell == nil && !h.toldAt.IsZero() && now.Sub(h.toldAt) < tellMemory, nil
}

func (h *health) told(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tell, h.toldAt = err, time.Now()
}

// tails notes the state of a lane, and logs when the state of all changes, or the
// reason why one is not connected.
func (h *health) tails(l *lane, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lanes == nil {
		h.lanes = make(map[*lane]error)
	}
	h.lanes[l] = err
	if err == errStarting {
		return
	}
	var first error
	for _, e := range h.lanes {
		first = cmp.Or(first, e)
	}
	if err == nil && first != nil {
		return // of another lane, which has noted it
	}
	h.down = err != nil
	switch h.outage.Note(err) {
	case feed.OutageBegan:
		h.logger.Warn("the bus is away; events of other nodes arrive late until it is back", "error", err)
	case feed.OutageChanged:
		h.logger.Warn("the bus is still away, for another reason", "error", err)
	case feed.OutageEnded:
		h.logger.Info("the bus is back")
	}
}

// away says whether the bus is away.
func (h *health) away() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// leave forgets a lane that has ended.
func (h *health) leave(l *lane) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lanes, l)
}

var _ feed.Bus = (*Bus)(nil)

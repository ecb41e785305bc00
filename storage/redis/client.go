package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	dialTimeout = time.Second
	tellTimeout = time.Second // the longest Tell, if its context allows longer

	// How long a read blocks in Redis, and how much longer it waits for the answer. A
	// frozen server is noticed after the sum. go-redis sends a block under 1 ms as 0,
	// which is endless.
	block = time.Second
	grace = time.Second
)

// client returns a new client, whose reads fail after the timeout. It connects when
// it is first used.
//
// Its retries are off, here and in the pool: each would hide that the connection was
// lost.
func (a *address) client(readTimeout time.Duration) goredis.UniversalClient {
	quiet()
	o := a.options
	o.Protocol = 2
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.ContextTimeoutEnabled = true
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.DialTimeout = dialTimeout
	o.ReadTimeout = readTimeout
	o.WriteTimeout = tellTimeout
	o.PoolTimeout = dialTimeout
	o.PipelinePoolSize = -1 // one pool: the tail reads feeds on the connection that it waits on
	// A tail uses one connection for each goroutine. But after as many failed dials as
	// the pool is large, go-redis dials once a second at most, which is too slow to
	// notice that Redis is back.
	o.PoolSize = 1024
	// For Cluster only, where a redirection counts as a retry.
	o.MinRetryBackoff = 5 * time.Millisecond
	o.MaxRetryBackoff = 50 * time.Millisecond
	switch a.kind {
	case "sentinel":
		return goredis.NewFailoverClient(o.Failover())
	case "cluster":
		co := o.Cluster()
		co.DisableRoutingPolicies = true // they ask each server for its list of commands
		return goredis.NewClusterClient(co)
	default:
		return goredis.NewClient(o.Simple())
	}
}

// quiet keeps go-redis, in the whole process, from writing to standard error: it
// returns the same as errors.
var quiet = sync.OnceFunc(func() { goredis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// relearn makes a client of a cluster ask again which server owns which slot.
func relearn(ctx context.Context, client goredis.UniversalClient) {
	if c, ok := client.(*goredis.ClusterClient); ok {
		c.ReloadState(ctx)
	}
}

// The errors of Redis. Only the first has a code; the others are known by their text.

func isWrongType(err error) bool { return goredis.HasErrorPrefix(err, "WRONGTYPE") }

// isRefused means that the stream has this id or a larger one.
func isRefused(err error) bool {
	return goredis.HasErrorPrefix(err, "The ID specified in XADD is equal or smaller")
}

// isExhausted means that the stream can take no further id.
func isExhausted(err error) bool {
	return goredis.HasErrorPrefix(err, "The stream has exhausted the last possible ID")
}

// isDamaged means that the key holds nothing that this package made, so it may be
// deleted.
func isDamaged(err error) bool { return err != nil && (isWrongType(err) || isExhausted(err)) }

// isAnswer means that Redis answered, even if with an error.
func isAnswer(err error) bool {
	_, ok := errors.AsType[goredis.Error](err)
	return ok
}

// isLoginRefused means that the name or the password is wrong.
func isLoginRefused(err error) bool {
	return goredis.IsAuthError(err) || goredis.HasErrorPrefix(err, "AUTH <password> called without any password")
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// backoff is how long to wait before the next try: longer each time, up to a
// bound that keeps recovery quick.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 50*time.Millisecond), 500*time.Millisecond)
	return b.last
}

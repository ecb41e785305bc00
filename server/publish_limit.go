package server

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// errRate means that a client publishes too fast.
var errRate = errors.New("too many events a second" + nothingStored)

// rateError is errRate, with the time until there is room.
type rateError struct{ wait time.Duration }

func (e *rateError) Error() string { return errRate.Error() }
func (e *rateError) Unwrap() error { return errRate }

// seconds is the value of Retry-After.
func (e *rateError) seconds() int { return max(1, int(math.Ceil(e.wait.Seconds()))) }

// burstSeconds is how long a client that has paused may publish all at once.
const burstSeconds = 5

// maxPublisherLimits bounds the memory for limits, of about 300 bytes each.
const maxPublisherLimits = 10_000

// publishLimits limits the events in a second for each subject of a token and for each
// address.
type publishLimits struct {
	perSecond int // 0 means no limit

	mu       sync.Mutex
	limits   map[publisherKey]*list.Element // of *publisherLimit
	lastUsed list.List                      // in front
}

// publisherKey names what a limit is for: the hash of a subject, or an address.
type publisherKey struct {
	subject [sha256.Size]byte
	address netip.Addr
}

type publisherLimit struct {
	key    publisherKey
	bucket *rate.Limiter
}

// publisher holds the limits that a request counts for.
type publisher struct {
	limits *publishLimits
	keys   []publisherKey
}

// set changes the limit. What has been counted under another one is forgotten.
func (l *publishLimits) set(perSecond int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perSecond != perSecond {
		l.perSecond = perSecond
		clear(l.limits)
		l.lastUsed.Init()
	}
}

// publisherOf returns the limits for r. It is nil if there are none.
func (s *Server) publisherOf(r *http.Request) *publisher {
	if s.options().PublishesPerSecond == 0 {
		return nil
	}
	keys := []publisherKey{{address: s.addressOf(r)}}
	if subject := grantOf(r.Context()).Subject(); subject != "" {
		keys = append(keys, publisherKey{subject: sha256.Sum256([]byte(subject))})
	}
	return &publisher{&s.publishLimits, keys}
}

// take counts n events, or returns a *rateError and counts none. More events than a
// burst pass when nothing else has been counted lately, and what is beyond the burst
// counts as debt. p may be nil.
func (p *publisher) take(n int) error {
	if p == nil {
		return nil
	}
	now := time.Now()
	p.limits.mu.Lock()
	defer p.limits.mu.Unlock()
	p.limits.forget(now)
	buckets := make([]*rate.Limiter, len(p.keys))
	for i, key := range p.keys {
		buckets[i] = p.limits.bucket(key)
	}
	var wait time.Duration
	for _, bucket := range buckets {
		if lacks := float64(min(n, bucket.Burst())) - bucket.TokensAt(now); lacks > 0 {
			wait = max(wait, time.Duration(lacks/float64(bucket.Limit())*float64(time.Second)))
		}
	}
	if wait > 0 {
		return &rateError{wait}
	}
	for _, bucket := range buckets {
		for left := n; left > 0; left -= bucket.Burst() {
			bucket.ReserveN(now, min(left, bucket.Burst()))
		}
	}
	return nil
}

// forget removes buckets that are full again: new ones are no different. It makes room
// for one request. The caller holds mu.
func (l *publishLimits) forget(now time.Time) {
	for range 4 { // more than come, so that there is no backlog
		oldest := l.lastUsed.Back()
		if oldest == nil {
			return
		}
		limit := oldest.Value.(*publisherLimit)
		full := limit.bucket.TokensAt(now) >= float64(limit.bucket.Burst())
		if !full && l.lastUsed.Len() <= maxPublisherLimits-2 {
			return
		}
		l.lastUsed.Remove(oldest)
		delete(l.limits, limit.key)
	}
}

// bucket returns the bucket for the key. The caller holds mu.
func (l *publishLimits) bucket(key publisherKey) *rate.Limiter {
	if known, ok := l.limits[key]; ok {
		l.lastUsed.MoveToFront(known)
		return known.Value.(*publisherLimit).bucket
	}
	if l.limits == nil {
		l.limits = make(map[publisherKey]*list.Element)
	}
	limit := &publisherLimit{key, rate.NewLimiter(rate.Limit(l.perSecond), burstSeconds*l.perSecond)}
	l.limits[key] = l.lastUsed.PushFront(limit)
	return limit.bucket
}

// awaitRate waits until the limit has room for one event of a stream.
func (p *publishStream) awaitRate() error {
	for {
		err := p.limit.take(1)
		tooFast, ok := errors.AsType[*rateError](err)
		if !ok {
			return err
		}
		if !p.pause(max(tooFast.wait, time.Millisecond)) {
			return errStreamOver
		}
	}
}

package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

const (
	signalTimeout = 500 * time.Millisecond // the longest Signal, if its context allows longer

	// How often a connection is pinged, and how much longer it may be silent before it
	// is closed.
	pingEvery = block
	pingGrace = grace

	// How long signals may fail while the tail works before that is logged: if both fail,
	// either may notice first.
	signalPatience = 5 * time.Second
)

// errDeaf means that signals of this node, which Redis took, do not come back: the node
// is subscribed at a server that the other nodes no longer use.
var errDeaf = errors.New("this node's own signals do not come back to it")

// Signal publishes the payload on the store's channel. Its failures are logged only if
// they last: see signals.note.
func (b *Bus) Signal(ctx context.Context, payload []byte) error {
	now := time.Now()
	err := cmp.Or(b.breaker.check(now), b.signals.breaker.check(now))
	if err == nil {
		// It opens no breaker but its own: on Cluster, the server for signals may be down
		// while others take events.
		err = b.publish(ctx, payload)
		b.signals.breaker.note(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("signal redis: %w", err)
	}
	return nil
}

func (b *Bus) publish(ctx context.Context, payload []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	sent := b.signals.send(time.Now())
	channel := b.keys().signals
	client, err := b.speaker(short, channel)
	if err == nil {
		err = b.process(short, client, goredis.NewIntCmd(short, "publish", channel, payload))
	}
	if err != nil {
		b.signals.unsend(sent)
		relearn(short, b.teller)
	}
	if ctx.Err() == nil {
		b.signals.note(&b.health, &b.signals.sending, err)
	}
	return err
}

// speaker returns the client to publish with. Every server of a cluster takes signals,
// but they stay in order only if all go to the server that nodes are subscribed at,
// which go-redis chooses by the name of the channel.
func (b *Bus) speaker(ctx context.Context, channel string) (goredis.UniversalClient, error) {
	if c, ok := b.teller.(*goredis.ClusterClient); ok {
		return c.MasterForKey(ctx, channel)
	}
	return b.teller, nil
}

// Signals implements [feed.Signaler]. Like Tail, it has its own client. The client's
// timeout bounds connecting, which the end of ctx does not interrupt.
func (b *Bus) Signals(ctx context.Context, receive func(payload []byte)) error {
	client := b.address.client(signalTimeout)
	defer client.Close()
	wait := backoff{}
	for ctx.Err() == nil {
		began := time.Now()
		err := b.listen(ctx, client, receive)
		if ctx.Err() != nil {
			break
		}
		if err == errMoved {
			continue
		}
		b.signals.note(&b.health, &b.signals.listening, err)
		relearn(ctx, client)
		if time.Since(began) > steady+pingEvery+pingGrace {
			wait = backoff{}
		}
		pause(ctx, wait.next())
	}
	return nil
}

// listen subscribes to the store's channel and passes on the payloads, until the
// connection is lost or the store has another channel.
//
// go-redis would reconnect by itself, but it does not report that, and after a read
// that timed out inside a payload it takes the rest for the next answer. So any error
// ends the subscription, and pings make sure that a read times out only if the server
// is frozen.
func (b *Bus) listen(ctx context.Context, client goredis.UniversalClient, receive func(payload []byte)) error {
	keys := b.keys()
	sub := client.Subscribe(ctx)
	hangUp := sync.OnceFunc(func() { sub.Close() })
	defer hangUp()
	defer context.AfterFunc(ctx, hangUp)()
	if err := sub.Subscribe(ctx, keys.signals); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	var pings sync.WaitGroup
	defer pings.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pings.Go(func() {
		for pause(ctx, pingEvery); ctx.Err() == nil; pause(ctx, pingEvery) {
			if sub.Ping(ctx) != nil {
				hangUp()
				return
			}
		}
	})
	for {
		answer, err := sub.ReceiveTimeout(ctx, pingEvery+pingGrace)
		if err != nil {
			return fmt.Errorf("wait for signals: %w", err)
		}
		switch answer := answer.(type) {
		case *goredis.Subscription:
			b.signals.heard()
			b.signals.note(&b.health, &b.signals.listening, nil)
		case *goredis.Message:
			b.signals.heard()
			if b.keys() != keys {
				return errMoved
			}
			receive([]byte(answer.Payload))
		case *goredis.Pong:
			if b.keys() != keys {
				return errMoved
			}
			// Signals that were sent before the ping have been read by now.
			if b.signals.unheard(time.Now()) {
				return errDeaf
			}
		}
	}
}

// signals is the state of a bus's signals.
type signals struct {
	breaker breaker

	mu        sync.Mutex
	out       time.Time // when the first signal was sent of those after which none came back
	sending   failure
	listening failure
	down      bool // the state that was logged last
	downSince time.Time
}

// failure is an error, and since when it has lasted while the tail worked.
type failure struct {
	err   error
	since time.Time
}

func (s *signals) send(now time.Time) (sent time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.IsZero() {
		s.out = now
	}
	return now
}

func (s *signals) unsend(sent time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.Equal(sent) {
		s.out = time.Time{}
	}
}

func (s *signals) heard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = time.Time{}
}

func (s *signals) unheard(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.out.IsZero() && now.Sub(s.out) > pingEvery+pingGrace
}

// note notes the result of sending or listening. It logs failures of signals alone: if
// the whole bus is unavailable, the tail logs that.
func (s *signals) note(h *health, f *failure, err error) {
	away := h.away()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		*f = failure{}
	case f.err == nil, away:
		*f = failure{err, now}
	default:
		f.err = err
	}
	switch {
	case err != nil && !s.down && now.Sub(f.since) > signalPatience:
		s.down, s.downSince = true, f.since
		h.logger.Warn("signals do not get through; ephemeral events stay on their node", "error", err)
	case s.down && s.sending.err == nil && s.listening.err == nil:
		s.down = false
		h.logger.Info("signals get through again", "after", now.Sub(s.downSince).Round(time.Millisecond))
	}
}

var _ feed.Signaler = (*Bus)(nil)

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
	signalTimeout = 500 * time.Millisecond // of sending one, if the caller gives it longer

	// A connection is asked for a sign of life that often, and given up if
	// nothing at all has come for the sum of the two.
	pingEvery = block
	pingGrace = grace

	// How long signals may fail while the tail works until operators hear of
	// it: what ends both is noticed by either first.
	signalPatience = 5 * time.Second
)

// errDeaf says that signals of this node, which Redis took, do not come back to
// it: it listens to a server that the others do not speak to any more.
var errDeaf = errors.New("this node's own signals do not come back to it")

// Signal publishes the payload on the store's channel. What Redis says of it is
// of interest to operators only if it stays that way: see signals.note.
func (b *Bus) Signal(ctx context.Context, payload []byte) error {
	now := time.Now()
	err := cmp.Or(b.gate.closed(now), b.signals.gate.closed(now))
	if err == nil {
		// It closes no gate but its own: on Cluster, the server that signals
		// go to may be away while others take events.
		err = b.publish(ctx, payload)
		b.signals.gate.note(ctx, err)
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
		err = client.Process(short, goredis.NewIntCmd(short, "publish", channel, payload))
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

// speaker returns the client to publish with. Cluster takes signals on every
// server; they stay in order if they all go to the one that is listened to,
// which go-redis chooses by the name of the channel.
func (b *Bus) speaker(ctx context.Context, channel string) (goredis.UniversalClient, error) {
	if c, ok := b.teller.(*goredis.ClusterClient); ok {
		return c.MasterForKey(ctx, channel)
	}
	return b.teller, nil
}

// Signals implements [feed.Signaler]. Like Tail, it has a client of its own. Its
// timeout is for connecting, which the end of ctx does not interrupt.
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

// listen subscribes to the store's channel and hands over what comes, until
// the connection is lost or the store has another channel.
//
// go-redis would go on by itself with a new one. It does not say so, and after
// a read that timed out in the middle of a payload it takes the rest for the
// next answer. So any error ends the subscription, and pings see to it that a
// read times out only if the server stands still.
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
			// What was sent before the ping has been read by now.
			if b.signals.unheard(time.Now()) {
				return errDeaf
			}
		}
	}
}

// signals is how a bus does with its signals.
type signals struct {
	gate gate

	mu        sync.Mutex
	out       time.Time // when a signal was sent, after which none has been heard
	sending   failure
	listening failure
	down      bool // as last logged
}

// failure is what has gone wrong, and since when while the tail worked.
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

// note notes how sending or listening goes. It logs what is wrong with signals
// alone: that the bus is away is for the tail to say.
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
		s.down = true
		h.logger.Warn("signals do not get through; ephemeral events stay on their node", "error", err)
	case s.down && s.sending.err == nil && s.listening.err == nil:
		s.down = false
		h.logger.Info("signals get through again")
	}
}

var _ feed.Signaler = (*Bus)(nil)

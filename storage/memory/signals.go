package memory

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/rejoin/rejoin/feed"
)

// The bounds of the signals that wait for one receiver. Signals beyond them are dropped,
// as signals may be.
const (
	signalsWaiting = 1024
	signalBytes    = 16 << 20
)

var _ feed.LoneSignaler = (*Bus)(nil)

// signals holds the payloads that one call of Signals has yet to pass on.
type signals struct {
	payloads chan []byte
	bytes    atomic.Int64
}

func (s *signals) put(payload []byte) {
	size := int64(len(payload))
	if s.bytes.Add(size) > signalBytes {
		s.bytes.Add(-size)
		return
	}
	select {
	case s.payloads <- slices.Clone(payload):
	default:
		s.bytes.Add(-size)
	}
}

// Signal implements [feed.Signaler]. It passes the payload to each running Signals, and
// waits for none. It returns the context's error or [feed.ErrStopped].
func (b *Bus) Signal(ctx context.Context, payload []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("signal: %w", feed.ErrStopped)
	}
	for s := range b.signals {
		s.put(payload)
	}
	return nil
}

// Alone implements [feed.LoneSignaler].
func (b *Bus) Alone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.signals) <= 1
}

// Signals implements [feed.Signaler]. On a closed bus it returns
// [feed.ErrStopped].
func (b *Bus) Signals(ctx context.Context, receive func(payload []byte)) error {
	s := &signals{payloads: make(chan []byte, signalsWaiting)}
	if !b.joinSignals(s) {
		return fmt.Errorf("signals: %w", feed.ErrStopped)
	}
	defer b.leaveSignals(s)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case payload := <-s.payloads:
			s.bytes.Add(-int64(len(payload)))
			receive(payload)
		}
	}
	return nil
}

func (b *Bus) joinSignals(s *signals) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.signals[s] = struct{}{}
	return true
}

func (b *Bus) leaveSignals(s *signals) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.signals, s)
}

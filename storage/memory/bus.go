// Package memory is the bus for nodes in one process: one node, or several in a test.
//
// It keeps nothing. Told events go to the inboxes of the Tails that run at that moment.
// An inbox whose receiver does not empty it in time drops its events and calls Missed.
// Signals go to inboxes of their own, which drop new signals when they are full.
package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// The bounds of an inbox, in events and in bytes of their data. An inbox has to hold only
// the events that come before the receiver's goroutine runs.
const (
	inboxEvents = 10_000
	inboxBytes  = 8 << 20
)

// Bus is a [feed.Bus] in memory. Each Tail that runs on it is a node.
type Bus struct {
	mu      sync.Mutex
	inboxes map[*inbox]struct{}
	signals map[*signals]struct{}
	closed  bool
}

var _ feed.Bus = (*Bus)(nil)

// NewBus returns a bus without Tails.
func NewBus() *Bus {
	return &Bus{inboxes: make(map[*inbox]struct{}), signals: make(map[*signals]struct{})}
}

// Tell puts the events into the inbox of each Tail. It never waits for a receiver. It
// returns the context's error or [feed.ErrStopped].
func (b *Bus) Tell(ctx context.Context, events []feed.Event) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("tell: %w", feed.ErrStopped)
	}
	for in := range b.inboxes {
		in.put(events)
	}
	return nil
}

// Tail implements [feed.Bus]. On a closed bus it returns [feed.ErrStopped].
func (b *Bus) Tail(ctx context.Context, r feed.Receiver) error {
	in := &inbox{receiver: r, filled: make(chan struct{}, 1)}
	if !b.join(in) {
		return fmt.Errorf("tail: %w", feed.ErrStopped)
	}
	defer b.leave(in)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in.filled:
			in.empty()
		}
	}
}

func (b *Bus) join(in *inbox) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.inboxes[in] = struct{}{}
	return true
}

func (b *Bus) leave(in *inbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.inboxes, in)
}

// Close makes later calls of Tell, Tail, Signal and Signals fail.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// inbox holds the events that a receiver has yet to get.
type inbox struct {
	receiver feed.Receiver

	mu     sync.Mutex
	events []feed.Event
	bytes  int
	missed bool
	filled chan struct{} // has an entry while events wait, or were dropped
}

// put puts in the events that the receiver wants. A node does not want its own, which it
// takes into its logs before it tells them.
func (in *inbox) put(events []feed.Event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	held := len(in.events)
	in.events = appendWanted(in.events, events, in.receiver)
	if len(in.events) == held {
		return
	}
	for i := range in.events[held:] {
		in.bytes += len(in.events[held+i].Data)
	}
	if len(in.events) > inboxEvents || in.bytes > inboxBytes {
		// Drop all of it: the receiver has to read the store anyway.
		in.events, in.bytes, in.missed = nil, 0, true
	}
	select {
	case in.filled <- struct{}{}:
	default:
	}
}

// empty passes on what is in the inbox.
func (in *inbox) empty() {
	in.mu.Lock()
	events, missed := in.events, in.missed
	in.events, in.bytes, in.missed = nil, 0, false
	in.mu.Unlock()
	if missed {
		in.receiver.Missed()
	}
	if len(events) > 0 {
		in.receiver.Receive(events) // which may keep the slice
	}
}

// appendWanted appends those of events that are of feeds which the node follows, after
// its cursor.
func appendWanted(to, events []feed.Event, r feed.Receiver) []feed.Event {
	var name string // the feed to which after and open belong
	var after feed.ID
	var open bool
	for i := range events {
		if e := &events[i]; e.Feed != name {
			name = e.Feed
			after, open = r.Cursor(name)
		}
		if open && events[i].ID > after {
			to = append(to, events[i])
		}
	}
	return to
}

// Package memory is the bus for nodes that live in one process: one node, or
// several in a test.
//
// It keeps nothing. What is told goes to the inboxes of the Tails that run at
// that moment; an inbox that its receiver does not empty in time drops what it
// holds and tells the receiver that it missed something. Signals go to inboxes
// of their own, which drop what comes when they are full.
package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// Bounds of an inbox, in events and in bytes of their data. They only have to
// bridge the time until the receiver's goroutine runs.
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

// NewBus returns a bus that nobody tails yet.
func NewBus() *Bus {
	return &Bus{inboxes: make(map[*inbox]struct{}), signals: make(map[*signals]struct{})}
}

// Tell puts the events into the inbox of each Tail. It never waits for a
// receiver. Its errors are the context's and [feed.ErrStopped].
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
	in := &inbox{filled: make(chan struct{}, 1)}
	if !b.join(in) {
		return fmt.Errorf("tail: %w", feed.ErrStopped)
	}
	defer b.leave(in)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in.filled:
			in.empty(r)
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

// Close makes every Tell, Tail, Signal and Signals after it fail.
func (b *Bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// inbox holds what a receiver has not been handed yet.
type inbox struct {
	mu     sync.Mutex
	events []feed.Event
	bytes  int
	missed bool
	spare  []feed.Event  // empty, to be filled next
	filled chan struct{} // holds a token while there is something to hand over
}

func (in *inbox) put(events []feed.Event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	size := 0
	for i := range events {
		size += len(events[i].Data)
	}
	if len(in.events)+len(events) > inboxEvents || in.bytes+size > inboxBytes {
		// All of it goes: the receiver will have to ask the store anyway.
		in.events, in.bytes, in.missed = nil, 0, true
	} else {
		in.events, in.bytes = append(in.events, events...), in.bytes+size
	}
	select {
	case in.filled <- struct{}{}:
	default:
	}
}

// empty hands over what the receiver wants of the inbox.
func (in *inbox) empty(r feed.Receiver) {
	in.mu.Lock()
	events, missed := in.events, in.missed
	in.events, in.bytes, in.missed = in.spare, 0, false
	in.spare = nil
	in.mu.Unlock()
	if missed {
		r.Missed()
	}
	if kept := wanted(events, r); len(kept) > 0 {
		r.Receive(kept) // which may keep them
		return
	}
	clear(events)
	in.mu.Lock()
	in.spare = events[:0]
	in.mu.Unlock()
}

// wanted filters events in place: those of feeds that the node follows, after
// its cursor. What a node tells itself ends here, as its cursor has passed it.
func wanted(events []feed.Event, r feed.Receiver) []feed.Event {
	var name string // of the feed that after and open are of
	var after feed.Cursor
	var open bool
	kept := events[:0]
	for i := range events {
		if e := &events[i]; e.Feed != name {
			name = e.Feed
			after, open = r.Cursor(name)
		}
		if open && events[i].ID > uint64(after) {
			kept = append(kept, events[i])
		}
	}
	return kept
}

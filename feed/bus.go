package feed

import "context"

// Bus carries news of events between nodes. What it carries is a hint. It may drop,
// repeat, delay and reorder it; that costs time, never events.
type Bus interface {
	// Tell sends events, which the store has committed, to the other nodes. The
	// caller sets a deadline, and goes on without the bus after it.
	Tell(ctx context.Context, events []Event) error

	// Tail passes what other nodes tell to r, until ctx ends; then it returns
	// nil. It outlives failures of the bus: it tries again by itself, and
	// calls r.Missed when it may have lost something. It calls r from one
	// goroutine at a time, and r.Cursor from any. A node may get what it told
	// itself.
	Tail(ctx context.Context, r Receiver) error

	// Close releases the bus. Tail must have returned.
	Close() error
}

// Receiver is a node's side of Tail. Its methods do not block.
type Receiver interface {
	// Cursor returns the cursor after which this node wants events of the
	// feed. If it wants none, open is false.
	Cursor(feed string) (after ID, open bool)
	// Receive takes events in any order, of any feeds.
	Receive(events []Event)
	// Grew reports that the feed has reached the id last, when the bus knows
	// no more than that.
	Grew(feed string, last ID)
	// Missed reports that anything may have happened to any feed.
	Missed()
}

// ComparingReceiver is a Receiver that compares events that it has with what
// another node tells of them.
type ComparingReceiver interface {
	Receiver
	// Seen takes events that are not after the receiver's cursor, before
	// Receive takes those that follow.
	Seen(events []Event)
}

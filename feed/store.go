package feed

import (
	"context"
	"time"
)

// Store keeps every event of every feed: it is the truth. All of its methods
// may be called at the same time. A context that ends while an append commits
// does not undo the commit.
//
// An error that wraps ErrUnavailable promises that nothing was stored.
type Store interface {
	// ID names this store's content. It is made when the store is created
	// and kept with it: a new or replaced store has another.
	ID() string

	// Append commits batches, each whole or not at all, and returns one result
	// a batch, in order. Within a feed, ids go up by one from event to event,
	// and become visible to readers in that order; the ids of what was refused
	// are not used up. When Append returns, what it stored survives the crash
	// of the machine.
	//
	// A feed that somebody else holds, such as a long transaction, delays what
	// is appended to it, within reason, unless the batch says NoWait: then the
	// result of that batch is ErrBusy, and the others are committed at once.
	//
	// The drafts are clean: a Publisher has seen to that. An error means that
	// none of the batches was stored, unless it wraps ErrUncertain.
	Append(ctx context.Context, batches []Batch) ([]Result, error)

	// Read returns the feed's bounds and its events after the cursor, oldest
	// first and without a hole, as they stood at one instant. It returns at
	// most limit.Events, and stops early once they have limit.Bytes of data;
	// if there is an event, it returns at least one. If the events right after
	// the cursor are no longer kept, the page begins with the oldest that is.
	Read(ctx context.Context, feed string, after Cursor, limit Limit) (Page, error)

	// Bounds returns the bounds of each feed, in order; Unwritten for one that
	// does not exist. What was acknowledged before the call is in the answer.
	Bounds(ctx context.Context, feeds []string) ([]Bounds, error)

	// Seek returns the cursor before the oldest kept event whose time is t or
	// later; the newest cursor when there is none.
	Seek(ctx context.Context, feed string, t time.Time) (Cursor, error)

	// Close waits for calls in progress and releases the store.
	Close() error
}

// Batch is what one publish asks a store to append: all of it or nothing.
type Batch struct {
	Drafts []Draft
	NoWait bool // do not wait for a feed that somebody else holds
}

// Result is the outcome of one Batch: its events, in the order of its drafts,
// or the reason why it alone was refused.
type Result struct {
	Events []Event
	Err    error
}

// Limit bounds a page. Both have to be positive.
type Limit struct {
	Events int
	Bytes  int
}

// Page is a stretch of a feed's history.
type Page struct {
	Bounds
	Events []Event
}

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
	// ID names this store's content, in letters, digits, dots and dashes. It is
	// made when the store is created and kept with it: a new or replaced store
	// has another. It may change while the store is in use, when what it holds
	// may be another from then on: restored, promoted, or a copy. What Append
	// commits is of the ID that holds before and after the call; if it changes
	// meanwhile, of either. ID does not block.
	ID() string

	// Append commits batches, each whole or not at all, and returns one result
	// a batch, in order. Within a feed, ids go up by one from event to event,
	// and become visible to readers in that order; the ids of what was refused
	// are not used up. When Append returns, what it stored survives the crash
	// of the machine.
	//
	// A feed that somebody else holds, such as a long transaction, delays what
	// is appended to it, within reason, and then the error wraps ErrBusy and
	// ErrUnavailable; unless the batch says NoWait: then the result of that batch
	// is ErrBusy, and the others are committed at once.
	//
	// The drafts are clean: a Publisher has seen to that. An error means that
	// none of the batches was stored, unless it wraps ErrUncertain. Within one
	// call, a batch sees what those before it did.
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
//
// A store looks at it in this order: a Key that it knows decides alone; then a
// closed feed refuses drafts with ErrClosed; then IfLast.
type Batch struct {
	// Feed is the one feed that the batch is about; empty if its drafts are for
	// several, which is possible only without IfLast and Close.
	Feed   string
	Drafts []Draft // may be empty if Close is set

	// Key, if not nil, makes the batch one that is stored once.
	Key *Key
	// IfLast, if not nil, has the batch refused with a [*LastError] unless this
	// is the feed's last id.
	IfLast *uint64
	// Close closes the feed behind the drafts, for good. A feed that was never
	// written to exists from then on. To close one that is closed, without
	// drafts, changes nothing and is no error.
	Close bool

	NoWait bool // do not wait for a feed that somebody else holds
}

// Key makes a publish one that can be repeated: while a store remembers the
// key, a batch that has it appends nothing. If that is the same batch, its
// result is what it was the first time, and Replayed; if it is another, it is
// refused with ErrKeyReused. A batch that was refused leaves no key behind.
type Key struct {
	// Name is 1 to 255 visible ASCII characters. Each feed has its own keys, and
	// batches without a Feed have theirs.
	Name string
	// Fingerprint tells batches apart: it is the same for the same drafts and Close.
	Fingerprint [32]byte
	// Window is for how long the store remembers the key at least, in whole
	// milliseconds: one that is older is a new key. [Keeper] Sweep removes it.
	Window time.Duration
}

// Result is the outcome of one Batch: its events, in the order of its drafts,
// or the reason why it alone was refused.
type Result struct {
	Events []Event
	// Replayed says that the events were stored by an earlier batch with the
	// same key.
	Replayed bool
	Err      error
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

// RetentionStore is a Store that can say which feeds it has, and give up events.
type RetentionStore interface {
	Store

	// List returns the feeds whose names begin with prefix and come after the
	// name after, in the order of the names' bytes: limit of them, if there are
	// so many. A feed that was never written to or closed is not among them. With
	// a limit of 0, it is asked for the time alone.
	// A limit of 0 asks for the time alone.
	List(ctx context.Context, prefix, after string, limit int) (FeedList, error)

	// Trim gives up the feed's events below the id before, all of them at once
	// and for every reader. It never moves First back, and never gives up what
	// is yet to be stored: a before that is larger than Last+1 counts as Last+1.
	// For a feed that does not exist it does nothing. A feed that somebody else
	// holds for longer than is reasonable is left as it is, with ErrBusy.
	Trim(ctx context.Context, feed string, before uint64) error

	// Sweep frees what the events take up that were given up, and keys older
	// than window: about limit rows in all, so that it holds up appends for a
	// moment only. more says whether there may be more to free.
	Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error)

	// RunExclusive runs fn unless another node is running its own, and says whether it
	// did. Its error is fn's, or the store's.
	RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error)
}

// FeedList is a part of a store's feeds.
type FeedList struct {
	Feeds []Info
	Now   time.Time // by the clock that times the events
}

// Info is what a store says of a feed.
type Info struct {
	Feed string
	Bounds
	Updated time.Time // the time of its newest event, or of its closing if it never had one
	Bytes   int64     // of the data of its events; those given up count until they are swept
}

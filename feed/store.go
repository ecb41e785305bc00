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
	// ID names this store's content, in letters, digits, dots and dashes. The store
	// gets it when it is created and keeps it; a new store, or one in its place,
	// has another. It may change while the store is in use: after the store was
	// restored, promoted or copied, other events may have the same ids. Events
	// belong to the ID before and after their Append; if it changes meanwhile, to
	// either. ID does not block.
	ID() string

	// Append commits batches, each whole or not at all, and returns one result
	// for each batch, in order. Within a feed, ids go up by one from event to
	// event, and become visible to readers in that order. A refused batch uses no
	// ids. When Append returns, the events that it stored survive a crash of the
	// machine.
	//
	// If another transaction holds a feed, appends to that feed wait, within
	// reason; then the error wraps ErrBusy and ErrUnavailable. A batch with
	// NoWait does not wait: its result is ErrBusy, and Append commits the others
	// at once.
	//
	// A Publisher has checked the drafts. An error means that none of the batches
	// was stored, unless it wraps ErrUncertain. Within one call, a batch sees the
	// effects of those before it.
	Append(ctx context.Context, batches []Batch) ([]Result, error)

	// Read returns the feed's bounds and its events after the cursor, oldest
	// first and without a hole, as they stood at one instant. It returns at
	// most limit.Events, and stops early once they have limit.Bytes of data;
	// if there is an event, it returns at least one. If the events right after
	// the cursor are no longer kept, the page begins with the oldest that is.
	Read(ctx context.Context, feed string, after ID, limit Limit) (Page, error)

	// Bounds returns the bounds of each feed, in order; Unwritten for one that
	// does not exist. What was acknowledged before the call is in the answer.
	Bounds(ctx context.Context, feeds []string) ([]Bounds, error)

	// Seek returns the cursor before the oldest kept event whose time is t or
	// later; the newest cursor when there is none.
	Seek(ctx context.Context, feed string, t time.Time) (ID, error)

	// Close waits for calls in progress and releases the store.
	Close() error
}

// Batch is what a publisher asks a store to append for one [Publication]: all of it or
// nothing.
//
// A store decides in this order: a known Key decides alone; then a closed feed
// refuses drafts with ErrClosed; then IfLast. See [PlanAppend].
type Batch struct {
	// Feed is the one feed that the batch is about; empty if its drafts are for
	// several, which is possible only without IfLast and Close.
	Feed   string
	Drafts []Draft // may be empty if Close is set

	// Key, if not nil, makes the batch one that is stored once.
	Key *Key
	// IfLast, if not nil, is the last id that the feed has to have. Otherwise the
	// store refuses the batch with a [*LastError].
	IfLast *ID
	// Close closes the feed after the drafts. No event can follow. A feed that
	// was never written to exists from then on. Closing a closed feed again,
	// without drafts, changes nothing and is no error.
	Close bool

	// Follows chains the batch to the one before it in the same Append, which is
	// about the same feed. If that one is refused, so is this one, for the same
	// reason. If IfLast is not nil, the feed has to end with the last event of that
	// one, and the value of IfLast does not count. Chained batches are NoWait.
	Follows bool

	NoWait bool // do not wait for a feed that another transaction holds

	Trace string // the Publication's, for the publisher; a store ignores it
}

// Behind returns the batch as it is decided once the one before it in the same Append
// has the result before, or the error with which it is refused.
func (b Batch) Behind(before Result) (Batch, error) {
	switch {
	case !b.Follows:
		return b, nil
	case before.Err != nil:
		return b, before.Err
	}
	if b.IfLast != nil && len(before.Events) > 0 {
		b.IfLast = &before.Events[len(before.Events)-1].ID
	}
	return b, nil
}

// Key makes a publish repeatable. While a store remembers the key, a batch with
// the same key appends nothing. The same batch gets the result of the first one,
// with Replayed set; a different batch is refused with ErrKeyReused. A refused
// batch leaves no key behind.
type Key struct {
	// Name is 1 to 255 visible ASCII characters. Each feed has its own keys, and
	// batches without a Feed have theirs.
	Name string
	// Fingerprint tells batches apart: it is the same for the same drafts and Close.
	Fingerprint [32]byte
	// Window is the time for which the store remembers the key, in whole
	// milliseconds. An older key counts as new. [RetentionStore] Sweep removes it.
	Window time.Duration
}

// Result is the outcome of one Batch: its events, in the order of its drafts,
// or the reason why it alone was refused.
type Result struct {
	Events []Event
	// Replayed notes that the events were stored by an earlier batch with the
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

// RetentionStore is a Store that can list its feeds and delete old events.
type RetentionStore interface {
	Store

	// List returns at most limit feeds whose names begin with prefix and come
	// after the name after, in the order of the names' bytes. It leaves out feeds
	// that were never written to or closed. A limit of 0 asks for the time alone.
	List(ctx context.Context, prefix, after string, limit int) (FeedList, error)

	// Trim deletes the feed's events below the id before, all of them at once
	// and for every reader. It never moves First back, and never affects events
	// that are not stored yet: a before above Last+1 counts as Last+1. For a feed
	// that does not exist it does nothing. If another transaction holds the feed
	// for too long, Trim changes nothing and returns ErrBusy.
	Trim(ctx context.Context, feed string, before ID) error

	// Sweep frees the space of trimmed events, and of keys older than window. It
	// removes about limit rows, so that it delays appends for a moment only. more
	// reports whether there may be more to free.
	Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error)

	// RunExclusive runs fn unless another node is running its own, and reports
	// whether it did. Its error is fn's, or the store's.
	RunExclusive(ctx context.Context, fn func(context.Context) error) (ran bool, err error)
}

// WatchedStore is a Store that others append to as well, in transactions of their own.
// It tells a hub of what they append, whatever the bus.
type WatchedStore interface {
	Store

	// Watch reports what others append to r until ctx ends; then it returns nil. It
	// outlives failures of the store, and calls r.Missed when it may have overlooked
	// something. It calls r from one goroutine at a time.
	Watch(ctx context.Context, r WatchReceiver) error
}

// WatchReceiver is a node's side of Watch.
type WatchReceiver interface {
	Receiver
	// Changed reports that the feed was closed, or has changed otherwise in a way of
	// which the store knows more.
	Changed(feed string)
}

// FeedList is a part of a store's feeds.
type FeedList struct {
	Feeds []Info
	Now   time.Time // by the clock that times the events
}

// Info describes a feed in a list.
type Info struct {
	Feed string
	Bounds
	Updated time.Time // the time of its newest event, or of its closing if it never had one
	Bytes   int64     // of the data of its events; trimmed ones count until they are swept
}

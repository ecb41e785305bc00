package feed

import (
	"errors"
	"fmt"
)

// The errors of this package. They come wrapped, with details: test with errors.Is.
var (
	// ErrInvalid means that the input can never be accepted. Nothing was done.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge means that an event is over the size limit. Nothing was done.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable means that the store cannot do its work now. Nothing was
	// stored; the same call may succeed later.
	ErrUnavailable = errors.New("store unavailable")
	// ErrOverloaded means that too many publishes wait already. Nothing was
	// stored; the same call may succeed later.
	ErrOverloaded = errors.New("too many publishes are waiting")
	// ErrUncertain means that a commit may or may not have happened.
	ErrUncertain = errors.New("outcome unknown")
	// ErrBusy means that another transaction holds the feed. Nothing was done. If
	// an append has waited for the feed, its error is ErrUnavailable as well.
	ErrBusy = errors.New("feed busy")
	// ErrClosed means that the feed is closed: it takes no more events, and a
	// subscriber at its end receives nothing more.
	ErrClosed = errors.New("feed closed")
	// ErrKeyReused means that the key came with another batch before. Nothing
	// was stored.
	ErrKeyReused = errors.New("idempotency key reused")
	// ErrStopped means that the hub, publisher or subscription is closed. Nothing
	// was done.
	ErrStopped = errors.New("stopped")
)

// LastError refuses a batch whose IfLast is not the feed's last id. Nothing was
// stored.
type LastError struct{ Last ID }

func (e *LastError) Error() string { return fmt.Sprintf("the feed's last event is %d", e.Last) }

// DraftError tells which of several drafts is bad, and why.
type DraftError struct {
	Index int // from 0
	Err   error
}

func (e *DraftError) Error() string { return fmt.Sprintf("draft %d: %v", e.Index+1, e.Err) }

// Unwrap returns Err.
func (e *DraftError) Unwrap() error { return e.Err }

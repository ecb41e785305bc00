package feed

import (
	"errors"
	"fmt"
)

// The errors of this package. They come wrapped, with the details in front or
// behind: test with errors.Is.
var (
	// ErrInvalid is for input that can never be accepted. Nothing was done.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge is for an event over the size limit. Nothing was done.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable is for a store that cannot do its work now. Nothing was
	// stored; the same call may succeed later.
	ErrUnavailable = errors.New("store unavailable")
	// ErrOverloaded is for a publish that found as many waiting as may. Nothing was
	// stored; the same call may succeed later.
	ErrOverloaded = errors.New("too many publishes are waiting")
	// ErrUncertain is for an append whose commit may or may not have happened.
	ErrUncertain = errors.New("outcome unknown")
	// ErrBusy is for a feed that another transaction holds. Nothing was done. For
	// an append that has waited for the feed, the error is ErrUnavailable as well.
	ErrBusy = errors.New("feed busy")
	// ErrClosed is for a feed that is closed: nothing more can be stored in it,
	// and nothing will follow for who has all of it.
	ErrClosed = errors.New("feed closed")
	// ErrKeyReused is for a key that came with something else before. Nothing
	// was stored.
	ErrKeyReused = errors.New("idempotency key reused")
	// ErrStopped is for calls on something that is closing or closed. Nothing
	// was done.
	ErrStopped = errors.New("stopped")
)

// LastError refuses a batch whose IfLast is not the feed's last id. Nothing was
// stored.
type LastError struct{ Last uint64 }

func (e *LastError) Error() string { return fmt.Sprintf("the feed's last event is %d", e.Last) }

// DraftError says which of several drafts is bad, from 0, and why.
type DraftError struct {
	Index int
	Err   error
}

func (e *DraftError) Error() string { return fmt.Sprintf("draft %d: %v", e.Index+1, e.Err) }

// Unwrap returns Err.
func (e *DraftError) Unwrap() error { return e.Err }

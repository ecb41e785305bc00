package feed

import "errors"

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
	// ErrUncertain is for an append whose commit may or may not have happened.
	ErrUncertain = errors.New("outcome unknown")
	// ErrBusy is for a batch with a feed that another transaction holds. Nothing
	// of the batch was stored. A Store returns it, a Publisher never does.
	ErrBusy = errors.New("feed busy")
	// ErrStopped is for calls on something that is closing or closed. Nothing
	// was done.
	ErrStopped = errors.New("stopped")
)

package feed

import (
	"context"
	"sync"
)

// Health tells what does not work. A nil error means that the part works.
type Health struct {
	Store error
	Bus   error
}

// pinger is a store or a bus that can check itself.
type pinger interface{ Ping(context.Context) error }

// Health asks the store and the bus whether they work, both at once. A store works if it answers and,
// as a pinger, finds no fault with itself. A bus that is no pinger always works. Once
// the hub is closed, both errors are ErrStopped.
func (h *Hub) Health(ctx context.Context) Health {
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return Health{err, err}
	}
	defer leave()
	var health Health
	var asking sync.WaitGroup
	if bus, ok := h.bus.(pinger); ok {
		asking.Go(func() { health.Bus = bus.Ping(ctx) })
	}
	_, health.Store = h.store.Bounds(ctx, []string{"health"})
	h.noteComparing(ctx, health.Store)
	if store, ok := h.store.Store.(pinger); ok && health.Store == nil {
		health.Store = store.Ping(ctx)
		h.noteChecking(ctx, health.Store)
	}
	asking.Wait()
	return health
}

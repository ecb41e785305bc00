package feed

import "context"

// Health says what works: nil for what does.
type Health struct {
	Store error
	Bus   error
}

// pinger is a store or a bus that can look whether it works.
type pinger interface{ Ping(context.Context) error }

// Health asks the store and the bus whether they work. A store has to answer, and
// to find no fault with itself if it is a pinger. A bus that is none cannot fail, and
// always works. Of a closed hub, both are ErrStopped.
func (h *Hub) Health(ctx context.Context) Health {
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return Health{err, err}
	}
	defer leave()
	var health Health
	_, health.Store = h.store.Bounds(ctx, []string{"health"})
	h.noteComparing(ctx, health.Store)
	if store, ok := h.store.(pinger); ok && health.Store == nil {
		health.Store = store.Ping(ctx)
		h.noteChecking(ctx, health.Store)
	}
	if bus, ok := h.bus.(pinger); ok {
		health.Bus = bus.Ping(ctx)
	}
	return health
}

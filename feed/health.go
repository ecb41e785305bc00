package feed

import "context"

// Health says what works: nil for what does.
type Health struct {
	Store error
	Bus   error
}

// Health asks the store and the bus whether they work. A bus that has no
// method Ping(context.Context) error cannot fail, and always works. Of a closed
// hub, both are ErrStopped.
func (h *Hub) Health(ctx context.Context) Health {
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return Health{err, err}
	}
	defer leave()
	var health Health
	_, health.Store = h.store.Bounds(ctx, []string{"health"})
	h.noteComparing(ctx, health.Store)
	if bus, ok := h.bus.(interface{ Ping(context.Context) error }); ok {
		health.Bus = bus.Ping(ctx)
	}
	return health
}

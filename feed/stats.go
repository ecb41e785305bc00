package feed

import "sync/atomic"

// Stats is what a hub holds now, and what it has done since it was made.
type Stats struct {
	Subscribers int // subscriptions that are not closed
	Feeds       int // logs: feeds with subscribers here, now or some seconds ago

	FromLog   uint64 // events delivered from memory
	FromStore uint64 // events delivered from pages that were read for subscribers
	FromBus   uint64 // events that logs took from the bus
	Repairs   uint64 // how often a log took events from the store that the bus did not bring
	Trimmed   uint64 // delivered gaps with the reason Trimmed
	Ahead     uint64 // delivered gaps with the reason Ahead
}

// counts is the part of Stats that is counted as it happens.
type counts struct {
	subscribers                                          atomic.Int64
	fromLog, fromStore, fromBus, repairs, trimmed, ahead atomic.Uint64
}

// Stats returns what the hub has done so far.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	feeds := len(h.logs)
	h.mu.Unlock()
	return Stats{
		Subscribers: int(h.counts.subscribers.Load()),
		Feeds:       feeds,
		FromLog:     h.counts.fromLog.Load(),
		FromStore:   h.counts.fromStore.Load(),
		FromBus:     h.counts.fromBus.Load(),
		Repairs:     h.counts.repairs.Load(),
		Trimmed:     h.counts.trimmed.Load(),
		Ahead:       h.counts.ahead.Load(),
	}
}

func (c *counts) gap(reason GapReason) {
	if reason == Ahead {
		c.ahead.Add(1)
	} else {
		c.trimmed.Add(1)
	}
}

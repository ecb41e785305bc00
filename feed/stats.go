package feed

import "sync/atomic"

// Stats is what a hub holds now, and what it has done since it was made.
type Stats struct {
	Subscribers int // subscriptions that are not closed
	Feeds       int // logs: feeds with subscribers here, now or some seconds ago

	FromLog   uint64 // events handed to subscribers out of memory
	FromStore uint64 // events handed to subscribers that were read for them
	FromBus   uint64 // events that logs took from the bus
	Repairs   uint64 // times a log took from the store what the bus did not bring
	Trimmed   uint64 // gaps handed to subscribers, by reason
	Ahead     uint64
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

package feed

import (
	"sync/atomic"
	"time"
)

// Stats is what a hub holds now, and what it has done since it was made.
type Stats struct {
	Subscribers int // subscriptions that are not closed
	Feeds       int // logs: feeds with subscribers here, now or some seconds ago
	// Backlog is how many subscribers have something to read and wait for their turn.
	Backlog int
	// Compared is a time since which every open feed has been compared with the store.
	Compared time.Time

	FromLog   uint64 // events delivered from memory
	FromStore uint64 // events delivered from pages that were read for subscribers
	FromBus   uint64 // events that logs took from the bus
	Repairs   uint64 // how often a log took events from the store that the bus did not bring
	Trimmed   uint64 // delivered gaps with the reason Trimmed
	Ahead     uint64 // delivered gaps with the reason Ahead

	RetentionRounds   uint64 // rounds of retention that this node ran
	RetentionFailures uint64 // rounds that failed, here or before they could begin
	RetentionTrims    uint64 // feeds that retention has trimmed, once for each trim
	RetentionEvents   uint64 // events that these trims removed
}

// counts is the part of Stats that is counted as it happens.
type counts struct {
	subscribers                                          atomic.Int64
	fromLog, fromStore, fromBus, repairs, trimmed, ahead atomic.Uint64
	rounds, failedRounds, trims, trimmedEvents           atomic.Uint64
}

// Stats returns what the hub has done so far.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	feeds, backlog := len(h.logs), 0
	for _, d := range h.dispatchers {
		backlog += d.waiting()
	}
	h.mu.Unlock()
	return Stats{
		Subscribers: int(h.counts.subscribers.Load()),
		Feeds:       feeds,
		Backlog:     backlog,
		Compared:    time.UnixMilli(h.compared.Load()),
		FromLog:     h.counts.fromLog.Load(),
		FromStore:   h.counts.fromStore.Load(),
		FromBus:     h.counts.fromBus.Load(),
		Repairs:     h.counts.repairs.Load(),
		Trimmed:     h.counts.trimmed.Load(),
		Ahead:       h.counts.ahead.Load(),

		RetentionRounds:   h.counts.rounds.Load(),
		RetentionFailures: h.counts.failedRounds.Load(),
		RetentionTrims:    h.counts.trims.Load(),
		RetentionEvents:   h.counts.trimmedEvents.Load(),
	}
}

func (c *counts) gap(reason GapReason) {
	if reason == Ahead {
		c.ahead.Add(1)
	} else {
		c.trimmed.Add(1)
	}
}

// retention counts a round of retention; ran is false if another node runs its own.
func (c *counts) retention(ran bool, err error) {
	if ran {
		c.rounds.Add(1)
	}
	if err != nil {
		c.failedRounds.Add(1)
	}
}

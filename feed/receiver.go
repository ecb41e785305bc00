package feed

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"
)

// accept takes events that the store has committed into the logs that want
// them, and returns how many the logs took. Events of one feed that stand together
// are taken together. own reports that this node has committed them just now.
func (h *Hub) accept(events []Event, own bool) (taken int) {
	now := time.Now()
	for len(events) > 0 {
		n := sameFeed(events)
		if l := h.lookup(events[0].Feed); l != nil {
			if l.conflicts(events[:n], own) {
				h.suspect(l)
				h.noteEvents(events[n-1 : n])
			} else {
				change := l.accept(events[:n], now)
				h.apply(l, change)
				taken += change.taken
			}
		}
		events = events[n:]
	}
	return taken
}

// sameFeed returns how many of the events, from the first on, are of one feed.
func sameFeed(events []Event) int {
	n := 1
	for n < len(events) && events[n].Feed == events[0].Feed {
		n++
	}
	return n
}

// noteEvents makes the logs read events that the store has, if the logs lack them.
func (h *Hub) noteEvents(events []Event) {
	for i := range events {
		receiver{h}.Grew(events[i].Feed, events[i].ID)
	}
}

// appendOutcome is the outcome of an append by a publisher of this node.
type appendOutcome struct {
	batches []Batch
	results []Result // none after an error
	err     error
	epoch   uint64 // of the hub, before the append
	blocked string // the feed that the append has waited for; empty if it does not wait
}

// takeAppend takes the outcome of an append, and returns the events that it stored. It
// is the only way of a publish into the hub.
func (h *Hub) takeAppend(a appendOutcome) (stored []Event) {
	if a.blocked == "" {
		h.noteStoring(a.err)
	} else {
		h.noteFeed(context.Background(), a.err, storingInFeed, a.blocked)
	}
	if errors.Is(a.err, ErrUncertain) {
		h.recheckAll() // which finds out what was stored
	}
	stored = make([]Event, 0, len(a.results))
	for i, r := range a.results {
		if r.Err != nil || r.Replayed {
			continue
		}
		stored = append(stored, r.Events...)
		if mark := a.batches[i].Trace; mark != "" {
			for j := range r.Events {
				stored[len(stored)-1-j].Trace = mark
			}
		}
	}
	if a.epoch == h.epoch() {
		h.accept(stored, true)
	} else {
		h.noteEvents(stored) // the store may have been replaced since: the logs read it
	}
	for i, r := range a.results {
		if r.Replayed {
			h.noteEvents(r.Events)
		}
		if errors.Is(r.Err, ErrUncertain) {
			h.recheckAll()
		}
		if r.Err == nil && a.batches[i].Close {
			h.changed(a.batches[i].Feed)
		}
	}
	return stored
}

// tailLoop listens to the bus for as long as the hub lives.
func (h *Hub) tailLoop() {
	const ended = "tailing the bus ended; events of other nodes arrive late until it works again"
	h.repeat(located(h.logger, "bus", h.bus), ended, func() error { return h.bus.Tail(h.ctx, receiver{h}) })
}

// steady is how long a call has to work for its next failure to count as a new one.
const steady = 10 * time.Second

// repeat calls work, which returns only if it fails, for as long as the hub lives. It
// logs each cause once.
func (h *Hub) repeat(logger *slog.Logger, ended string, work func() error) {
	var outage Outage
	for {
		began := time.Now()
		err := cmp.Or(work(), errEnded)
		if h.ctx.Err() != nil {
			return
		}
		if time.Since(began) > steady {
			outage.Note(nil)
		}
		if outage.Note(err) != OutageSame {
			logger.Error(ended, "error", err)
		}
		h.pause(time.Second)
	}
}

var errEnded = errors.New("it ended without an error")

// watchLoop watches the store for as long as the hub lives.
func (h *Hub) watchLoop(store WatchedStore) {
	const ended = "watching the store ended; what applications append arrives late until it works again"
	h.repeat(h.storeLog, ended, func() error { return store.Watch(h.ctx, receiver{h}) })
}

// receiver is the hub as the bus and a watched store see it.
type receiver struct{ *Hub }

var (
	_ ComparingReceiver = receiver{}
	_ WatchReceiver     = receiver{}
)

// Cursor implements [Receiver].
func (r receiver) Cursor(feed string) (ID, bool) {
	l := r.lookup(feed)
	if l == nil {
		return 0, false
	}
	c, ok := l.confirmed()
	return c.tail, ok
}

// Receive implements [Receiver].
func (r receiver) Receive(events []Event) { r.counts.fromBus.Add(uint64(r.accept(events, false))) }

// Grew implements [Receiver].
func (r receiver) Grew(feed string, last ID) {
	if l := r.lookup(feed); l != nil {
		r.apply(l, l.noteLast(last))
	}
}

// Missed implements [Receiver].
func (r receiver) Missed() { r.recheckAll() }

// Changed implements [WatchReceiver].
func (r receiver) Changed(feed string) { r.recheck(feed) }

// Seen implements [ComparingReceiver]. The bus proves nothing: a review asks the store.
func (r receiver) Seen(events []Event) {
	for len(events) > 0 {
		n := sameFeed(events)
		if l := r.lookup(events[0].Feed); l != nil && l.conflicts(events[:n], false) {
			r.suspect(l)
		}
		events = events[n:]
	}
}

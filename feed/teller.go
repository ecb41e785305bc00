package feed

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	tellBudget = time.Second // for one Tell
	tellEvents = 4096        // in one Tell
	tellQueue  = 16384       // events that wait to be sent

	// From the beginning of one Tell to that of the next. Each costs this node,
	// the bus and all other nodes more than the events that it carries. What is
	// published after a longer pause is sent at once.
	tellEvery = 5 * time.Millisecond
)

// teller tells the bus of events, so that no publisher waits for the bus.
type teller struct {
	bus    Bus
	memory *Memory
	tracer Tracer
	logger *slog.Logger
	verify time.Duration // the hub's
	outage Outage
	done   chan struct{}
	stop   func() // closes done: the loop ends when it has told what is queued

	id func() string // the store's

	mu     sync.Mutex
	from   string // the id of the store that has the events
	events []Event
	more   chan struct{}
}

func newTeller(bus Bus, memory *Memory, tracer Tracer, id func() string, verify time.Duration, logger *slog.Logger) *teller {
	done := make(chan struct{})
	stop := sync.OnceFunc(func() { close(done) })
	return &teller{
		bus: bus, verify: verify, memory: memory, tracer: tracer, id: id, logger: located(logger, "bus", bus),
		done: done, stop: stop, more: make(chan struct{}, 1),
	}
}

// tell queues events that were committed to the store with the id. If the store has
// another id now, it may have other events: the other nodes read them from the store.
func (t *teller) tell(id string, events []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id != t.id() {
		return
	}
	t.discard(id)
	// Publishers do not wait for a slow bus. Events that it is not told of, the
	// other nodes find in the store.
	if len(t.events) < tellQueue && t.memory.Take(HoldBus, costs(events)) {
		t.events = append(t.events, events...)
		poke(t.more)
	}
}

func (t *teller) loop() {
	for stopped := false; !stopped; {
		select {
		case <-t.more:
		case <-t.done:
			stopped = true
		}
		for events := t.take(); len(events) > 0; events = t.take() {
			pause, began := time.After(tellEvery), time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), tellBudget)
			err := t.bus.Tell(ctx, events)
			cancel()
			trace(t.tracer, StageTell, events, began, err)
			t.memory.Give(HoldBus, costs(events))
			t.note(err)
			select {
			case <-pause:
			case <-t.done:
			}
		}
	}
}

// note logs when the bus cannot be told, and when it can be again.
func (t *teller) note(err error) {
	switch t.outage.Note(err) {
	case OutageBegan:
		t.logger.Warn("cannot write to the bus; delivery between nodes may take longer", "up_to", t.verify, "error", err)
	case OutageChanged:
		t.logger.Warn("still cannot write to the bus, for another reason", "error", err)
	case OutageEnded:
		t.logger.Info("writing to the bus works again", "after", t.outage.Lasted())
	}
}

// discard drops queued events of a store with another id. The caller holds mu.
func (t *teller) discard(id string) {
	if t.from != id {
		t.memory.Give(HoldBus, costs(t.events))
		t.from, t.events = id, nil
	}
}

func (t *teller) take() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.discard(t.id())
	n := min(len(t.events), tellEvents)
	events := t.events[:n:n]
	t.events = t.events[n:]
	return events
}

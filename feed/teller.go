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
	tellQueue  = 16384       // events waiting to be told; beyond that they are dropped
)

// teller tells the bus of events, off the path of the answers.
type teller struct {
	bus    Bus
	logger *slog.Logger
	outage outage

	mu     sync.Mutex
	closed bool
	events []Event
	more   chan struct{}
}

func (t *teller) tell(events []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A bus that is slow or away is not waited for. What it is not told, the
	// other nodes find in the store.
	if len(t.events) < tellQueue {
		t.events = append(t.events, events...)
		signal(t.more)
	}
}

func (t *teller) stop() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	signal(t.more)
}

func (t *teller) loop() {
	for {
		events, closed := t.take()
		if len(events) == 0 {
			if closed {
				return
			}
			<-t.more
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), tellBudget)
		err := t.bus.Tell(ctx, events)
		cancel()
		t.outage.note(t.logger, err, "telling the bus")
	}
}

func (t *teller) take() (events []Event, closed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.events), tellEvents)
	events = t.events[:n:n]
	t.events = t.events[n:]
	return events, t.closed
}

package feed

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"
)

// What a hub and those of the other nodes tell each other.

// listen takes the other nodes' signals for as long as the hub lives.
func (h *Hub) listen() {
	for {
		err := h.signals.bus.Signals(h.ctx, h.takeSignal)
		if h.ctx.Err() != nil {
			return
		}
		h.logger.Error("listening to signals ended; ephemeral events of other nodes are lost until it works again", "error", err)
		h.pause(time.Second)
	}
}

// takeSignal heeds one signal. What cannot be read is of another version.
func (h *Hub) takeSignal(payload []byte) {
	var n note
	if json.Unmarshal(payload, &n) != nil || n.Node == "" || n.Node == h.signals.node {
		return
	}
	if h.signals.heard(n, time.Now()) {
		h.signals.send(signalHere, note{}) // who has just come knows nobody yet
	}
	switch n.Kind {
	case signalChanged:
		h.lookAgain(n.Feed)
	case signalEphemeral:
		if e := n.Event; e != nil && e.ID == 0 && CheckType(e.Type) == nil {
			h.ephemeral(*e)
		}
	case signalCount:
		h.signals.send(signalCounted, note{Ask: n.Ask, Count: h.subscribersHere(n.Feed)})
	case signalCounted:
		h.signals.counted(n)
	}
}

// changed has every node look at a feed that was closed or trimmed.
func (h *Hub) changed(feed string) {
	h.lookAgain(feed)
	h.signals.send(signalChanged, note{Feed: feed})
}

// lookAgain compares a log with the store, if the feed is followed here.
func (h *Hub) lookAgain(feed string) {
	h.forget(feed)
	l, _ := h.lookup(feed)
	if l == nil {
		return
	}
	h.start(func() {
		if _, err := h.readBounds(h.ctx, l); err != nil {
			signal(h.missed)
		}
	})
}

// Subscribers returns how many subscribers the feed has, on all nodes. A node
// that does not answer within half a second is left out.
func (h *Hub) Subscribers(ctx context.Context, feed string) int {
	id := rand.Text()
	q := h.signals.ask(id, time.Now())
	h.signals.send(signalCount, note{Feed: feed, Ask: id})
	timeout := time.NewTimer(countWait)
	defer timeout.Stop()
	select {
	case <-q.done:
	case <-timeout.C:
	case <-ctx.Done():
	case <-h.ctx.Done():
	}
	return h.subscribersHere(feed) + h.signals.sum(id)
}

func (h *Hub) subscribersHere(feed string) int {
	l, _ := h.lookup(feed)
	if l == nil {
		return 0
	}
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	return len(l.subs)
}

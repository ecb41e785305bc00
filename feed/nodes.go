package feed

import (
	"context"
	"crypto/rand"
	"time"
)

// listen takes the other nodes' signals for as long as the hub lives.
func (h *Hub) listen() {
	const ended = "listening to signals ended; ephemeral events of other nodes are lost until it works again"
	h.repeat(h.logger, ended, func() error { return h.signals.bus.Signals(h.ctx, h.handleSignal) })
}

// handleSignal handles one signal of another node.
func (h *Hub) handleSignal(payload []byte) {
	node, notes := h.signals.read(payload)
	if node == "" {
		return
	}
	if h.signals.noteAlive(node, time.Now()) {
		h.signals.send(h.signals.hereNote()) // a new node does not know this one yet
	}
	for _, n := range notes {
		h.handleNote(node, n)
	}
}

func (h *Hub) handleNote(node string, n note) {
	switch n.Kind {
	case signalHere:
		if h.signals.noteWatches(node, n.Watches) {
			poke(h.watched)
		}
	case signalGone:
		h.signals.noteGone(node, time.Now())
	case signalChanged:
		h.recheck(n.Feed)
	case signalEphemeral:
		if n.Event != nil && n.Event.ephemeral() && h.signals.inOrder(node, n.Number) {
			h.ephemeral(*n.Event)
		}
	case signalReport:
		if n.Event != nil && n.Event.isReport() && h.signals.inOrder(node, n.Number) {
			h.ephemeral(*n.Event)
		}
	case signalCount:
		h.signals.send(note{Kind: signalCounted, Ask: n.Ask, Count: h.subscribersHere(n.Feed)})
	case signalCounted:
		h.signals.noteCount(node, n)
	}
}

// changed makes every node compare a feed that was closed or trimmed with the store.
func (h *Hub) changed(feed string) {
	h.recheck(feed)
	h.signals.send(note{Kind: signalChanged, Feed: feed})
}

// Peers returns how many other nodes are alive. A node that has just started learns that
// within two seconds.
func (h *Hub) Peers() int { return h.signals.alive(time.Now()) }

// Subscribers returns how many subscribers the feed has, on all nodes. It leaves out a
// node that does not answer within half a second, and one that has just started: within
// two seconds, this node knows of it.
func (h *Hub) Subscribers(ctx context.Context, feed string) int {
	id := rand.Text()
	q := h.signals.ask(id, time.Now())
	h.signals.send(note{Kind: signalCount, Feed: feed, Ask: id})
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
	l := h.lookup(feed)
	if l == nil {
		return 0
	}
	return l.subscribers()
}

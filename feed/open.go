package feed

import (
	"cmp"
	"log/slog"
	"time"
)

// Options tunes a [Node]. The zero value is good.
type Options struct {
	// EventBytes limits the size of one event, counted as [Draft] describes;
	// 0 means DefaultEventBytes.
	EventBytes int
	// Memory bounds the bytes that the node holds on behalf of clients, roughly: see
	// [Hub.Memory]. 0 means DefaultMemory.
	Memory int
	// KeyWindow is how long the store remembers a [Key]; 0 means 24 hours.
	KeyWindow time.Duration
	// Verify is the time between two comparisons of the open feeds with the store;
	// 0 means 1 second. It bounds how late an event arrives that the bus has lost.
	Verify time.Duration
	// Rules are the retention rules: for each feed, the first that matches counts.
	Rules []Rule
	// Tracer, if not nil, is told of the stages of events that have a Trace.
	Tracer Tracer
	// ObserveAppend, if not nil, is called after each append that stored something.
	ObserveAppend func(took time.Duration, events int)
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

// Node is the part of one process in a service: publish to its Publisher, subscribe
// at its Hub. Any number of nodes share a store and a bus.
type Node struct {
	Hub       *Hub
	Publisher *Publisher

	retention *Retention
}

// Open returns a node on a store, which has to be a [RetentionStore], and a bus, and
// starts it. Retention runs even without rules: clients trim feeds, and keys expire.
//
// Close the node before the bus and the store. The error wraps ErrInvalid for a bad
// rule, and [errors.ErrUnsupported] if the store is no RetentionStore.
func Open(store Store, bus Bus, o Options) (*Node, error) {
	n := &Node{Hub: NewHub(store, bus, HubOptions{Verify: o.Verify, Memory: o.Memory, Tracer: o.Tracer, Logger: o.Logger})}
	n.Publisher = NewPublisher(store, n.Hub, bus, PublisherOptions{
		EventBytes: o.EventBytes, KeyWindow: o.KeyWindow, Observe: o.ObserveAppend, Logger: o.Logger,
	})
	var err error
	if n.retention, err = NewRetention(n.Hub, RetentionOptions{Rules: o.Rules, KeyWindow: o.KeyWindow, Logger: o.Logger}); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Reconfigure changes EventBytes, Memory and Rules to those of o while the node runs:
// for what is published from now on, and from the next round of retention on. The other
// options stay. With a bad rule, it changes nothing, and the error wraps ErrInvalid.
func (n *Node) Reconfigure(o Options) error {
	if err := n.retention.SetRules(o.Rules); err != nil {
		return err
	}
	n.Publisher.limit.Store(int64(cmp.Or(o.EventBytes, DefaultEventBytes)))
	n.Hub.memory.setLimit(cmp.Or(o.Memory, DefaultMemory))
	return nil
}

// Close refuses further publishes, finishes those in progress, ends all
// subscriptions, and returns when everything that the node started has ended.
func (n *Node) Close() {
	if n.retention != nil {
		n.retention.Close()
	}
	n.Publisher.Close()
	n.Hub.Close()
}

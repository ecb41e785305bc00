// Package feed joins stored events and live ones. A subscriber names the last
// event that it has, and gets everything after it and then everything new:
// nothing lost, nothing twice, nothing out of order.
//
// It knows no HTTP and no SQL and needs the standard library only: a service
// that has a [Store] and a [Bus] can use it as it is.
//
// # The rule
//
// The store is the truth, the bus is a hint. An event exists when the store has
// committed it under the next number of its feed. A subscription is a cursor; it
// moves from n to n+1 and in no other way, whichever source supplies n+1. The
// bus, and this node's memory, may drop, repeat, delay and reorder: that costs
// time, never events.
//
// # What it guarantees
//
//   - When [Publisher.Publish] returns without an error, its events are
//     committed. When it returns an error other than [ErrUncertain], nothing
//     was stored.
//   - A [Key] stands for one batch: however often that is published, on
//     whatever node and after whatever error, it is stored once, and each
//     answer names the same events.
//   - Nothing follows the close of a feed. Next says [ErrClosed] to a subscriber
//     that has been handed everything, and to nobody before that.
//   - [Subscription.Next] hands out consecutive events, with the bytes that are
//     stored. Where events are gone it hands out one [Gap] that says which.
//     What [Hub.Trim] has given up does not come any more from this node once
//     it has returned, and within two seconds from no other.
//   - Every event reaches every subscriber that reads: at once if the bus
//     works, otherwise when the hub next compares its feeds with the store
//     (HubOptions.Verify), and within about a second of the store's return
//     if that was away.
//   - However far a subscriber is behind, it costs no memory but the page that
//     it is reading, and nobody else any time.
//   - A publish waits for the store alone. A bus that is away, slow or frozen
//     neither fails it nor slows it down.
//
// An ephemeral event has none of this: it reaches who is there, in the order in
// which its node sent it, or it does not. It takes turns with what is stored,
// so that a flood of the one does not keep a slow reader from the other.
//
// # What it asks
//
// Of a [Store]: that ids have no holes and become visible in order; that Read
// is true at one instant; that Bounds is never answered from a replica, for
// what was acknowledged before the call has to be in the answer; that calls end
// when their context does, and not so late that a server cannot be stopped;
// that a feed which somebody else holds does not hold up a batch with NoWait. A
// hub checks pages, and keeps away from a page that has a hole: the subscriber
// waits while the error is logged.
//
// Of a [Keeper]: that what it trims is gone for every reader at once, First
// never goes back, and freeing the space takes small steps that hold up appends
// for a moment only; that it tells the time by the clock that times events.
//
// Of a [Bus]: that it carries nothing but events that its own store has
// committed, unchanged. Beyond that, it may do what it likes. Of a [Signaler]:
// that signals come from the nodes of this store alone. It may lose them, which
// costs ephemeral events, and some time until other nodes see a close or a trim.
//
// # What it refuses
//
// It has no acknowledgements by subscribers, no queue that is shared between
// them, no filters, and no order across feeds. A subscription whose reader
// has stopped is not ended here: that is for whoever reads to say.
//
// A store that is replaced by an older copy of itself is noticed by a hub that
// runs, also when the copy has grown past what the hub holds: by the events, if
// the store is a [Comparer]. A subscriber whose cursor is past the newest event
// that both are known to have gets a gap with the reason [Ahead], and goes on
// from the end. Until the hub has compared (HubOptions.Verify), the bus may
// bring an event of the copy behind an old one, and the hub may say of a feed
// that was closed in the newer copy that it is closed. A subscriber that comes
// back from elsewhere with an old cursor that exists in the copy cannot be told
// from one that has seen the copy's event. This is why a store that is not the
// same has another ID.
//
// # Using it
//
//	store, err := sqlite.Open(ctx, "events.db")
//	bus := memory.NewBus()
//	node, err := feed.Open(store, bus, feed.Options{})
//
// Publish with [Publisher.Publish]. Follow with [Hub.Subscribe] and a loop
// over [Subscription.All]; keep the subscription's cursor, and come back
// with [FromCursor]. The examples do both. Who has very many subscribers to serve
// and can write without waiting reads on a [Dispatcher] instead, which takes no
// goroutine for each. [NewRetention] trims by rules.
//
// Close in the opposite order: the node, which finishes the publishes in progress,
// tells the bus of them, ends all subscriptions, and waits for calls that use the
// store; the bus; the store. Each Close returns when everything that its owner
// started has ended.
//
// # Inside
//
// A hub keeps a log for each feed that is followed on this node, made by the
// first subscriber and dropped some seconds after the last. A log takes events
// from the publisher, from the bus and from the store, and each only if it is
// the next one. What it is told of and does not have is a hole, and one
// goroutine a log fills it from the store. known is the largest id that anybody
// has told the log of; it may be wrong, so it decides only whether to ask the
// store, never what is true. What is trimmed and what is closed, only the store
// can say. Pages may be older than that: the log is asked before one is handed
// out.
//
// Locks are taken in this order, and none is held during a call of the store
// or the bus:
//
//	flights.mu > Hub.mu > log.mu > segment.mu
//	log.mu > cache.mu
//	Hub.mu > log.subsMu > Lane.mu
//
// A flight calls its waiters under flight.mu, which wake groups: flight.mu >
// Lane.mu. Publisher.mu, teller.mu, signals.mu, doubts.mu,
// Outage.mu and faults.mu are taken alone. Of a log, users and idle belong to Hub.mu, and the
// ephemeral events to log.mu.
package feed

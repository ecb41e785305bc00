// Package feed joins stored events and live ones. A subscriber names the last
// event that it has. It gets every event after that one, and then every new
// one: nothing lost, nothing twice, nothing out of order.
//
// The package knows no HTTP and no SQL and needs the standard library only. A
// program that has a [Store] and a [Bus] can use it as it is.
//
// # The rule
//
// The store is the truth, the bus is a hint. An event exists when the store has
// committed it under the next number of its feed. A subscription is a cursor. It
// moves from n to n+1, or across a gap that it announces, and in no other way,
// whichever source supplies n+1. The bus, and this node's memory, may drop,
// repeat, delay and reorder events: that costs time, never events.
//
// # What it guarantees
//
//   - When [Publisher.Publish] returns without an error, its events are
//     committed. When it returns an error other than [ErrUncertain], nothing
//     was stored.
//   - A [Key] stands for one batch. However often the batch is published, on
//     whatever node and after whatever error, it is stored once, and each
//     answer names the same events.
//   - A chain of publications ([Publisher.PublishChain]) is stored in its order, up to
//     the first that is refused.
//   - No event follows the close of a feed. A subscription returns [ErrClosed]
//     when it has delivered every event, and not before.
//   - [Subscription.Next] returns consecutive events, with the bytes that are
//     stored. Where events are gone, it returns one [Gap] that names them.
//     Once [Hub.Trim] has returned, this node no longer delivers the events
//     that it removed; within two seconds, nor does any other.
//   - Every event reaches every subscriber that reads: at once if the bus
//     works, otherwise when the hub next compares its feeds with the store
//     (HubOptions.Verify), and within about a second of the store's return
//     if that was away.
//   - However far a subscriber is behind, it costs no memory but the page that
//     it is reading, and costs the other subscribers no time.
//   - A publish waits for the store alone. A bus that is away, slow or frozen
//     neither fails it nor slows it down.
//
// None of this holds for an ephemeral event. It reaches the subscribers that are
// connected, in the order in which its node sent it, or is lost. Ephemeral and
// stored events take turns, so that a flood of the one kind does not keep a slow
// subscriber from the other.
//
// Feeds whose names begin with "feed." belong to the server. They have ephemeral events
// only, and need no store. On [NodesFeed], nodes report about themselves: see
// [Hub.Report].
//
// # What it asks
//
// Of a [Store]: that ids have no holes and become visible in order; that Read
// shows one instant; that no replica answers Bounds, because its answer must
// include everything acknowledged before the call; that calls end when their
// context does, and soon enough for a server to be stopped; and that a feed
// which another transaction holds does not hold up a batch with NoWait. A hub
// checks pages. It does not deliver a page that has a hole: the subscriber
// waits, and the hub logs the error.
//
// Of a [RetentionStore]: that trimmed events are gone for every reader at once;
// that First never goes back; that freeing the space takes small steps, which
// hold up appends for a moment only; and that it tells the time by the clock
// that times events.
//
// Of a [Bus]: that it carries only events that its own store has committed,
// unchanged. Of a [Signaler]: that signals come only from the nodes of this
// store. It may lose them, which costs ephemeral events, and some time until
// other nodes see a close or a trim.
//
// Of a [WatchedStore]: that it reports what others than the publishers of the nodes
// append. Where it fails to, a hub finds that when it next compares its feeds.
//
// # What it refuses
//
// It has no acknowledgements by subscribers, no queue that subscribers share,
// no filters, and no order across feeds. It does not end a subscription that is
// no longer read: its owner does.
//
// A hub notices when an older copy takes the place of its store, even after the
// copy has grown past what the hub holds: then it compares events, if the store
// is a [Comparer]. A subscriber whose cursor is past the newest event that both
// are known to have gets a gap with the reason [Ahead], and goes on from the
// end. Until the hub has compared (HubOptions.Verify), the bus may bring an
// event of the copy behind an old one, and a feed that was closed in the newer
// store may still look closed. If a subscriber comes from elsewhere with a
// cursor that exists in both stores, the hub cannot know which of the two
// events it has seen. This is why a store that is not the same has another ID.
//
// # Using it
//
//	store, err := sqlite.Open(ctx, "events.db", sqlite.Options{})
//	bus := memory.NewBus()
//	node, err := feed.Open(store, bus, feed.Options{})
//
// Publish with [Publisher.Publish]. Follow with [Hub.Subscribe] and a loop
// over [Subscription.All]; keep the subscription's cursor, and come back
// with [FromCursor]. The examples do both. A server that has very many
// subscribers and can write without waiting uses a [Dispatcher] instead, which
// needs no goroutine for each. The Rules of [Options] trim feeds.
// [Hub.WatchClose] reports the close of a feed to a program that publishes to it.
//
// Close in the opposite order. First the node, which finishes the publishes in
// progress, tells the bus of their events, ends all subscriptions, and waits for
// calls that use the store. Then the bus and the store. Each Close returns when
// everything that its owner started has ended.
//
// # Inside
//
// A hub keeps a log for each feed that is followed on this node. The first
// subscriber makes it, and it is dropped some seconds after the last has left. A
// log takes events from the publisher, from the bus and from the store, and each
// only if it is the next one. If it learns of a later one, it has a hole. A few
// workers fill the holes of all logs from the store, one page of a log at a time. A
// log's field known, the largest id that it has learned of, may be wrong: it decides
// whether to ask the store, and nothing else. Only the store knows what is trimmed and
// what is closed. A page may be older than that, so a subscription asks the log before
// it delivers a page. Hub.verifyLoop compares the logs with the store about once in
// HubOptions.Verify, and so finds what the bus has lost.
//
// The way of a resume:
//
//	Dispatcher.SubscribeAll  checks the names of the feeds
//	Hub.subscribe            finds or makes the feed's log (acquire)
//	Hub.boundsFor            takes the feed's bounds from the log, or asks the store
//	locate                   decides on the cursor and the gap; log.attach follows
//	Subscription.poll        returns events from the log (log.read), or asks for a page
//	Hub.readPage             reads that page from the store, once for all subscribers that want it
//
// The way of a publish:
//
//	Publisher.PublishBatch   checks the publication (prepare), queues it (enqueue) and waits (await)
//	Publisher.commitLoop     takes what is queued (queue.take), after a short gather
//	Publisher.commit         calls Store.Append, which numbers and commits the events
//	Hub.takeAppend           puts the events into their logs (log.accept, log.wake)
//	Publisher.answer         gives each call its result, or blocks it if its feed is held
//	teller.tell              queues the events for the bus
//
// Locks are taken in this order, and none is held during a call of the store
// or the bus:
//
//	callGroup.mu > Hub.mu > log.mu > segment.mu
//	log.mu > cache.mu
//	Hub.mu > log.subsMu > Dispatcher.mu
//
// A call runs its waiters under call.mu, and they wake subscribers: call.mu >
// Dispatcher.mu. Publisher.mu, teller.mu, signals.mu, dirtySet.mu, fillQueue.mu,
// Outage.mu, faults.mu and replacedNotice.mu are taken alone. Of a log, users and
// idle belong to Hub.mu, and the ephemeral events to log.mu.
package feed

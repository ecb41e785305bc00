// Package redis is a [feed.Bus] on Redis Streams: one server, Sentinel or
// Cluster, Redis 6.2 or later.
//
// # Keys
//
// On Cluster, the hash of its name assigns a feed to a shard, and each shard is one
// hash slot. Elsewhere there is one shard:
//
//	<prefix>:<store id>:{<shard>}:feed:<name>   the feed's newest events
//	<prefix>:<store id>:{<shard>}:wake          which feeds of the shard grew
//
// The id of an event is the id of its entry, 42-0 for event 42. Redis takes
// ids in rising order only, so telling an event twice does no harm: Redis refuses
// the second time. It also refuses an event that arrives after a larger one from
// another node; readers then find a hole.
//
// An entry of a wake stream names every feed of the shard that one flush added
// to, with the added ids and a checksum of their events. A node blocks on the wake
// streams alone, so the cost of a wake-up follows the feeds that grew, not the
// feeds that are open.
//
// The id of a store may change while nodes run: after a failover, a restart, or
// in a copy, the same event ids may belong to other events. The bus reads the
// store's id at each Tell and at least once a second in Tail and Signals. When it
// has changed, the bus uses other keys and calls Missed. The old keys expire.
//
// Signals ([feed.Signaler]) are published on one channel for each store, and not
// kept:
//
//	<prefix>:<store id>:signals
//
// On Cluster they are published and received at the server that owns the slot of
// that name; while it is down, there are none.
//
// # Permissions
//
// A dedicated Redis user needs the keys, the channel and a few commands:
//
//	ACL SETUSER rejoin on >password ~rejoin:* &rejoin:* +ping
//	  +xadd +xread +xrange +xrevrange +expire +del +publish +subscribe
//
// and on Cluster +cluster|slots and +asking. Without &rejoin:*, +publish
// and +subscribe, everything works but signals.
//
// # What it promises
//
// The receiver gets an event only if a wake entry that this node has read has the
// checksum of exactly these bytes. It does not get entries that were written by
// hand, or that remain from a store that was then set back to an older state:
// instead the bus calls Grew, and the receiver reads its store. The same holds for
// entries that a stream lacks because they were trimmed, evicted or refused.
//
// The bus also reads what other nodes told of ids that the receiver already has,
// and passes it to a [feed.ComparingReceiver] to compare.
//
// The tail calls Missed when it starts, after it had to reconnect, and when a wake
// stream does not reach back to where the node has read. It writes nothing to
// Redis. Tell repairs: it deletes a stream that cannot take events any more and
// tells its events again.
//
// Signals are lost while there is no connection. The bus drops a connection that
// is silent for two seconds, and one that does not return the signals that this
// bus has sent: it leads to a server that a failover has left behind. Neither
// affects [Bus.Ping] and [Stats], which describe the tail.
//
// Nothing here waits for Redis longer than the timeouts in client.go.
package redis

// Package redis is a [feed.Bus] on Redis Streams: one server, Sentinel or
// Cluster, Redis 6.2 or later.
//
// # Keys
//
// On Cluster, a feed belongs to the shard that the hash of its name says, and a
// shard is one hash slot. Elsewhere there is one shard:
//
//	<prefix>:<store id>:{<shard>}:feed:<name>   the feed's newest events
//	<prefix>:<store id>:{<shard>}:wake          which feeds of the shard grew
//
// The id of an event is the id of its entry, 42-0 for event 42. Redis takes
// ids in rising order only, so that telling an event twice does no harm: the
// second time is refused. An event that was overtaken on its way, by a larger
// one that another node told, is refused as well; readers then find a hole.
//
// An entry of a wake stream names every feed of the shard that a flush let
// grow, with the ids that it told and a checksum of those events. A node
// blocks on the wake streams alone, so that being woken costs Redis what grew,
// not what is open.
//
// The id of a store may change while nodes run: after a failover, a restart, or
// in a copy, the same ids may be of other events. The bus asks for it at each
// Tell and at least once a second in Tail and Signals, goes on with other keys,
// and calls Missed. The keys of before expire.
//
// Signals ([feed.Signaler]) are published on one channel a store, and kept
// nowhere:
//
//	<prefix>:<store id>:signals
//
// On Cluster they are published and heard at the server that has the slot of
// that name; while it is away, there are none.
//
// # Permissions
//
// A Redis user of its own needs the keys and the channel, and few commands:
//
//	ACL SETUSER rejoin on >password ~rejoin:* &rejoin:* +ping
//	  +xadd +xread +xrange +xrevrange +expire +del +publish +subscribe
//
// and on Cluster +cluster|slots and +asking. Without &rejoin:*, +publish
// and +subscribe, everything works but signals.
//
// # What it promises
//
// An event is handed to the receiver only if a wake entry that this node has
// read vouches for it, byte for byte. Entries that somebody wrote by hand, or
// that a store left behind which was then set back to an older state, are not
// handed over: the receiver is told that the feed grew, and reads its store.
// The same goes for whatever a stream lacks: trimmed, evicted, overtaken.
//
// What others told of ids that the receiver has is read as well, and handed to a
// [feed.ComparingReceiver] to compare.
//
// The tail calls Missed when it starts, whenever it has had to connect again,
// and when a wake stream does not reach back to where the node has read. It
// writes nothing to Redis. The telling side heals: a stream of ours that can't
// take events any more is deleted and told again.
//
// Signals are lost while there is no connection. A connection that is silent
// for two seconds is given up, and so is one that does not bring back what this
// bus itself has sent: it leads to a server that was left behind by a failover.
// Neither says anything of the tail, which [Bus.Ping] and [Stats] are about.
//
// Nothing here waits for Redis longer than the timeouts in client.go.
package redis

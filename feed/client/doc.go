// Package client publishes to a Rejoin server and follows its feeds, across
// every broken connection. It is the HTTP contract seen from the other side, and
// needs the standard library and package feed only.
//
// # Using it
//
//	c, err := client.New("http://127.0.0.1:8080", client.Options{})
//
//	result, err := c.Publish(ctx, client.Publication{
//		Feed:   "chat",
//		Drafts: []feed.Draft{{Data: "hello"}},
//	})
//
//	for e, err := range c.Follow(ctx, client.Subscription{Feeds: []string{"chat"}, From: "start"}) {
//		if err != nil {
//			return err
//		}
//		if e.Kind == client.KindEvent {
//			fmt.Println(e.ID, e.Data)
//		}
//	}
//
// [Client.Publish] and [Client.Follow] are all that most programs need.
// [Client.PublishStream] publishes many events by few requests.
// [Client.Send] and [Client.Connect] make one attempt each, for programs that
// judge a server or choose among several. [Client.Feeds], [Client.Feed],
// [Client.Trim] and [Client.Delete] are for operators: one attempt each, within 30
// seconds. [Client.HTTP] is for the rest of the API.
//
// # What it guarantees
//
//   - Publish sends until it knows the outcome, [Stored] or [Refused]. If its time
//     ends before that, the outcome is [Unknown]. Each publication has an
//     idempotency key, so it is stored once, however often it is sent.
//   - Follow yields the events of a feed in order and each of them once. From n
//     it goes to n+1, or a [KindGap] names the events that are missing. It checks
//     this, and ends with [ErrViolation] rather than pass over a loss. The order
//     begins with the first [KindOpen]: until then a subscription without a cursor
//     has no place yet.
//   - Follow comes back with its cursor after a broken connection, a clean end, a
//     connection that has fallen silent, and an answer that may change. It waits
//     before that: longer after each failure, at random, and at least as long as
//     the server asks for, up to a minute.
//   - An answer that would stay the same ends either of them at once, with a
//     [*Problem].
//   - Memory is bounded: a block of a stream has at most 1 MiB. A longer one
//     breaks the connection.
//
// # What it asks of the caller
//
// Keep Event.Cursor of the last event, of whatever kind, together with the work
// that the event caused, best in one transaction. Begin there the next time, and
// nothing is lost between two runs of the program.
//
// Act on a KindGap: events before it are gone, or, with the reason feed.Ahead,
// the store was replaced by an older one, and other events may have the ids of
// those that were seen.
//
// Publish in order only by waiting: two calls at the same time can be stored
// either way round.
//
// # What it refuses
//
// It has no queue of publications and no store of events: a publication waits in
// its call, and events that the program does not read wait at the server. It
// follows no redirect. It promises no order between feeds.
package client

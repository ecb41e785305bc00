package feed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// open starts a node on a new store.
func open(ctx context.Context) (*feed.Publisher, *feed.Hub, func()) {
	dir, err := os.MkdirTemp("", "feed")
	if err != nil {
		panic(err)
	}
	store, err := sqlite.Open(ctx, filepath.Join(dir, "events.db"), sqlite.Options{})
	if err != nil {
		panic(err)
	}
	bus := memory.NewBus()
	node, err := feed.Open(store, bus, feed.Options{})
	if err != nil {
		panic(err)
	}
	return node.Publisher, node.Hub, func() {
		node.Close() // before the store and the bus that it uses
		bus.Close()
		store.Close()
		os.RemoveAll(dir)
	}
}

// Publish, and follow what is published.
func Example() {
	ctx := context.Background()
	pub, hub, done := open(ctx)
	defer done()

	sub, err := hub.Subscribe(ctx, "chat", feed.From{}) // from now on
	if err != nil {
		panic(err)
	}
	defer sub.Close()

	events, err := pub.Publish(ctx,
		feed.Draft{Feed: "chat", Data: "hello"},
		feed.Draft{Feed: "chat", Data: "anybody here?"},
	)
	if err != nil {
		panic(err)
	}
	fmt.Println("stored up to", events[1].ID)

	for d, err := range sub.All(ctx) {
		if err != nil {
			panic(err)
		}
		for _, e := range d.Events() {
			fmt.Println(e.ID, e.Data)
		}
		if sub.Cursor() == 2 {
			break
		}
	}
	// Output:
	// stored up to 2
	// 1 hello
	// 2 anybody here?
}

// A subscriber that was cut off comes back with the one number that it kept.
func ExampleFromCursor() {
	ctx := context.Background()
	pub, hub, done := open(ctx)
	defer done()

	publish := func(data string) {
		if _, err := pub.Publish(ctx, feed.Draft{Feed: "chat", Data: data}); err != nil {
			panic(err)
		}
	}
	follow := func(from feed.From, last feed.ID) feed.ID {
		sub, err := hub.Subscribe(ctx, "chat", from)
		if err != nil {
			panic(err)
		}
		defer sub.Close()
		for sub.Cursor() < last {
			d, err := sub.Next(ctx, nil)
			if err != nil {
				panic(err)
			}
			if d.Gap != nil {
				fmt.Println("gone:", d.Gap.After+1, "to", d.Gap.Cursor())
			}
			for _, e := range d.Events() {
				fmt.Println(e.ID, e.Data)
			}
		}
		return sub.Cursor()
	}

	publish("one")
	cursor := follow(feed.FromStart(), 1)
	fmt.Println("cut off after", cursor)
	publish("two")
	publish("three")
	follow(feed.FromCursor(cursor), 3)
	// Output:
	// 1 one
	// cut off after 1
	// 2 two
	// 3 three
}

// A publish that may have to be repeated has a key. A publish that depends on an
// earlier read has a condition.
func ExamplePublisher_PublishBatch() {
	ctx := context.Background()
	pub, _, done := open(ctx)
	defer done()

	order := feed.Publication{
		Feed:   "orders",
		Drafts: []feed.Draft{{Feed: "orders", Data: "two of them, please"}},
		Key:    "order-7",
	}
	for range 2 { // the first answer was lost, say
		r, err := pub.PublishBatch(ctx, order)
		if err != nil {
			panic(err)
		}
		fmt.Println("event", r.Events[0].ID, "replayed:", r.Replayed)
	}

	seen := feed.ID(0)
	_, err := pub.PublishBatch(ctx, feed.Publication{
		Feed:   "orders",
		Drafts: []feed.Draft{{Feed: "orders", Data: "the first order"}},
		IfLast: &seen,
	})
	if last, ok := errors.AsType[*feed.LastError](err); ok {
		fmt.Println("another publisher was faster:", last)
	}
	// Output:
	// event 1 replayed: false
	// event 1 replayed: true
	// another publisher was faster: the feed's last event is 1
}

// A retention runs beside the publisher. Several nodes may have one each: they
// take turns.
func ExampleNewRetention() {
	ctx := context.Background()
	pub, hub, done := open(ctx)
	defer done()

	retention, err := feed.NewRetention(hub, feed.RetentionOptions{
		Rules: []feed.Rule{
			{Feeds: "audit"}, // keeps everything: the first matching rule applies
			{Feeds: "chat:*", Age: 30 * 24 * time.Hour, Events: 3},
			{Feeds: "*", Age: 24 * time.Hour},
		},
		Every: 10 * time.Millisecond,
	})
	if err != nil {
		panic(err)
	}
	defer retention.Close()

	for i := range 10 {
		if _, err := pub.Publish(ctx, feed.Draft{Feed: "chat:42", Data: fmt.Sprint(i)}); err != nil {
			panic(err)
		}
	}
	for {
		info, _, err := hub.Info(ctx, "chat:42")
		if err != nil {
			panic(err)
		}
		if info.First == 8 {
			fmt.Println("has", info.First, "to", info.Last)
			return
		}
		time.Sleep(time.Millisecond) // until the next round has come
	}
	// Output:
	// has 8 to 10
}

// FromNewest shows the last events of a feed, as a page does when it opens.
func ExampleFromNewest() {
	ctx := context.Background()
	pub, hub, done := open(ctx)
	defer done()

	for i := range 100 {
		if _, err := pub.Publish(ctx, feed.Draft{Feed: "prices", Data: fmt.Sprint(i)}); err != nil {
			panic(err)
		}
	}
	sub, err := hub.Subscribe(ctx, "prices", feed.FromNewest(2))
	if err != nil {
		panic(err)
	}
	defer sub.Close()
	fmt.Println("has", sub.Bounds().First, "to", sub.Bounds().Last, "and starts after", sub.Cursor())
	// Output:
	// has 1 to 100 and starts after 98
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// serve runs a server on a new store, and returns a client of it.
func serve(o client.Options) (c *client.Client, stop func()) {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		panic(err)
	}
	store, err := sqlite.Open(context.Background(), filepath.Join(dir, "events.db"), sqlite.Options{})
	if err != nil {
		panic(err)
	}
	bus := memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	handler := server.New(hub, publisher, server.Options{})
	http := httptest.NewServer(handler)
	if c, err = client.New(http.URL, o); err != nil {
		panic(err)
	}
	return c, func() {
		c.HTTP().CloseIdleConnections()
		handler.Drain(context.Background(), 0)
		http.Close()
		publisher.Close()
		hub.Close()
		handler.Close()
		bus.Close()
		store.Close()
		os.RemoveAll(dir)
	}
}

// Publish, and follow what is published.
func Example() {
	ctx := context.Background()
	c, stop := serve(client.Options{})
	defer stop()

	for _, data := range []string{"hello", "anybody here?"} {
		result, err := c.Publish(ctx, client.Publication{Feed: "chat", Drafts: []feed.Draft{{Data: data}}})
		if err != nil {
			panic(err)
		}
		fmt.Println(result.Outcome, result.IDs)
	}
	for e, err := range c.Follow(ctx, client.Subscription{Feeds: []string{"chat"}, From: "start"}) {
		if err != nil {
			panic(err)
		}
		if e.Kind == client.KindEvent {
			fmt.Println(e.ID, e.Data)
		}
		if e.ID == 2 {
			break
		}
	}
	// Output:
	// stored [1]
	// stored [2]
	// 1 hello
	// 2 anybody here?
}

// A program that keeps its cursor continues where its last run stopped.
func ExampleClient_Follow() {
	ctx := context.Background()
	c, stop := serve(client.Options{})
	defer stop()

	publish := func(p client.Publication) {
		if _, err := c.Publish(ctx, p); err != nil {
			panic(err)
		}
	}
	cursor := ""
	follow := func(events int) {
		s := client.Subscription{Feeds: []string{"chat", "news"}, From: "start", Cursor: cursor}
		for e, err := range c.Follow(ctx, s) {
			if err != nil {
				panic(err)
			}
			switch e.Kind {
			case client.KindEvent:
				fmt.Printf("%s %d: %s\n", e.Feed, e.ID, e.Data)
				cursor = e.Cursor
				if events--; events == 0 {
					return
				}
			case client.KindGap:
				fmt.Printf("%s: events %d to %d are gone\n", e.Feed, e.Gap.After+1, e.Gap.Cursor())
			case client.KindClosed:
				fmt.Println(e.Feed, "is closed")
			}
		}
	}
	publish(client.Publication{Feed: "chat", Drafts: []feed.Draft{{Data: "one"}}})
	follow(1)
	fmt.Println("away, at", cursor)
	publish(client.Publication{Feed: "chat", Drafts: []feed.Draft{{Data: "two"}, {Data: "three"}}, Close: true})
	follow(2)
	publish(client.Publication{Feed: "news", Close: true})
	follow(-1)
	// Output:
	// chat 1: one
	// away, at chat=1,news=0
	// chat 2: two
	// chat 3: three
	// chat is closed
	// news is closed
}

// A publication with a key of its own can be sent again by another run of the
// program, and one with IfLast is stored only if nothing came in between.
func ExampleClient_Publish() {
	ctx := context.Background()
	c, stop := serve(client.Options{})
	defer stop()

	order := client.Publication{
		Feed:   "orders",
		Drafts: []feed.Draft{{Type: "order.created", Data: `{"id":7}`, JSON: true}},
		Key:    "order-7",
	}
	for range 2 {
		result, err := c.Publish(ctx, order)
		fmt.Println(result.Outcome, result.IDs, result.Replayed, err)
	}

	var empty feed.ID
	result, err := c.Publish(ctx, client.Publication{Feed: "orders", Drafts: []feed.Draft{{Data: "first?"}}, IfLast: &empty})
	last, _ := errors.AsType[*feed.LastError](err)
	fmt.Println(result.Outcome, last.Last)

	if _, err = c.Publish(ctx, client.Publication{Feed: "orders", Close: true}); err != nil {
		panic(err)
	}
	result, err = c.Publish(ctx, client.Publication{Feed: "orders", Drafts: []feed.Draft{{Data: "late"}}})
	fmt.Println(result.Outcome, errors.Is(err, feed.ErrClosed))
	// Output:
	// stored [1] false <nil>
	// stored [1] true <nil>
	// refused 1
	// refused true
}

// With Live, a program learns when it has all of the history.
func ExampleSubscription() {
	ctx := context.Background()
	c, stop := serve(client.Options{})
	defer stop()

	drafts := []feed.Draft{{Type: "said", Data: "a"}, {Type: "typing", Data: "b"}, {Type: "said", Data: "c"}, {Data: "d"}}
	if _, err := c.Publish(ctx, client.Publication{Feed: "chat", Drafts: drafts}); err != nil {
		panic(err)
	}
	var history []string
	s := client.Subscription{Feeds: []string{"chat"}, From: "-3", Types: []string{"said", "message"}, Live: true}
	for e, err := range c.Follow(ctx, s) {
		if err != nil {
			panic(err)
		}
		if e.Kind == client.KindEvent {
			history = append(history, e.Data)
		}
		if e.Kind == client.KindLive {
			break
		}
	}
	fmt.Println(strings.Join(history, " "))
	// Output: c d
}

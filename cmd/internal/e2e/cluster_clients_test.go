package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// traffic is what publishers of a cluster do.
type traffic struct {
	feed       string
	publishers int           // on each node
	pause      time.Duration // of each publisher, between two events
	events     int           // of each publisher; 0: until stopped
	size       int           // of an event, at least
	dies       bool          // the node may end: what fails then is of unknown outcome
}

// publish has each of the nodes published to, and returns a function that ends
// that and waits for it.
func (c *cluster) publish(how traffic, nodes ...*process) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, n := range nodes {
		for i := range how.publishers {
			work.Go(func() { c.publishOn(ctx, n, how, fmt.Sprintf("%s publisher %d", n.url, i)) })
		}
	}
	stop = func() {
		if how.events == 0 {
			cancel()
		}
		work.Wait()
		cancel()
	}
	c.t.Cleanup(func() { cancel(); work.Wait() })
	return stop
}

func (c *cluster) publishOn(ctx context.Context, n *process, how traffic, name string) {
	keepAlive := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	padding := strings.Repeat("x", how.size)
	defer keepAlive.CloseIdleConnections()
	for i := 1; (i <= how.events || how.events == 0) && ctx.Err() == nil; i++ {
		if err := c.publishOne(keepAlive, n, how.feed, fmt.Sprintf("%s event %d %s", name, i, padding)); err != nil {
			if !how.dies {
				c.mu.Lock()
				c.failed = append(c.failed, err)
				c.mu.Unlock()
			}
			return
		}
		select {
		case <-time.After(how.pause):
		case <-ctx.Done():
		}
	}
}

// publishOne publishes one event, and accounts for it.
func (c *cluster) publishOne(keepAlive *http.Client, n *process, name, data string) error {
	began := time.Now()
	id, err := publish(keepAlive, n.url, name, data)
	now := time.Now()
	if err != nil {
		c.checker.Unsure(feed.Draft{Feed: name, Data: data})
		return err
	}
	c.checker.Acked(feed.Event{Feed: name, ID: id, Data: data})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acked[name] == nil {
		c.acked[name] = make(map[feed.ID]time.Time)
	}
	c.acked[name][id] = now
	c.took = append(c.took, now.Sub(began))
	return nil
}

// mustPublish publishes one event on a connection of its own.
func (c *cluster) mustPublish(n *process, name, data string) {
	c.t.Helper()
	if err := c.publishOne(http.DefaultClient, n, name, data); err != nil {
		c.t.Fatal(err)
	}
}

// subscriber follows a feed of a node from its start. When it is cut off it
// comes back with its cursor.
type subscriber struct {
	c    *cluster
	node *process
	from *client.Client // of the node
	feed string
	seen *feedtest.Follower
	stop func()

	// Once it is stopped:
	arrived    map[feed.ID]time.Time
	reconnects int
}

// follow adds subscribers of a feed, and returns when all are open.
func (c *cluster) follow(name string, subscribers int, nodes ...*process) {
	c.t.Helper()
	var opened sync.WaitGroup
	for i, n := range nodes {
		for j := range subscribers {
			who := fmt.Sprintf("subscriber %d of node %d", j, i)
			s := &subscriber{c: c, node: n, from: clientOf(c.t, n.url), feed: name, seen: c.checker.Follow(who, name), arrived: make(map[feed.ID]time.Time)}
			ctx, cancel := context.WithCancel(context.Background())
			var work sync.WaitGroup
			opened.Add(1)
			work.Go(func() { s.run(ctx, sync.OnceFunc(opened.Done)) })
			s.stop = sync.OnceFunc(func() { cancel(); work.Wait() })
			c.t.Cleanup(s.stop)
			c.subscribers = append(c.subscribers, s)
		}
	}
	opened.Wait()
}

func (c *cluster) stopSubscribers() {
	for _, s := range c.subscribers {
		s.stop()
	}
}

func (s *subscriber) run(ctx context.Context, opened func()) {
	defer opened()
	for ; ctx.Err() == nil; s.reconnects++ {
		if s.reconnects > 0 {
			s.seen.Resume(s.seen.Cursor())
		}
		_ = s.read(ctx, opened) // it is counted that it ended
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return // it was we who ended it
		}
	}
}

func (s *subscriber) read(ctx context.Context, opened func()) error {
	asked := client.Subscription{Feeds: []string{s.feed}, From: "start"}
	if s.reconnects > 0 {
		asked.Cursor = s.seen.Cursor().String()
	}
	stream, err := s.from.Connect(ctx, asked)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		switch {
		case errors.Is(err, client.ErrViolation):
			s.c.t.Error(err)
			return err
		case err != nil:
			return err
		case e.Kind == client.KindOpen:
			s.seen.Opened(e.Positions[0])
			opened()
		case e.Kind == client.KindEvent:
			s.arrived[e.ID] = time.Now()
			s.seen.Saw(feed.Event{Feed: s.feed, ID: e.ID, Type: e.Type, Data: e.Data})
		default:
			s.c.t.Errorf("%v: %s", e, e.Data)
		}
	}
}

// readFeed reads what a feed holds, from a node.
func readFeed(from *client.Client, name string) (p feed.Page, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stream, err := from.Connect(ctx, client.Subscription{Feeds: []string{name}, From: "start"})
	if err != nil {
		return p, err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		switch {
		case err != nil:
			return p, err
		case e.Kind == client.KindOpen:
			if err := json.Unmarshal([]byte(e.Data), &p.Bounds); err != nil {
				return p, err
			}
		default:
			p.Events = append(p.Events, feed.Event{Feed: name, ID: e.ID, Type: e.Type, Data: e.Data})
		}
		if feed.ID(len(p.Events)) >= p.Last {
			return p, nil
		}
	}
}

// clientOf returns a client of the server at url, whose connections end with the
// test.
func clientOf(t testing.TB, url string) *client.Client {
	t.Helper()
	c, err := client.New(url, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.HTTP().CloseIdleConnections)
	return c
}

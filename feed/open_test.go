package feed_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/memory"
)

// TestAll: a loop over a subscription gets everything, ends with a closed feed, and
// gets the error of a node that is closed.
func TestAll(t *testing.T) {
	bus := memory.NewBus()
	defer bus.Close()
	node, err := feed.Open(feedtest.NewStore(), bus, feed.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	follow := func(name string) *feed.Subscription {
		s, err := node.Hub.Subscribe(t.Context(), name, feed.FromStart())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, err := node.Publisher.PublishBatch(t.Context(), feed.Publication{
		Feed: "a", Drafts: []feed.Draft{{Feed: "a", Data: "1"}, {Feed: "a", Data: "2"}}, Close: true,
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range follow("a").All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range d.Events() {
			got = append(got, e.Data)
		}
	}
	if fmt.Sprint(got) != "[1 2]" {
		t.Errorf("got %q", got)
	}

	open := follow("b")
	node.Close()
	pairs := 0
	for d, err := range open.All(t.Context()) {
		if pairs++; !errors.Is(err, feed.ErrStopped) {
			t.Errorf("of a node that is closed: got %+v, %v", d, err)
		}
	}
	if pairs != 1 {
		t.Errorf("got %d pairs", pairs)
	}
}

// TestOpenRefusesRules: Open refuses an invalid rule, and leaves nothing running.
func TestOpenRefusesRules(t *testing.T) {
	bus := memory.NewBus()
	defer bus.Close()
	_, err := feed.Open(feedtest.NewStore(), bus, feed.Options{Rules: []feed.Rule{{Feeds: "a b"}}, Logger: quiet})
	if !errors.Is(err, feed.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// TestReconfigure: a running node takes over what it can, or nothing.
func TestReconfigure(t *testing.T) {
	bus := memory.NewBus()
	defer bus.Close()
	node, err := feed.Open(feedtest.NewStore(), bus, feed.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Reconfigure(feed.Options{EventBytes: 1, Rules: []feed.Rule{{Feeds: "a b"}}}); !errors.Is(err, feed.ErrInvalid) {
		t.Errorf("with a bad rule: got %v, want ErrInvalid", err)
	}
	publish := func() error {
		_, err := node.Publisher.Publish(t.Context(), feed.Draft{Feed: "a", Data: "12"})
		return err
	}
	if err := publish(); err != nil {
		t.Errorf("after a bad rule: %v", err)
	}
	if err := node.Reconfigure(feed.Options{EventBytes: 1, Memory: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := publish(); !errors.Is(err, feed.ErrTooLarge) {
		t.Errorf("2 bytes of 1: got %v, want ErrTooLarge", err)
	}
	if limit := node.Hub.Memory().Limit(feed.HoldPublishes); limit != 16<<20 {
		t.Errorf("publishes may hold %d bytes", limit)
	}
}

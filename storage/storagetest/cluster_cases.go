package storagetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// An ephemeral event reaches the connected subscribers of every node, unchanged, and
// is not stored.
func testEphemeral(t *testing.T, c *cluster) {
	nodes := c.nodes(3)
	nodes[0].publish("chat", 3)
	var subs []*feed.Subscription
	for _, n := range nodes {
		subs = append(subs, n.follow("chat", feed.From{}))
	}
	const data = "caf\u00e9 <&> \u2028\n\x01"
	nodes[0].say("chat", data)
	for i, s := range subs {
		d := within(t, s, soon)
		if !d.Ephemeral || len(d.Events()) != 1 {
			t.Fatalf("node %d: got %+v, want an ephemeral event", i, d)
		}
		e := d.Events()[0]
		if e.Feed != "chat" || e.ID != 0 || e.Type != "typing" || e.Data != data || e.JSON || time.Since(e.Time) > time.Minute || e.Time.Location() != time.UTC {
			t.Errorf("node %d: got %+v", i, e)
		}
		if s.Cursor() != 3 {
			t.Errorf("node %d: the cursor is at %d, want 3", i, s.Cursor())
		}
	}
	b, err := c.store.Bounds(t.Context(), []string{"chat"})
	if err != nil || b[0].Last != 3 {
		t.Errorf("the store ends with %+v, %v; want 3", b, err)
	}
	if d := within(t, nodes[1].follow("chat", feed.FromCursor(3)), promptness); len(d.Events()) > 0 {
		t.Errorf("a later subscriber got %+v", d.Events())
	}
}

// However many ephemeral events there are, subscribers get every stored event, and
// their cursors follow only the stored ones.
func testEphemeralAmongStored(t *testing.T, c *cluster) {
	nodes := c.nodes(2)
	s := nodes[1].follow("chat", feed.From{})
	const stored = 50
	for i := range stored {
		for n := range 20 {
			nodes[0].say("chat", fmt.Sprintf("%d %d", i, n))
		}
		nodes[0].publish("chat", 1)
	}
	ephemeral := 0
	for s.Cursor() < stored {
		before := s.Cursor()
		d := within(t, s, soon)
		switch {
		case d.Ephemeral:
			ephemeral++
			if s.Cursor() != before {
				t.Fatalf("an ephemeral event moved the cursor from %d to %d", before, s.Cursor())
			}
		case len(d.Events()) == 0 || d.Gap != nil:
			t.Fatalf("at %d: got %+v, want what was published", before, d)
		case d.Events()[0].ID != before+1:
			t.Fatalf("at %d: got event %d", before, d.Events()[0].ID)
		}
	}
	if ephemeral == 0 {
		t.Error("no ephemeral event arrived")
	}
}

// Every node counts the subscribers of all nodes, and returns as soon as all have
// answered.
func testCounting(t *testing.T, c *cluster) {
	nodes := c.nodes(3)
	var last *feed.Subscription
	for i, n := range nodes {
		for range i {
			last = n.follow("chat", feed.From{})
		}
	}
	check := func(want int) {
		t.Helper()
		for _, n := range nodes {
			n.exactly("chat", want)
		}
	}
	check(3)
	last.Close()
	check(2)
	nodes[0].exactly("nobody", 0)
}

// Counts that are under way together do not mix up their answers, and ephemeral
// events that travel at the same time do not hold them up.
func testCountingOften(t *testing.T, c *cluster) {
	nodes := c.nodes(2)
	for i := range 5 {
		for range i {
			nodes[i%2].follow(fmt.Sprintf("feed:%d", i), feed.From{})
		}
	}
	var work sync.WaitGroup
	for _, n := range nodes {
		work.Go(func() {
			for i := range 500 {
				n.say("chat", fmt.Sprint(i))
			}
		})
		for i := range 5 {
			work.Go(func() {
				name := fmt.Sprintf("feed:%d", i)
				for range 10 {
					n.exactly(name, i)
				}
			})
		}
	}
	work.Wait()
}

func testNodeEnds(t *testing.T, c *cluster) {
	nodes := c.nodes(3)
	nodes[0].follow("chat", feed.From{})
	nodes[1].follow("chat", feed.From{})
	nodes[1].end()
	// The farewell of the node has to arrive first.
	for deadline := time.Now().Add(soon); ; {
		got, took, ok := nodes[0].prompt("chat")
		if ok && got == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a node ended, another counts %d in %v, want 1 at once", got, took)
		}
	}
}

// A node that does not answer delays a count by half a second. After six seconds of
// silence it delays no count. When it is back, it counts again.
func testNodeFrozen(t *testing.T, c *cluster) {
	nodes := c.nodes(2)
	nodes[0].follow("chat", feed.From{})
	nodes[1].follow("chat", feed.From{})
	nodes[0].counts("chat", 2)
	nodes[1].bus.freeze(true)
	frozen := time.Now()
	began := time.Now()
	if got, took := nodes[0].hub.Subscribers(t.Context(), "chat"), time.Since(began); got != 1 || took > 2*time.Second {
		t.Errorf("with a frozen node, another counts %d in %v, want 1 in half a second", got, took)
	}
	for {
		got, took, ok := nodes[0].prompt("chat")
		if ok && got == 1 {
			break
		}
		if got != 1 || time.Since(frozen) > 9*time.Second {
			t.Fatalf("%v after a node froze, another counts %d in %v", time.Since(frozen), got, took)
		}
	}
	nodes[1].bus.freeze(false)
	nodes[0].counts("chat", 2)
	nodes[1].counts("chat", 2)
}

func testClosingReaches(t *testing.T, c *cluster) {
	nodes := c.nodes(2)
	nodes[0].publish("chat", 2)
	s := nodes[1].follow("chat", feed.FromCursor(0))
	if d := within(t, s, soon); len(d.Events()) != 2 {
		t.Fatalf("got %+v, want two events", d)
	}
	began := time.Now()
	last := feed.Publication{Feed: "chat", Drafts: []feed.Draft{{Feed: "chat", Data: "the last"}}, Close: true}
	if _, err := nodes[0].pub.PublishBatch(t.Context(), last); err != nil {
		t.Fatalf("close: %v", err)
	}
	for {
		d, err := s.Next(t.Context(), time.After(soon))
		if errors.Is(err, feed.ErrClosed) {
			break
		}
		if err != nil || len(d.Events()) == 0 {
			t.Fatalf("got %+v, %v, want the last event and then the end", d, err)
		}
	}
	if took := time.Since(began); s.Cursor() != 3 || took > soon {
		t.Errorf("the subscription ended at %d after %v, want 3", s.Cursor(), took)
	}
	if err := nodes[1].pub.PublishEphemeral(t.Context(), feed.Draft{Feed: "chat"}); !errors.Is(err, feed.ErrClosed) {
		t.Errorf("an ephemeral event to a closed feed: got %v, want %v", err, feed.ErrClosed)
	}
}

// A node does not deliver from memory what another node has trimmed.
func testTrimmingReaches(t *testing.T, c *cluster) {
	nodes := c.nodes(2)
	s := nodes[1].follow("chat", feed.From{})
	nodes[0].publish("chat", 10)
	for s.Cursor() < 10 {
		if d := within(t, s, soon); len(d.Events()) == 0 {
			t.Fatalf("at %d: got %+v, want ten events", s.Cursor(), d)
		}
	}
	if err := nodes[0].hub.Trim(t.Context(), "chat", 8); err != nil {
		t.Fatalf("trim: %v", err)
	}
	for deadline := time.Now().Add(soon); ; {
		late := nodes[1].follow("chat", feed.FromCursor(0))
		gap := late.Gap()
		late.Close()
		if gap != nil {
			if gap.Reason != feed.Trimmed || gap.Cursor() != 7 {
				t.Errorf("got the gap %+v, want one that ends at 7", *gap)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the other node does not know that the feed was trimmed")
		}
		time.Sleep(time.Millisecond) // the store does not signal it
	}
}

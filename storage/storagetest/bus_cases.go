package storagetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Every part of an event arrives unchanged.
func testArrives(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	r := newReceiver("chat", "news")
	tail(t, b, r)
	events := committed("chat", 0, 7)
	events[1].Type = "a_B.c:D/e-f"
	events[2].Data = ""
	events[3].Data = "two\nlines, caf\u00e9, \u2028 and \U0001F680 \x01 ' \" \\"
	events[4].Data, events[4].JSON = ` {"a": 1, "a":2}`, true
	events[5].Data = strings.Repeat("x", feed.DefaultEventBytes)
	events[6].Time = time.UnixMilli(1).UTC()
	arrive(t, a, events, r)
	arrive(t, a, committed("news", 0, 1), r)
	arrive(t, a, committed("chat", 7, 200), r)
}

func testReceivers(t *testing.T, join Joiner) {
	a, b, c := connect(t, join), connect(t, join), connect(t, join)
	both, one := newReceiver("chat", "news"), newReceiver("chat")
	tail(t, b, both)
	tail(t, c, one)
	arrive(t, a, committed("chat", 0, 5), both, one)
	arrive(t, c, committed("chat", 5, 5), both)
	arrive(t, b, committed("chat", 10, 5), one)
	arrive(t, a, committed("news", 0, 5), both)
}

// A node gets no events of feeds that it does not follow, unless they are true. Events of
// a feed that it opens later arrive.
func testClosedFeeds(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	r := newReceiver("open")
	tail(t, b, r)
	for n := range 3 {
		if err := a.Tell(t.Context(), committed("later", feed.ID(n), 1)); err != nil {
			t.Fatal(err)
		}
		arrive(t, a, committed("open", feed.ID(n), 1), r)
	}
	r.mu.Lock()
	for _, e := range r.events["later"] {
		if want := committed("later", e.ID-1, 1)[0]; !sameEvent(e, want) {
			t.Errorf("got %v, want %v", e, want)
		}
	}
	r.cursors["later"] = 3
	r.mu.Unlock()
	arrive(t, a, committed("later", 3, 2), r)
}

// Many goroutines tell events at the same time, each of a feed of its own and of one
// common feed.
func testConcurrentTells(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	const tellers, each = 8, 50
	feeds := []string{"all"}
	for w := range tellers {
		feeds = append(feeds, fmt.Sprintf("own:%d", w))
	}
	r := newReceiver(feeds...)
	tail(t, b, r)
	arrive(t, a, committed("all", 0, 1), r)
	var wg sync.WaitGroup
	for w := range tellers {
		wg.Go(func() {
			for n := range each {
				told := append(committed("all", feed.ID(1+w*each+n), 1), committed(feeds[1+w], feed.ID(n), 1)...)
				if err := a.Tell(t.Context(), told); err != nil {
					t.Errorf("tell: %v", err)
				}
			}
		})
	}
	wg.Wait()
	// All received events are true, and the next event arrives.
	for _, name := range feeds {
		arrive(t, a, committed(name, 1+tellers*each, 1), r)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range feeds {
		for id, e := range r.events[name] {
			if want := committed(name, id-1, 1)[0]; !sameEvent(e, want) {
				t.Errorf("got %v, want %v", e, want)
			}
		}
	}
}

// A receiver that blocks while a node sends thousands of events delays no other. Later it
// gets all of them, or Missed.
func testFlood(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	r := newReceiver("chat")
	tail(t, b, r)
	arrive(t, a, committed("chat", 0, 1), r)
	release := r.hold()
	t.Cleanup(release)
	r.mu.Lock()
	missed := r.missed
	r.mu.Unlock()
	const last = 30_001
	for id := feed.ID(1); id < last; id += 100 {
		if err := a.Tell(t.Context(), committed("chat", id, 100)); err != nil {
			t.Fatalf("tell: %v", err)
		}
	}
	release()
	if !r.wait(patience, func() bool {
		_, ok := r.events["chat"][last]
		return ok || r.grew["chat"] >= last || r.missed > missed
	}) {
		t.Error("the receiver has neither the last event nor a word that it missed something")
	}
}

func testTailEnds(t *testing.T, join Joiner) {
	b := connect(t, join)
	tail(t, b, newReceiver("chat"))() // at once
	r := newReceiver("chat")
	stop := tail(t, b, r)
	arrive(t, connect(t, join), committed("chat", 0, 1), r)
	stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Tail(ctx, newReceiver("chat")); err != nil {
		t.Errorf("tail under an ended context: got %v, want nil", err)
	}
}

// A node can tail again, and does not get the events told in between as new.
func testTailAgain(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	for n := range 3 {
		r := newReceiver("chat")
		r.cursors["chat"] = feed.ID(10 * n)
		stop := tail(t, b, r)
		arrive(t, a, committed("chat", feed.ID(10*n), 5), r)
		stop()
		if err := a.Tell(t.Context(), committed("chat", feed.ID(10*n+5), 5)); err != nil {
			t.Fatal(err)
		}
	}
}

// Tell returns when its context ends.
func testTellEnds(t *testing.T, join Joiner) {
	b := connect(t, join)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	began := time.Now()
	for n := range 100 {
		// The bus may or may not return an error.
		_ = b.Tell(ctx, committed("chat", feed.ID(n), 1))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("100 tells under an ended context took %v", took)
	}
	r := newReceiver("chat")
	tail(t, connect(t, join), r)
	arrive(t, b, committed("chat", 100, 1), r)
}

func testNobodyThere(t *testing.T, join Joiner) {
	a, b := connect(t, join), connect(t, join)
	if err := a.Tell(t.Context(), nil); err != nil {
		t.Errorf("tell of nothing: %v", err)
	}
	for n := range 200 {
		if err := a.Tell(t.Context(), committed("chat", feed.ID(n*100), 100)); err != nil {
			t.Fatalf("tell: %v", err)
		}
	}
	r := newReceiver("chat")
	r.cursors["chat"] = 20_000
	tail(t, b, r)
	arrive(t, a, committed("chat", 20_000, 1), r)
}

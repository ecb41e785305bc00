package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/memory"
)

// wire is one node's connection to the others. A test may slow it down, cut it, and
// read what is sent.
type wire struct {
	*memory.Bus
	mu   sync.Mutex
	slow time.Duration             // how long a Signal takes
	out  func(payload []byte) bool // reports whether a signal from this node passes
	in   func(payload []byte) bool // reports whether a signal to this node passes
}

func (w *wire) set(slow time.Duration, out, in func([]byte) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow, w.out, w.in = slow, out, in
}

func (w *wire) Signal(ctx context.Context, payload []byte) error {
	w.mu.Lock()
	slow, out := w.slow, w.out
	w.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	if out != nil && !out(payload) {
		return nil
	}
	return w.Bus.Signal(ctx, payload)
}

func (w *wire) Signals(ctx context.Context, receive func([]byte)) error {
	return w.Bus.Signals(ctx, func(payload []byte) {
		w.mu.Lock()
		in := w.in
		w.mu.Unlock()
		if in == nil || in(payload) {
			receive(payload)
		}
	})
}

func nothing([]byte) bool { return false }

// without passes all signals but those that contain the text.
func without(text string) func([]byte) bool {
	return func(payload []byte) bool { return !strings.Contains(string(payload), text) }
}

// startNodes starts nodes that share a store and know each other. Their hubs
// hardly ever verify.
func startNodes(t *testing.T, n int) []*rig {
	bus, store := memory.NewBus(), feedtest.NewStore()
	rigs := make([]*rig, n)
	for i := range rigs {
		r := &rig{t: t, store: store, calls: make(map[feedtest.Point]int), wire: &wire{Bus: bus}}
		gated := store.Through(r.notice)
		r.hub = feed.NewHub(gated, r.wire, feed.HubOptions{Logger: quiet, Verify: time.Hour, Memory: 1 << 20})
		r.pub = feed.NewPublisher(gated, r.hub, r.wire, feed.PublisherOptions{Logger: quiet})
		t.Cleanup(func() {
			r.pass()
			r.pub.Close()
			r.hub.Close()
		})
		rigs[i] = r
		synctest.Wait()
	}
	return rigs
}

func (r *rig) whisper(name, data string) {
	r.t.Helper()
	if err := r.pub.PublishEphemeral(r.t.Context(), feed.Draft{Feed: name, Data: data}); err != nil {
		r.t.Fatal(err)
	}
}

// counts checks the node's count of subscribers, and that counting takes no longer
// than most.
func (r *rig) counts(name string, want int, most time.Duration) {
	r.t.Helper()
	began := time.Now()
	got := r.hub.Subscribers(r.t.Context(), name)
	if took := time.Since(began); got != want || took > most {
		r.t.Errorf("%s has %d subscribers after %v, want %d within %v", name, got, took, want, most)
	}
}

// However many ephemeral events there are, stored ones get through.
func TestEphemeralFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startNodes(t, 1)[0]
		s := r.subscribe("chat", feed.From{})
		for range 100 {
			r.whisper("chat", "x")
		}
		for range 10 {
			r.publish("chat", "stored")
		}
		reads := 0
		for s.Cursor() < 10 {
			r.whisper("chat", "x")
			next(t, s, time.Second)
			if reads++; reads > 25 {
				t.Fatalf("after %d deliveries the cursor is at %d", reads, s.Cursor())
			}
		}
	})
}

// A count does not wait for a node that stops.
func TestCountOfNodeThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 3)
		for _, n := range nodes {
			n.subscribe("chat", feed.From{})
		}
		nodes[1].wire.set(0, nil, nothing)
		time.AfterFunc(100*time.Millisecond, nodes[1].hub.Close)
		nodes[0].counts("chat", 2, 100*time.Millisecond)
		nodes[0].counts("chat", 2, 0)
	})
}

// A signal of a node that has stopped may arrive late. It is no sign of life.
func TestLateSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		var late []byte
		nodes[1].wire.set(0, func(payload []byte) bool { late = payload; return true }, nil)
		nodes[1].whisper("chat", "late")
		synctest.Wait()
		payload := string(late)
		nodes[1].hub.Close()
		if err := nodes[0].wire.Bus.Signal(t.Context(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		nodes[0].counts("chat", 0, 0)
	})
}

// An answer counts, even if it is the first signal of its node.
func TestCountOfUnknownNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		nodes[1].wire.set(20*time.Millisecond, nil, nil) // it answers last
		stranger := startStranger(t, nodes)
		stranger.subscribe("chat", feed.From{})
		nodes[0].counts("chat", 1, 50*time.Millisecond)
	})
}

// startStranger starts a node whose signs of life get lost.
func startStranger(t *testing.T, nodes []*rig) *rig {
	r := &rig{t: t, store: nodes[0].store, calls: make(map[feedtest.Point]int), wire: &wire{Bus: nodes[0].wire.Bus}}
	r.wire.set(0, without(`"here"`), nil)
	r.hub = feed.NewHub(r.store, r.wire, feed.HubOptions{Logger: quiet})
	t.Cleanup(r.hub.Close)
	time.Sleep(2500 * time.Millisecond) // in the bubble: until it knows the others
	return r
}

// Ephemeral events that wait to be sent do not hold up an answer.
func TestCountBehindEphemeralEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		nodes[1].subscribe("chat", feed.From{})
		nodes[1].wire.set(5*time.Millisecond, nil, nil)
		for range 1000 {
			nodes[1].whisper("news", "x")
		}
		nodes[0].counts("chat", 1, 250*time.Millisecond)
	})
}

// While signals can't be sent, a bounded part of them waits.
func TestUnsentSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		nodes[0].wire.set(time.Hour, nil, nil)
		var sent int
		count := func(payload []byte) bool { sent += len(payload); return true }
		data := strings.Repeat("x", 50_000)
		for range 400 {
			nodes[0].whisper("chat", data)
		}
		nodes[0].wire.set(0, count, nil)
		time.Sleep(2 * time.Second) // in the bubble
		synctest.Wait()
		if sent == 0 || sent > 10<<20 {
			t.Errorf("%d bytes had waited to be sent, want some and at most 10 MiB", sent)
		}
		before := sent
		nodes[0].whisper("chat", "y")
		synctest.Wait()
		if sent == before {
			t.Error("nothing is sent any more")
		}
	})
}

// Ephemeral events count as memory of the logs.
func TestEphemeralMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startNodes(t, 1)[0]
		for i := range 10 {
			r.subscribe(fmt.Sprintf("feed:%d", i), feed.From{})
		}
		for i := range 1000 {
			r.whisper(fmt.Sprintf("feed:%d", i%10), strings.Repeat("x", 4000))
		}
		if _, bytes := r.hub.Logs(); bytes > 10*64<<10 {
			t.Errorf("10 logs hold %d bytes, and may hold 64 KiB each", bytes)
		}
	})
}

// However many signals report a change of a feed, the hub asks the store once at a
// time.
func TestChangedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		nodes[0].publish("chat", "x")
		nodes[1].subscribe("chat", feed.From{})
		before := nodes[1].count(feedtest.BoundsAsked)
		pass := nodes[1].holdAt(feedtest.BoundsAsked)
		for range 100 {
			if err := nodes[0].hub.Trim(t.Context(), "chat", 2); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		asked := nodes[1].count(feedtest.BoundsAsked) - before
		pass()
		synctest.Wait()
		if all := nodes[1].count(feedtest.BoundsAsked) - before; asked != 1 || all != 2 {
			t.Errorf("the store was asked %d times at once and %d times in all, want 1 and 2", asked, all)
		}
	})
}

// A closed hub leaves the store alone. A hub whose store does not answer keeps no
// publisher waiting.
func TestEphemeralWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startNodes(t, 1)[0]
		r.holdAt(feedtest.BoundsAsked)
		began := time.Now()
		r.whisper("chat", "x")
		if took := time.Since(began); took > time.Second {
			t.Errorf("while the store does not answer, an ephemeral event takes %v", took)
		}
		r.pass()
		r.hub.Close()
		before := r.count(feedtest.BoundsAsked)
		err := r.pub.PublishEphemeral(t.Context(), feed.Draft{Feed: "chat"})
		if !errors.Is(err, feed.ErrStopped) {
			t.Errorf("on a closed hub: got %v, want %v", err, feed.ErrStopped)
		}
		if n := r.count(feedtest.BoundsAsked) - before; n > 0 {
			t.Errorf("a closed hub asked the store %d times", n)
		}
	})
}

// A hub checks events that come over the bus: a carriage return would end a line of
// Server-Sent Events, and a forged type would pass for one of the server.
func TestForgedEphemeralEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 2)
		s := nodes[1].subscribe("chat", feed.From{})
		var payload string
		nodes[0].wire.set(0, func(p []byte) bool { payload = string(p); return false }, nil)
		if err := nodes[0].pub.PublishEphemeral(t.Context(), feed.Draft{Feed: "chat", Type: "TYPE", Data: "DATA", JSON: false}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, forgery := range []*strings.Replacer{
			strings.NewReplacer("DATA", `a\rid: 7`),
			strings.NewReplacer("DATA", `\u0000`),
			strings.NewReplacer("TYPE", `feed.gap`),
			strings.NewReplacer("TYPE", `a\nid: 7`),
			strings.NewReplacer(`"ID":0`, `"ID":7`),
			strings.NewReplacer(`"JSON":false`, `"JSON":true`),
			strings.NewReplacer(`"Type":"TYPE"`, `"Type":3`),
			strings.NewReplacer("[", "{"),
			strings.NewReplacer("\n", ""),
			strings.NewReplacer(`"kind":"ephemeral"`, `"kind":"other"`),
		} {
			forged := forgery.Replace(payload)
			if forged == payload {
				t.Fatalf("nothing to forge in %s", payload)
			}
			if err := nodes[0].wire.Bus.Signal(t.Context(), []byte(forged)); err != nil {
				t.Fatal(err)
			}
			if d := next(t, s, 10*time.Millisecond); len(d.Events()) > 0 {
				t.Errorf("%+v was delivered", d.Events())
			}
		}
		if err := nodes[0].wire.Bus.Signal(t.Context(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if d := next(t, s, 10*time.Millisecond); len(d.Events()) != 1 {
			t.Error("the event that was not forged was not delivered")
		}
	})
}

// Nodes send signals and events at the same time, and Close leaves no goroutine
// behind.
func TestNodesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := startNodes(t, 3)
		var work sync.WaitGroup
		for _, n := range nodes {
			work.Go(func() {
				for i := range 50 {
					n.whisper("chat", "x")
					n.publish("chat", "x")
					s := n.subscribe("chat", feed.FromStart())
					_ = n.hub.Subscribers(t.Context(), "chat")
					if i%10 == 0 {
						_ = n.hub.Trim(t.Context(), "chat", feed.ID(i))
					}
					s.Close()
				}
			})
		}
		work.Wait()
	})
}

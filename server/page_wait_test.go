package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/storage/memory"
)

// eventually waits for a condition that has no other sign.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(prompt); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it took too long until %s", what)
		}
	}
}

// wait asks for a page that is not there yet, and returns once the server waits.
func (n *node) wait(path string) <-chan page {
	n.t.Helper()
	answer := make(chan page, 1)
	waiting := n.hub.Stats().Subscribers
	go func() {
		defer close(answer)
		answer <- n.page(path, nil)
	}()
	eventually(n.t, "the request waits", func() bool { return n.hub.Stats().Subscribers > waiting })
	return answer
}

func TestWait(t *testing.T) {
	n := startHistory(t)
	for _, test := range []struct {
		name, path string
		act        func()
		low, high  feed.ID
		cursor     string
		closed     bool
	}{
		{"until there is an event after the cursor", events + "?after=150&wait=1m", func() { n.publish("chat", "x", 151) }, 151, 151, "151", false},
		{"brought into 60s", events + "?after=151&wait=100h", func() { n.publish("chat", "x", 152) }, 152, 152, "152", false},
		{"from=now", events + "?from=now&wait=1m", func() { n.publish("chat", "x", 153) }, 153, 153, "153", false},
		{"no start", "/v1/feeds/new/events?wait=1m", func() { n.publish("new", "x", 1) }, 1, 1, "1", false},
		{"a cursor in a feed trimmed to nothing; ephemeral events are none", "/v1/feeds/gone/events?after=2&wait=1m", func() {
			seen := n.follow("/v1/feeds/gone/events", nil)
			seen.block()
			if err := n.publisher.PublishEphemeral(t.Context(), feed.Draft{Feed: "gone", Data: "x"}); err != nil {
				t.Error(err)
			}
			seen.want("data: x\n")
			n.publish("gone", "x", 6)
		}, 6, 6, "6", false},
		{"a cursor that is ahead", "/v1/feeds/old/events?after=21&wait=1m", func() {
			n.publish("old", "not after the cursor", 21)
			n.publish("old", "x", 22)
		}, 22, 22, "22", false},
		{"until the feed is closed", events + "?after=153&wait=1m", func() { n.closeFeed("chat") }, 0, 0, "153", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := n.wait(test.path)
			test.act()
			p := <-answer
			low, high := p.ids(t)
			if low != test.low || high != test.high || p.Cursor != test.cursor || p.Closed != test.closed {
				t.Errorf("%d to %d, %+v", low, high, p)
			}
		})
	}
}

// TestNoWait: the server does not wait for a page that it can answer now.
func TestNoWait(t *testing.T) {
	n := startHistory(t)
	begin := time.Now()
	for path, count := range map[string]int{
		events + "?after=140&wait=1m":              10,
		events + "?wait=1m":                        100,
		events + "?from=-2&wait=1m":                2,
		"/v1/feeds/old/events?after=1&wait=1m":     10,
		"/v1/feeds/done/events?after=3&wait=1m":    0, // closed
		"/v1/feeds/done/events?after=9&wait=1m":    0,
		"/v1/feeds/done/events?from=now&wait=1m":   0,
		events + "?after=150":                      0,
		events + "?after=150&wait=0s":              0,
		events + "?after=150&wait=-5s":             0,
		events + "?after=150&wait=":                0,
		events + "?after=150&wait=1ns":             0,
		"/v1/feeds/new/events?after=5&wait=0.001s": 0,
	} {
		if p := n.page(path, nil); len(p.Events) != count {
			t.Errorf("%s: %d events, want %d", path, len(p.Events), count)
		}
	}
	if took := time.Since(begin); took >= time.Minute {
		t.Errorf("it took %v", took)
	}
}

// TestWaitInVain: a wait without an event ends with 200 and an empty page.
func TestWaitInVain(t *testing.T) {
	n := startHistory(t)
	begin := time.Now()
	p := n.page(events+"?after=150&wait=50ms", nil)
	if took := time.Since(begin); len(p.Events) != 0 || p.Cursor != "150" || took < 50*time.Millisecond {
		t.Errorf("after %v: %+v", took, p)
	}
}

// TestWaitAcrossNodes: an event that another node stores ends the wait, too.
func TestWaitAcrossNodes(t *testing.T) {
	t.Parallel()
	n := startHistory(t)
	bus := memory.NewBus()
	hub := feed.NewHub(n.store, bus, feed.HubOptions{})
	defer hub.Close()
	other := feed.NewPublisher(n.store, hub, bus, feed.PublisherOptions{})
	defer other.Close()
	answer := n.wait(events + "?after=150&wait=1m")
	if _, err := other.Publish(t.Context(), feed.Draft{Feed: "chat", Data: "x"}); err != nil {
		t.Fatal(err)
	}
	if p := <-answer; len(p.Events) != 1 {
		t.Errorf("%+v", p)
	}
}

// TestDrainEndsWaits: no page waits on a node that is stopping.
func TestDrainEndsWaits(t *testing.T) {
	n := startHistory(t)
	answer := n.wait(events + "?after=150&wait=1m")
	n.Drain(within(t, prompt), 0)
	if p := <-answer; len(p.Events) != 0 || p.Cursor != "150" {
		t.Errorf("%+v", p)
	}
	if p := n.page(events+"?after=150&wait=1m", nil); len(p.Events) != 0 {
		t.Errorf("%+v", p)
	}
	if p := n.page(events+"?after=149&wait=1m", nil); len(p.Events) != 1 {
		t.Errorf("%+v", p)
	}
}

// TestWaitsCount: a page that waits counts as a subscriber, and needs admission like
// one.
func TestWaitsCount(t *testing.T) {
	for limit, o := range map[int]server.Options{503: {Subscribers: 1}, 429: {SubscribersPerAddress: 1}} {
		n := start(t, o, nil)
		answer := n.wait(events + "?wait=1m")
		r, body := n.do("GET", events+"?wait=1m", acceptJSON, "")
		wantProblem(t, r, body, limit, "its limit of subscribers")
		if r.Header.Get("Retry-After") == "" {
			t.Errorf("%v", r.Header)
		}
		n.page(events, nil) // which does not wait
		n.publish("chat", "x", 1)
		if p := <-answer; len(p.Events) != 1 {
			t.Errorf("%+v", p)
		}
		eventually(t, "there is room again", func() bool {
			r, _ := n.do("GET", events+"?wait=1m", acceptJSON, "")
			return r.StatusCode == http.StatusOK
		})
	}
}

// TestWaitOfATokenThatExpires: the wait ends with its token.
func TestWaitOfATokenThatExpires(t *testing.T) {
	t.Parallel()
	n := guarded(t, auth.Options{Key: secret}, server.Options{})
	for lifetime := range longer(t, 3*time.Second) {
		header := bearerFor(t, lifetime)
		header["Accept"] = "application/json"
		begin := time.Now()
		r, body := n.do("GET", events+"?wait=1m", header, "")
		if r.StatusCode == http.StatusUnauthorized {
			continue // it has expired before the wait began
		}
		if took := time.Since(begin); r.StatusCode != http.StatusOK || !strings.Contains(body, `"events":[]`) || took > lifetime+30*time.Second {
			t.Errorf("after %v: %s %s", took, r.Status, body)
		}
		break
	}
}

// TestWaitOfAClientThatLeaves: the client is no longer a subscriber.
func TestWaitOfAClientThatLeaves(t *testing.T) {
	n := startHistory(t)
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", n.url+events+"?after=150&wait=1m", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	done := make(chan error)
	go func() {
		_, err := http.DefaultTransport.RoundTrip(r) //nolint:bodyclose // there is no answer
		done <- err
	}()
	eventually(t, "the request waits", func() bool { return n.hub.Stats().Subscribers == 1 })
	leave()
	if err := <-done; err == nil {
		t.Error("there was an answer")
	}
	eventually(t, "the wait has ended", func() bool { return n.hub.Stats().Subscribers == 0 })
}

// TestPagesWithoutTheStore: pages are refused while the store is away.
func TestPagesWithoutTheStore(t *testing.T) {
	var store *broken
	n := start(t, server.Options{}, func(s feed.Store) feed.Store {
		store = &broken{Store: s}
		return store
	})
	n.publish("chat", "a", 1)
	store.down.Store(true)
	for _, path := range []string{"", "?before=2", "?from=-1", "?from=2026-01-01T00:00:00Z", "/1"} {
		r, body := n.do("GET", events+path, acceptJSON, "")
		wantProblem(t, r, body, 503, "store")
		if r.Header.Get("Retry-After") == "" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, r.Header)
		}
	}
	store.down.Store(false)
	if p := n.page(events, nil); len(p.Events) != 1 {
		t.Errorf("%+v", p)
	}
}

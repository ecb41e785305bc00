package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// retriers publish to one feed of a cluster whose store goes away. What is
// refused they publish anew, under another name.
type retriers struct {
	c    *cluster
	feed string
	stop func()

	mu        sync.Mutex
	acked     int
	refused   map[string]bool // by what was sent: surely not stored
	uncertain int
	slowest   time.Duration // of the refusals
	faults    []error
}

// newRetriers has each node of the cluster published to. The name tells these
// publishers from others of the same feed.
func newRetriers(c *cluster, feed, name string, publishers int) *retriers {
	r := &retriers{c: c, feed: feed, refused: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for i, n := range c.nodes {
		for j := range publishers {
			work.Go(func() { r.run(ctx, n, fmt.Sprintf("%s, node %d publisher %d", name, i, j)) })
		}
	}
	r.stop = func() { cancel(); work.Wait() }
	c.t.Cleanup(r.stop)
	return r
}

func (r *retriers) run(ctx context.Context, n *process, name string) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for i := 1; ctx.Err() == nil; i++ {
		pause := 15 * time.Millisecond
		if !r.publish(client, n, fmt.Sprintf("%s event %d", name, i)) {
			pause = 200 * time.Millisecond // which is still impatient
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// publish publishes once and accounts for the answer.
func (r *retriers) publish(client *http.Client, n *process, data string) (ok bool) {
	began := time.Now()
	resp, err := client.Post(n.url+"/v1/feeds/"+r.feed+"/events", "text/plain", strings.NewReader(data))
	if err != nil {
		r.c.checker.Unsure(feed.Draft{Feed: r.feed, Data: data})
		r.fault(fmt.Errorf("publish: %w", err)) // the node lives, and has to answer
		return false
	}
	defer resp.Body.Close()
	now := time.Now()
	var answer struct {
		ID     feed.ID
		Detail string
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		r.fault(fmt.Errorf("publish: %s: %w", resp.Status, err))
	}
	if resp.StatusCode == http.StatusCreated {
		r.c.checker.Acked(feed.Event{Feed: r.feed, ID: answer.ID, Data: data})
		r.c.acknowledge(r.feed, answer.ID, began, now)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.acked++
		return true
	}
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		r.fault(fmt.Errorf("publish: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After")))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slowest = max(r.slowest, now.Sub(began))
	if strings.Contains(answer.Detail, "nothing was stored") {
		r.refused[data] = true
	} else {
		r.uncertain++
		r.c.checker.Unsure(feed.Draft{Feed: r.feed, Data: data})
	}
	return false
}

func (r *retriers) fault(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, err)
}

// await waits until n more events have been acknowledged.
func (r *retriers) await(n int) {
	r.c.t.Helper()
	acked := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.acked }
	want := acked() + n
	for deadline := time.Now().Add(time.Minute); acked() < want; {
		if time.Now().After(deadline) {
			r.c.t.Fatalf("publishing does not go on: %v", r)
		}
		time.Sleep(5 * time.Millisecond) // until more are acknowledged
	}
}

// awaitRefused waits until n publishes were refused, each by itself: a node that let them
// wait for its store, for the ten seconds that a publish may take, would need longer.
func (r *retriers) awaitRefused(n int) {
	r.c.t.Helper()
	refused := func() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.refused) }
	for deadline := time.Now().Add(30 * time.Second); refused() < n; {
		if time.Now().After(deadline) {
			r.c.t.Errorf("without the store, no %d publishes were refused within 30s: %v", n, r)
			return
		}
		time.Sleep(5 * time.Millisecond) // until more are refused
	}
}

func (r *retriers) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d acknowledged, %d refused, %d uncertain, the slowest refusal took %v",
		r.acked, len(r.refused), r.uncertain, r.slowest.Round(time.Millisecond))
}

// judge looks at what was answered, and compares it with what is stored.
func (r *retriers) judge(t *testing.T) {
	t.Helper()
	stored := make(map[string]bool)
	for _, e := range r.c.readFeed(r.feed).Events {
		if stored[e.Data] {
			t.Errorf("%q is stored twice", e.Data)
		}
		if r.refused[e.Data] {
			t.Errorf("%q was refused and is stored, as %d", e.Data, e.ID)
		}
		stored[e.Data] = true
	}
	for _, err := range r.faults {
		t.Error(err)
	}
	if len(r.refused) == 0 {
		t.Error("nothing was refused: the publishers did not notice the outage")
	}
}

// acknowledge notes when an event was acknowledged.
func (c *cluster) acknowledge(name string, id feed.ID, began, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acked[name] == nil {
		c.acked[name] = make(map[feed.ID]time.Time)
	}
	c.acked[name][id] = now
	c.took = append(c.took, now.Sub(began))
}

// held is a subscriber that comes while the store is away.
type held struct {
	mu         sync.Mutex
	status     string
	keepAlives int    // before the stream opened
	ids        string // of the events, each with a space
	err        error
}

// hold subscribes once, from the cursor or from now.
func hold(n *process, name, cursor string) *held {
	h := &held{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := h.read(ctx, n.url+"/v1/feeds/"+name+"/events", cursor)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.err = err
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	return h
}

func (h *held) read(ctx context.Context, url, cursor string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", cursor)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h.mu.Lock()
	h.status = resp.Status
	h.mu.Unlock()
	open, event := false, ""
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		h.mu.Lock()
		switch {
		case strings.HasPrefix(line, ":") && !open:
			h.keepAlives++
		case name == "event":
			event = value
			open = true
		case name == "id" && event == "":
			h.ids += value + " "
		case line == "\n":
			event = ""
		}
		h.mu.Unlock()
	}
}

// awaitKeepAlive waits until the subscriber has been accepted and has got a keep-alive.
func (h *held) awaitKeepAlive(t *testing.T) {
	t.Helper()
	waits := func() (status string, keepAlives int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.status, h.keepAlives
	}
	status, keepAlives := waits()
	for deadline := time.Now().Add(30 * time.Second); keepAlives == 0 && time.Now().Before(deadline); status, keepAlives = waits() {
		time.Sleep(5 * time.Millisecond) // until one has come
	}
	if status != "200 OK" || keepAlives == 0 {
		t.Errorf("a subscriber without the store: %q, and %d keep-alives", status, keepAlives)
	}
}

// demand demands that the subscriber gets exactly these events, over the one
// response.
func (h *held) demand(t *testing.T, from, to int) {
	t.Helper()
	want := ""
	for id := from; id <= to; id++ {
		want += fmt.Sprintf(" %d ", id)
	}
	var got string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		h.mu.Lock()
		got = h.ids
		err := h.err
		h.mu.Unlock()
		if err != nil && err != io.EOF || got == want {
			break
		}
		time.Sleep(5 * time.Millisecond) // until more has arrived
	}
	if got != want {
		t.Errorf("the subscriber that had to wait got %q, want %q (%v)", got, want, h.err)
	}
}

// demandEnd waits for the id, before which some may come, without a hole.
func (h *held) demandEnd(t *testing.T, to int) {
	t.Helper()
	var first int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // until more has arrived
		h.mu.Lock()
		ids := h.ids
		h.mu.Unlock()
		if _, err := fmt.Sscan(ids, &first); err == nil && strings.HasSuffix(ids, fmt.Sprintf(" %d ", to)) {
			break
		}
	}
	h.demand(t, max(first, 1), to)
}

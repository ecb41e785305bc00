package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestClusterEphemeral: an event that is not stored reaches those who are
// connected, to whichever node, in the order in which a node takes them, and
// leaves every cursor where it is.
func TestClusterEphemeral(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterEphemeral)
}

func testClusterEphemeral(t *testing.T, c *cluster) {
	c.start(2)
	c.mustPublish(c.nodes[0], "chat", "stored")
	var followers []*noted
	for _, n := range c.nodes {
		for _, path := range []string{"/v1/feeds/chat/events?from=start", "/v1/events?from=start&feed=chat,news"} {
			f := &noted{}
			f.source = &eventSource{url: always(n.url + path), take: f.take}
			f.source.start(t)
			f.await(t, "1,")
			followers = append(followers, f)
		}
	}
	awaitSubscribers(t, c, "chat", 4)
	for i, n := range c.nodes {
		for j := range 20 {
			call(t, http.MethodPost, n.url+"/v1/feeds/chat/events?ephemeral=true&type=typing", "text/plain", fmt.Sprintf("<%d of node %d>", j, i), http.StatusAccepted)
		}
	}
	for _, n := range c.nodes {
		call(t, http.MethodPost, n.url+"/v1/feeds/chat/events", "text/plain", "stored", http.StatusCreated)
	}
	for i, f := range followers {
		f.await(t, "3,")
		f.await(t, "<19 of node 0>")
		f.await(t, "<19 of node 1>")
		saw := f.saw()
		for node := range c.nodes {
			at := 0
			for j := range 20 {
				what := fmt.Sprintf("<%d of node %d>", j, node)
				next := strings.Index(saw[at:], what)
				if next < 0 || strings.Count(saw, what) != 1 {
					t.Errorf("subscriber %d did not see %s once, in order:\n%s", i, what, saw)
					break
				}
				at += next
			}
		}
		if want := map[bool]string{false: "3", true: "chat=3,news=0"}[i%2 == 1]; f.cursor() != want {
			t.Errorf("subscriber %d is at %s, want %s", i, f.cursor(), want)
		}
	}
	late := &noted{}
	late.source = &eventSource{url: always(c.nodes[1].url + "/v1/feeds/chat/events?from=start"), take: late.take}
	late.source.start(t)
	late.await(t, "3, ")
	if saw := late.saw(); saw != "feed.open , 1, 2, 3, " {
		t.Errorf("who comes later saw %s", saw)
	}
}

// TestClusterSubscribers: each node counts the subscribers of all nodes, and
// not those of one that was killed; so do the nodes' reports.
func TestClusterSubscribers(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterSubscribers)
}

func testClusterSubscribers(t *testing.T, c *cluster) {
	c.start(3)
	c.mustPublish(c.nodes[0], "chat", "stored")
	c.follow("chat", 2, c.nodes[0])
	c.follow("chat", 3, c.nodes[1])
	many := newManyRaw(always(c.nodes[2].url + "/v1/events?feed=news,chat"))
	leave := many.source.start(t)
	awaitOpen(t, func() bool { return many.opens() > 0 })
	awaitSubscribers(t, c, "chat", 6)
	reports := followReports(t, c.nodes[0])
	reports.await(t, 3, "chat", 6)
	leave()
	awaitSubscribers(t, c, "chat", 5)
	c.nodes[1].kill()
	c.nodes = append(c.nodes[:1:1], c.nodes[2])
	awaitSubscribers(t, c, "chat", 2)
	reports.await(t, 2, "chat", 2)
	c.stopSubscribers()
	awaitSubscribers(t, c, "chat", 0)
}

// awaitSubscribers waits until all nodes count as many subscribers. A node that
// is new to the others may be left out for two seconds.
func awaitSubscribers(t *testing.T, c *cluster, name string, want int) {
	t.Helper()
	deadline := time.Now().Add(promptly + time.Second)
	for i, n := range c.nodes {
		for {
			var info struct{ Subscribers int }
			began := time.Now()
			text := call(t, http.MethodGet, n.url+"/v1/feeds/"+name, "", "", http.StatusOK)
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > promptly {
				t.Errorf("node %d took %v to count", i, took)
			}
			if info.Subscribers == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("node %d counts %d subscribers, want %d", i, info.Subscribers, want)
			}
			time.Sleep(20 * time.Millisecond) // until the streams have come or gone
		}
	}
}

// TestClusterClose closes a feed on one node, with an event and without: the
// streams on both end cleanly, behind the last event, and who comes back is
// told to stay away by either.
func TestClusterClose(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterClose)
}

func testClusterClose(t *testing.T, c *cluster) {
	c.start(2)
	for _, last := range []string{"with", "without"} {
		c.mustPublish(c.nodes[0], last, "1")
		c.mustPublish(c.nodes[1], last, "2")
		var followers []*noted
		for i := range c.nodes {
			connections := 0
			f := &noted{}
			// It comes back to the other node.
			f.source = &eventSource{take: f.take, ended: f.end, url: func() string {
				connections++
				return c.nodes[(i+connections-1)%2].url + "/v1/feeds/" + last + "/events?from=start"
			}}
			f.source.start(t)
			f.await(t, "2, ")
			followers = append(followers, f)
		}
		want := "feed.open , 1, 2, "
		began := time.Now()
		if n := 2; last == "with" {
			n++
			want += fmt.Sprintf("%d, feed.closed {\"feed\":\"with\",\"last\":%[1]d}, the end <nil>, ", n)
			call(t, http.MethodPost, c.nodes[0].url+"/v1/feeds/with/events?close=true", "text/plain", "the last", http.StatusCreated)
		} else {
			want += fmt.Sprintf("feed.closed {\"feed\":\"without\",\"last\":%d}, the end <nil>, ", n)
			call(t, http.MethodPost, c.nodes[0].url+"/v1/feeds/without/close", "", "", http.StatusNoContent)
		}
		for i, f := range followers {
			f.await(t, "the end ")
			if took := time.Since(began); took > promptly {
				t.Errorf("%s an event: the stream at node %d ended after %v", last, i, took)
			}
		}
		for i, f := range followers {
			for deadline := time.Now().Add(30 * time.Second); f.source.status() == 0 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond) // until it has come back
			}
			if got := f.saw(); got != want || f.source.status() != http.StatusNoContent {
				t.Errorf("%s an event, at node %d: saw\n%s\nwant\n%s\n%v", last, i, got, want, f.source)
			}
		}
		for i, n := range c.nodes {
			if text := call(t, http.MethodPost, n.url+"/v1/feeds/"+last+"/events", "text/plain", "late", http.StatusConflict); !strings.Contains(text, "closed") {
				t.Errorf("node %d: %s", i, text)
			}
			call(t, http.MethodPost, n.url+"/v1/feeds/"+last+"/events?ephemeral=true", "text/plain", "late", http.StatusConflict)
		}
	}
}

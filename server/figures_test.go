package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// reported is what a test reads of a report.
type reported struct {
	Node, Name, Version string
	Subscribers, Feeds  int
	Published           *float64
	Delivered           *float64
	Delivery, Commit    *struct{ P50, P99 float64 }
	Memory              struct{ Used, Limit int64 }
	Store, Bus          struct {
		Up     bool
		Reason string
	}
	Followed map[string]int
	Unnamed  bool
}

// report returns the next report.
func (f *follower) report() (r reported) {
	f.t.Helper()
	block := f.block()
	data, ok := strings.CutPrefix(block, "event: node\ndata: ")
	if !ok || strings.Contains(block, "id:") {
		f.t.Fatalf("got the block %q", block)
	}
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		f.t.Fatal(err)
	}
	return r
}

const nodes = "/v1/feeds/" + feed.NodesFeed

// TestFigures: a report has the node's figures, also while the store is away.
func TestFigures(t *testing.T) {
	t.Parallel()
	n, store := startAway(t, server.Options{Node: "here", Version: "v1"})
	n.follow(events, nil).want(open("chat", 0, 1, 0))
	reports := n.follow(nodes+"/events", nil)
	reports.want(open(feed.NodesFeed, 0, 1, 0))
	first := reports.report()
	if first.Published != nil || first.Delivered != nil || first.Delivery != nil || first.Commit != nil {
		t.Errorf("the first report has rates: %+v", first)
	}
	if first.Node != n.hub.Node() || first.Name != "here" || first.Version != "v1" || first.Subscribers != 2 || first.Feeds != 2 ||
		first.Memory.Used <= 0 || first.Memory.Limit != feed.DefaultMemory || first.Unnamed || !first.Store.Up || !first.Bus.Up || fmt.Sprint(first.Followed) != "map[chat:1]" {
		t.Errorf("got %+v", first)
	}
	for id := 1; id <= 10; id++ {
		n.publish("chat", "x", feed.ID(id))
	}
	// One report may have the publishing, and the next one the deliveries.
	var published, delivered, commit, delivery bool
	for !published || !delivered || !commit || !delivery {
		r := reports.report()
		if r.Published == nil || r.Delivered == nil || r.Commit != nil && (r.Commit.P50 <= 0 || r.Commit.P99 < r.Commit.P50) {
			t.Fatalf("got %+v", r)
		}
		published, delivered = published || *r.Published > 0, delivered || *r.Delivered > 0
		commit, delivery = commit || r.Commit != nil, delivery || r.Delivery != nil
	}
	for idle := reports.report(); *idle.Published > 0 || *idle.Delivered > 0 || idle.Commit != nil || idle.Delivery != nil; {
		idle = reports.report()
	}
	store.down.Store(true)
	for away := reports.report(); away.Store.Up || away.Store.Reason == "" || !away.Bus.Up; away = reports.report() {
		if !away.Store.Up {
			t.Fatalf("got %+v", away)
		}
	}
	newcomer := n.follow(nodes+"/events", nil)
	newcomer.want(open(feed.NodesFeed, 0, 1, 0))
	newcomer.report()
}

// TestFiguresAreBounded: however many feeds are followed, and however long their names are,
// a report names a few.
func TestFiguresAreBounded(t *testing.T) {
	t.Parallel()
	for length, most := range map[int]int{10: 50, 250: 16} {
		n := start(t, server.Options{}, nil)
		for i := range 60 {
			if _, err := n.hub.Subscribe(t.Context(), fmt.Sprintf("%0*d", length, i), feed.From{}); err != nil {
				t.Fatal(err)
			}
		}
		reports := n.follow(nodes+"/events", nil)
		reports.want(open(feed.NodesFeed, 0, 1, 0))
		if r := reports.report(); len(r.Followed) != most || !r.Unnamed {
			t.Errorf("of 60 feeds with %d characters, %d are named, and there are more: %t", length, len(r.Followed), r.Unnamed)
		}
	}
}

// TestReserved: feeds of the server take nothing from clients, are not listed, and need the
// right to list.
func TestReserved(t *testing.T) {
	t.Parallel()
	n := guarded(t, auth.Options{Key: secret}, server.Options{})
	everything := bearer(tokenFor(t, auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}, Close: []string{"*"}, Admin: true}))
	reader := bearer(tokenFor(t, auth.Rights{Subscribe: []string{"*"}, Publish: []string{"chat"}}))
	const rule = `feed names that begin with \"feed.\" belong to the server`
	const line = `{"feed":"feed.x","data":1}`
	for _, test := range []struct {
		name, method, path, contentType, body string
		status                                int
		says                                  string
	}{
		{"publish", "POST", nodes + "/events", "", "x", 400, rule},
		{"another name", "POST", "/v1/feeds/feed.x/events", "", "x", 400, rule},
		{"ephemeral", "POST", nodes + "/events?ephemeral=true", "", "x", 400, rule},
		{"batch", "POST", nodes + "/events", "application/x-ndjson", line, 400, rule},
		{"batch of many feeds", "POST", "/v1/events", "application/x-ndjson", `{"feed":"chat","data":1}` + "\n" + line, 400, "line 2: " + rule},
		{"stream", "POST", nodes + "/events", "text/event-stream", "data: x\n\n", 400, rule},
		{"stream of lines", "POST", nodes + "/events?stream=true", "application/x-ndjson", line, 400, rule},
		{"close", "POST", nodes + "/close", "", "", 400, rule},
		{"delete", "DELETE", nodes, "", "", 400, rule},
		{"trim", "DELETE", nodes + "/events?before=3", "", "", 400, rule},
		{"page", "GET", nodes + "/events?limit=5", "", "", 200, `"events":[]`},
		{"list", "GET", "/v1/feeds", "", "", 200, `{"feeds":[]}`},
		{"list by prefix", "GET", "/v1/feeds?prefix=feed.", "", "", 200, `{"feeds":[]}`},
		{"describe", "GET", nodes, "", "", 404, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := map[string]string{"Content-Type": test.contentType, "Accept": "application/json", "Authorization": everything["Authorization"]}
			r, body := n.do(test.method, test.path, header, test.body)
			if r.StatusCode != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%s %s, want %d with %q", r.Status, body, test.status, test.says)
			}
		})
	}
	for path, header := range map[string]map[string]string{
		nodes + "/events":                 reader,
		nodes + "/stream":                 reader,
		nodes:                             reader,
		"/v1/events?feed=chat,feed.nodes": reader,
	} {
		if r, body := n.head("GET", path, header, ""); r.StatusCode != http.StatusForbidden || !strings.Contains(body, "needs a token with admin") {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
	admin := bearer(tokenFor(t, auth.Rights{Admin: true}))
	n.follow(nodes+"/events", admin).want(open(feed.NodesFeed, 0, 1, 0))
	n.follow("/v1/events?feed=chat,feed.nodes", everything)
}

// TestForwardReserved: the application is asked about a feed of the server as about the
// list of feeds.
func TestForwardReserved(t *testing.T) {
	t.Parallel()
	n, a := asking(t, auth.ForwardOptions{}, server.Options{})
	n.follow(nodes+"/events", nil).want(open(feed.NodesFeed, 0, 1, 0))
	if got := fmt.Sprint(a.take()); got != "[admin feed.nodes]" {
		t.Errorf("asked %s", got)
	}
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"rejoin":{"subscribe":["*"]}}`)
	})
	header := map[string]string{"Cookie": "session=other"}
	for _, path := range []string{nodes + "/events", "/v1/events?feed=chat,feed.nodes"} {
		if r, body := n.head("GET", path, header, ""); r.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s %s", path, r.Status, body)
		}
	}
}

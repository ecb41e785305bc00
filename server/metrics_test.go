package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

func TestMetrics(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for id := range feed.ID(3) {
		n.publish("chat", "x", id+1)
	}
	f := n.follow(events+"?lastEventId=7", nil) // ahead
	f.block()
	f.block()
	g := n.follow(events+"?from=start", nil)
	for range 4 {
		g.block()
	}
	n.publish("chat", "y", 4)
	f.block()
	g.block()

	metrics := httptest.NewRecorder()
	server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Refused: func() uint64 { return 5 }}).
		ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var got []string
	for line := range strings.Lines(metrics.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, some.ReplaceAllString(strings.TrimSpace(line), "$1 N"))
		}
	}
	slices.Sort(got)
	want := []string{
		`rejoin_bus_refused_total 5`,
		`rejoin_bus_repairs_total 0`,
		`rejoin_bus_up 1`,
		`rejoin_events_delivered_total 5`,
		`rejoin_events_published_total 4`,
		`rejoin_gaps_total{reason="ahead"} 1`,
		`rejoin_gaps_total{reason="trimmed"} 0`,
		`rejoin_memory_bytes{holder="bus"} N`,
		`rejoin_memory_bytes{holder="logs"} N`,
		`rejoin_memory_bytes{holder="pages"} 0`,
		`rejoin_memory_bytes{holder="publishes"} 0`,
		`rejoin_memory_bytes{holder="replays"} N`,
		`rejoin_memory_bytes{holder="streams"} 0`,
		`rejoin_memory_limit_bytes{holder="bus"} 8.388608e+06`,
		`rejoin_memory_limit_bytes{holder="logs"} 8.388608e+07`,
		`rejoin_memory_limit_bytes{holder="pages"} 2.5165824e+07`,
		`rejoin_memory_limit_bytes{holder="publishes"} 6.7108864e+07`,
		`rejoin_memory_limit_bytes{holder="replays"} 1.6777216e+07`,
		`rejoin_memory_limit_bytes{holder="streams"} 1.6777216e+07`,
		`rejoin_publish_waiting 0`,
		`rejoin_replayed_events_total{source="bus"} 0`,
		`rejoin_replayed_events_total{source="log"} 2`,
		`rejoin_replayed_events_total{source="store"} 3`,
		`rejoin_store_up 1`,
		`rejoin_subscribers 2`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// some matches the figures that differ each time.
var some = regexp.MustCompile(`(rejoin_memory_bytes{holder="(?:bus|logs|replays)"}) .*`)

func TestAppendMetrics(t *testing.T) {
	n := start(t, server.Options{}, nil)
	appends := server.NewAppends()
	appends.Observe(3*time.Millisecond, 1)
	appends.Observe(time.Minute, 5000)
	metrics := httptest.NewRecorder()
	server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Appends: appends}).
		ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`rejoin_append_seconds_bucket{le="0.002"} 0`,
		`rejoin_append_seconds_bucket{le="0.005"} 1`,
		`rejoin_append_seconds_bucket{le="10"} 1`,
		`rejoin_append_seconds_sum 60.003`,
		`rejoin_append_seconds_count 2`,
		`rejoin_append_batch_events_bucket{le="1"} 1`,
		`rejoin_append_batch_events_bucket{le="4096"} 1`,
		`rejoin_append_batch_events_bucket{le="+Inf"} 2`,
		`rejoin_append_batch_events_sum 5001`,
	} {
		if !strings.Contains(metrics.Body.String(), line+"\n") {
			t.Errorf("%s is not in\n%s", line, metrics.Body)
		}
	}
}

// TestDeliveryMetrics: the delays are those of new events. History does not count.
func TestDeliveryMetrics(t *testing.T) {
	n := start(t, server.Options{Subscribers: 4}, nil)
	for id := range feed.ID(3) {
		n.publish("chat", "old", id+1)
	}
	streams := []*follower{
		n.follow(events+"?from=start", nil),
		n.follow("/v1/events?feed=chat,news&from=start", nil),
		n.follow(events+"?types=other", nil),
		n.follow(events+"?lastEventId=9", nil), // ahead
	}
	for range 4 {
		streams[0].block()
		streams[1].block()
	}
	streams[2].block()
	streams[3].block()
	streams[3].block()
	n.publish("chat", "new", 4)
	if r, body := n.do("POST", events+"?ephemeral=true", nil, "typing"); r.StatusCode != 202 {
		t.Fatal(r.Status, body)
	}
	n.publish("chat", "new", 5)
	wantShed(t, n.url, events)
	n.Drain(t.Context(), 0)
	for _, f := range streams {
		_, _ = io.Copy(io.Discard, f.r) // until its handler has ended
	}
	scrape := func() string {
		metrics := httptest.NewRecorder()
		server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Server: n.Server}).
			ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return metrics.Body.String()
	}
	got := scrape()
	count := regexp.MustCompile(`(?m)^rejoin_delivery_seconds_count (\d+)$`).FindStringSubmatch(got)
	// Two events to three streams that show them; both may leave in one write.
	if count == nil || count[1] < "3" || count[1] > "6" || len(count[1]) > 1 {
		t.Errorf("%v writes, want 3 to 6, in\n%s", count, got)
	}
	for _, line := range []string{"rejoin_shed_total 1", `rejoin_delivery_seconds_bucket{le="30"} ` + count[1]} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%s is not in\n%s", line, got)
		}
	}
}

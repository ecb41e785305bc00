package server_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/server"
)

func TestMetrics(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for id := range uint64(3) {
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
			got = append(got, strings.TrimSpace(line))
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

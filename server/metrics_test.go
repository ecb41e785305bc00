package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
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
	server.Metrics(server.Sources{
		Hub: n.hub, Publisher: n.publisher, Refused: func() uint64 { return 5 }, EnqueueRefused: func() uint64 { return 6 },
		Redis: &feed.Durations{}, Version: "v1.2.3",
	}).ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var got []string
	for line := range strings.Lines(metrics.Body.String()) {
		if strings.HasPrefix(line, "rejoin_") && !inHistogram.MatchString(line) {
			got = append(got, some.ReplaceAllString(strings.TrimSpace(line), "$1 N"))
		}
	}
	slices.Sort(got)
	want := []string{
		`rejoin_build_info{goversion="` + runtime.Version() + `",version="v1.2.3"} 1`,
		`rejoin_bus_refused_total 5`,
		`rejoin_bus_repairs_total 0`,
		`rejoin_bus_up 1`,
		`rejoin_enqueue_refused_total 6`,
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
		`rejoin_memory_limit_bytes{holder="logs"} 7.5497472e+07`,
		`rejoin_memory_limit_bytes{holder="pages"} 1.6777216e+07`,
		`rejoin_memory_limit_bytes{holder="publishes"} 6.7108864e+07`,
		`rejoin_memory_limit_bytes{holder="replays"} 1.6777216e+07`,
		`rejoin_memory_limit_bytes{holder="streams"} 1.6777216e+07`,
		`rejoin_publish_waiting 0`,
		`rejoin_publish_waiting_bytes 0`,
		`rejoin_redis_seconds_count 0`,
		`rejoin_replayed_events_total{source="bus"} 0`,
		`rejoin_replayed_events_total{source="log"} 2`,
		`rejoin_replayed_events_total{source="store"} 3`,
		`rejoin_retention_failures_total 0`,
		`rejoin_retention_rounds_total 0`,
		`rejoin_retention_trimmed_events_total 0`,
		`rejoin_retention_trims_total 0`,
		`rejoin_store_compared_timestamp_seconds N`,
		`rejoin_store_seconds_count{call="append"} N`,
		`rejoin_store_seconds_count{call="bounds"} N`,
		`rejoin_store_seconds_count{call="compare"} N`,
		`rejoin_store_seconds_count{call="list"} 0`,
		`rejoin_store_seconds_count{call="read"} N`,
		`rejoin_store_seconds_count{call="seek"} 0`,
		`rejoin_store_seconds_count{call="sweep"} 0`,
		`rejoin_store_seconds_count{call="trim"} 0`,
		`rejoin_store_up 1`,
		`rejoin_subscribers 2`,
		`rejoin_worker_backlog 0`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// some matches the figures that differ each time, and inHistogram those of histograms
// that are not counts.
var (
	some = regexp.MustCompile(`(rejoin_memory_bytes{holder="(?:bus|logs|replays)"}|rejoin_store_seconds_count{call="(?:append|bounds|compare|read)"}|` +
		`rejoin_store_compared_timestamp_seconds) .*`)
	inHistogram = regexp.MustCompile(`^rejoin_\w+_(bucket|sum)\b`)
)

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
	count := regexp.MustCompile(`(?m)^rejoin_delivery_seconds_count{path="log"} (\d+)$`).FindStringSubmatch(got)
	// Two events to three streams that show them; both may leave in one write.
	if count == nil || count[1] < "3" || count[1] > "6" || len(count[1]) > 1 {
		t.Errorf("%v writes, want 3 to 6, in\n%s", count, got)
	}
	for _, line := range []string{"rejoin_shed_total 1", `rejoin_delivery_seconds_bucket{path="log",le="30"} ` + count[1], `rejoin_delivery_seconds_count{path="store"} 0`} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("%s is not in\n%s", line, got)
		}
	}
}

// TestServerMetrics: requests, refusals and streams are counted by the route, the status
// and the reason that they really had.
func TestServerMetrics(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "x", 1)
	n.do("POST", events, map[string]string{"If-Match": `"7"`}, "y")
	n.do("POST", "/v1/feeds/Bad/events?ephemeral=7", nil, "y")
	n.do("GET", events+"?limit=1", map[string]string{"Accept": "application/json"}, "")
	n.do("GET", "/v1/feeds/none/events/1", nil, "")
	n.do("GET", "/nowhere/"+strings.Repeat("x", 50), nil, "")
	n.do("PUT", events, nil, "")
	ended := n.follow(events+"?from=start", nil)
	ended.block()
	n.do("POST", "/v1/feeds/chat/close", nil, "")
	n.do("POST", events, nil, "late")
	open := n.follow("/v1/feeds/news/events", nil)
	open.block()
	_, _ = io.Copy(io.Discard, ended.r) // last: its connection takes no other request
	want := []string{
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events",status="201"} 1`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events",status="200"} 3`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events",status="412"} 1`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events",status="400"} 1`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events",status="409"} 1`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/events/{id}",status="404"} 1`,
		`rejoin_http_requests_total{route="/v1/feeds/{feed}/close",status="204"} 1`,
		`rejoin_http_requests_total{route="other",status="404"} 1`,
		`rejoin_http_requests_total{route="other",status="405"} 1`,
		`rejoin_refused_total{reason="precondition"} 1`,
		`rejoin_refused_total{reason="invalid"} 1`,
		`rejoin_refused_total{reason="not_found"} 1`,
		`rejoin_refused_total{reason="path"} 1`,
		`rejoin_refused_total{reason="method"} 1`,
		`rejoin_refused_total{reason="closed"} 1`,
		`rejoin_streams_opened_total 2`,
		`rejoin_streams_ended_total{reason="closed"} 1`,
		`rejoin_streams_ended_total{reason="draining"} 0`,
		`rejoin_slow_subscribers 0`,
	}
	n.wantMetrics(t, want)
	n.Drain(t.Context(), 0)
	n.wantMetrics(t, []string{`rejoin_streams_opened_total 2`, `rejoin_streams_ended_total{reason="draining"} 1`})
}

// wantMetrics waits until the metrics have these lines: an answer counts when its
// handler returns, which the client does not see.
func (n *node) wantMetrics(t *testing.T, lines []string) {
	t.Helper()
	handler := server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Server: n.Server})
	for deadline := time.Now().Add(prompt); ; {
		metrics := httptest.NewRecorder()
		handler.ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		missing := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.Contains(metrics.Body.String(), line+"\n") })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s\nare not in\n%s", strings.Join(missing, "\n"), metrics.Body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSlowSubscribers: a client that does not read counts until it reads again.
func TestSlowSubscribers(t *testing.T) {
	n := start(t, server.Options{}, nil)
	f := n.follow(events, nil)
	f.block()
	big := strings.Repeat("x", 50_000)
	published := 0
	for deadline := time.Now().Add(prompt); n.metric(t, "rejoin_slow_subscribers") == "0"; {
		if time.Now().After(deadline) {
			t.Fatal("a client that does not read is not slow")
		}
		published++
		n.publish("chat", big, feed.ID(published))
	}
	for range published {
		f.block()
	}
	n.wantMetrics(t, []string{"rejoin_slow_subscribers 0"})
	if n.metric(t, `rejoin_delivery_seconds_count{path="log"}`) == "0" {
		t.Error("no write from the log was measured")
	}
}

// metric returns the value of a metric.
func (n *node) metric(t *testing.T, name string) string {
	t.Helper()
	metrics := httptest.NewRecorder()
	server.Metrics(server.Sources{Hub: n.hub, Publisher: n.publisher, Server: n.Server}).
		ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(metrics.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}

package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// span is what the test looks at in a span.
type span struct {
	node, name, trace, id, parent string
}

// spanCollector receives spans as a collector does, over OTLP/HTTP.
type spanCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []span
}

func startSpanCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range request.ResourceSpans {
			node := ""
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					node = a.Value.GetStringValue()
				}
			}
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					if s.EndTimeUnixNano < s.StartTimeUnixNano {
						t.Errorf("%s ends before it begins", s.Name)
					}
					c.spans = append(c.spans, span{node, s.Name, hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId)})
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// find waits for a span of a trace, for a time.
func (c *spanCollector) find(trace, node, name string, limit time.Duration) (found span, ok bool) {
	for deadline := time.Now().Add(limit); ; {
		c.mu.Lock()
		i := slices.IndexFunc(c.spans, func(s span) bool { return s.trace == trace && s.node == node && s.name == name })
		if i >= 0 {
			found = c.spans[i]
		}
		c.mu.Unlock()
		if i >= 0 || time.Now().After(deadline) {
			return found, i >= 0
		}
		time.Sleep(5 * time.Millisecond) // until the node has sent it
	}
}

// await demands a span of a trace and returns it.
func (c *spanCollector) await(t *testing.T, trace, node, name string) span {
	t.Helper()
	s, ok := c.find(trace, node, name, 30*time.Second)
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		t.Fatalf("no span %s of %s: %+v", name, node, c.spans)
	}
	return s
}

// TestTraces: what happens to an event on two nodes is one trace, which the publisher has
// begun. Without a sampled trace, there are no spans.
func TestTraces(t *testing.T) {
	t.Parallel()
	spans := startSpanCollector(t)
	c := newCluster(t)
	for _, name := range []string{"here", "there"} {
		c.startNode(c.bus(), "OTEL_EXPORTER_OTLP_ENDPOINT="+spans.URL, "OTEL_SERVICE_NAME="+name,
			"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_TRACES_SAMPLER=parentbased_always_off")
	}
	here, there := c.nodes[0], c.nodes[1]
	c.follow("chat", 3, there)
	publishTraced := func(traceparent string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, here.url+"/v1/feeds/chat/events", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("traceparent", traceparent)
		if status, body := do(t, req); status != http.StatusCreated {
			t.Fatalf("%d %s", status, body)
		}
	}
	const traces, parent, untraced = "0af7651916cd43dd8448eb211c8031", "b7ad6b7169203331", "1af7651916cd43dd8448eb211c80319c"
	publishTraced("00-" + untraced + "-" + parent + "-00")
	// A node that has read an event from the store before the bus told it, as happens on a
	// busy machine, knows of no trace.
	trace := ""
	for n := range 10 {
		trace = fmt.Sprintf("%s%02d", traces, n)
		publishTraced("00-" + trace + "-" + parent + "-01")
		if _, told := spans.find(trace, "there", "deliver", 3*time.Second); told {
			break
		}
	}
	published := spans.await(t, trace, "here", "publish")
	if published.parent != parent {
		t.Errorf("the publish is below %s, not below the span of its client", published.parent)
	}
	for _, want := range []struct{ node, name string }{{"here", "commit"}, {"here", "tell"}, {"there", "deliver"}} {
		if s := spans.await(t, trace, want.node, want.name); s.parent != published.id {
			t.Errorf("%s is below %s, not below the publish", s.name, s.parent)
		}
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	if i := slices.IndexFunc(spans.spans, func(s span) bool { return !strings.HasPrefix(s.trace, traces) }); i >= 0 {
		t.Errorf("a span of a publish that is not sampled: %+v", spans.spans[i])
	}
	if history := readHistory(t, there.url, "chat"); strings.Contains(string(history.Events[1]), traces) {
		t.Errorf("the trace is stored: %s", history.Events[1])
	}
}

package server

import (
	"net/http"
	"strings"
	"testing"
)

// TestHeadOrder: wherever a head is cut after its first fields, a browser that accepts
// the rest still sees an event stream, and comes back.
func TestHeadOrder(t *testing.T) {
	header := http.Header{"Content-Type": {"text/event-stream"}, "Location": {"/v1/feeds/chat/stream"}}
	for _, name := range []string{"A", "Cache-Control", "X-Accel-Buffering", "Z"} {
		header.Set(name, "x")
	}
	for range 100 { // the order of a map differs each time
		lines := strings.Split(string(appendHead(nil, header, true)), "\r\n")
		if lines[1] != "Content-Type: text/event-stream" || lines[len(lines)-3] != "Location: /v1/feeds/chat/stream" {
			t.Fatalf("got %q", lines)
		}
	}
}

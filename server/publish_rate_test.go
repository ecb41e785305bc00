package server_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// TestPublishesPerSecond: beyond the limit, nothing is stored, and the client learns when
// to come back. Closing and deleting do not count.
func TestPublishesPerSecond(t *testing.T) {
	t.Parallel()
	n := guarded(t, auth.Options{Key: secret}, server.Options{PublishesPerSecond: 2})
	header := bearer(tokenOf(t, "ann"))
	lines := bearer(tokenOf(t, "ann"))
	lines["Content-Type"] = linesMedia
	if r, body := n.do("POST", events, lines, strings.Repeat(`{"data":"x"}`+"\n", 1000)); r.StatusCode != http.StatusCreated {
		t.Fatal(r.Status, body)
	}
	for _, c := range []struct {
		path   string
		header map[string]string
		body   string
	}{
		{events, header, "x"}, {events + "?ephemeral=true", header, "x"}, {events, lines, `{"data":"x"}`}, {batches, lines, `{"feed":"chat","data":"x"}`},
	} {
		r, body := n.do("POST", c.path, c.header, c.body)
		wantProblem(t, r, body, http.StatusTooManyRequests, "nothing was stored")
		// The debt is 990, and 2 a second are paid back.
		if after, _ := strconv.Atoi(r.Header.Get("Retry-After")); after < 400 || after > 496 {
			t.Errorf("%s: Retry-After %s", c.path, r.Header.Get("Retry-After"))
		}
	}
	if n.Refused("rate") != 4 {
		t.Errorf("%d refusals are counted", n.Refused("rate"))
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/v1/feeds/other/close"}, {"DELETE", events + "?before=3"}, {"DELETE", "/v1/feeds/other"}, {"GET", events + "/1000"},
	} {
		if r, body := n.do(c.method, c.path, header, ""); r.StatusCode >= 300 {
			t.Errorf("%s %s: %s %s", c.method, c.path, r.Status, body)
		}
	}
	if b, err := n.hub.Read(t.Context(), "chat", 0, feed.Limit{Events: 1, Bytes: 1}); err != nil || b.Last != 1000 {
		t.Errorf("the last event is %d, %v", b.Last, err)
	}
}

// TestStreamPublishesPerSecond: a published stream waits for its turn, however long, and
// loses nothing.
func TestStreamPublishesPerSecond(t *testing.T) {
	t.Parallel()
	for idle := range longer(t, 200*time.Millisecond) {
		n := start(t, server.Options{PublishesPerSecond: 100, PublishIdle: idle}, nil)
		beyond := int(5 * idle.Seconds() * 100) // for five times as long as a body may be silent
		began := time.Now()
		r, body := n.do("POST", events, map[string]string{"Content-Type": "text/event-stream"}, strings.Repeat("data: x\n\n", 500+beyond))
		if r.StatusCode == http.StatusRequestTimeout {
			continue // the machine may have been that slow to send it
		}
		if r.StatusCode != http.StatusCreated || !strings.Contains(body, fmt.Sprintf(`"last":%d,"events":%[1]d`, 500+beyond)) {
			t.Fatal(r.Status, body)
		}
		if took := time.Since(began); took < 9*idle/2 {
			t.Errorf("%d events beyond the 500 of a burst took %v", beyond, took)
		}
		break
	}
}

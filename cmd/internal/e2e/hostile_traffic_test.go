package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	hostileForms     = 800  // feeds that are followed in every form there is
	hostileFew       = 6    // events of each
	hostileFeeds     = 3000 // feeds of one large event
	hostileFar       = 2000 // readers, and events of their feed
	hostileEvent     = 9000 // bytes of an event that grows to six times as many
	hostileLarge     = 59_000
	hostilePages     = 300
	hostileWide      = 300
	hostileWidth     = 83
	hostileBatch     = 996
	hostileQuery     = 30_000
	hostileImpatient = 1000
)

// controls is text that has six times as many bytes in JSON.
func controls(n int) string { return strings.Repeat("\x01", n) }

// feedsOf names feeds, as many as a connection follows from a number on.
func feedsOf(prefix string, from, count int) string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprint(prefix, from+i)
	}
	return strings.Join(names, ",")
}

// prepare publishes what is there before anybody comes.
func (h *hostile) prepare() {
	began := time.Now()
	var lines []hostileLine
	for i := range h.some(hostileForms) * hostileFew {
		lines = append(lines, hostileLine{fmt.Sprint("form", i/hostileFew), fmt.Sprint("kind", i%4), controls(hostileEvent)})
	}
	for i := range h.some(hostileFar) {
		lines = append(lines, hostileLine{"far", "", controls(hostileEvent/2) + fmt.Sprint(i)})
	}
	for i := range h.some(hostileFeeds) {
		lines = append(lines, hostileLine{fmt.Sprint("one", i), "", strings.Repeat("x", hostileLarge)})
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	const most = 3 << 20 // of a batch
	var body strings.Builder
	send := func() {
		if status, err := h.post(h.t.Context(), client, "/v1/events", "application/x-ndjson", body.String(), ""); status != http.StatusCreated {
			h.t.Fatalf("publish what is there before: %d, %v", status, err)
		}
		body.Reset()
	}
	for i, line := range lines {
		if body.WriteString(line.String()); body.Len() > most || i == len(lines)-1 {
			send()
		}
	}
	h.t.Logf("%d events were there before, after %.0f s", len(lines), time.Since(began).Seconds())
}

// hostileLine is an event of a batch.
type hostileLine struct{ feed, kind, data string }

func (l hostileLine) String() string {
	line := map[string]string{"feed": l.feed, "data": l.data}
	if l.kind != "" {
		line["type"] = l.kind
	}
	text, _ := json.Marshal(line) // strings always can be
	return string(text) + "\n"
}

// startReaders starts all streams and pages.
func (h *hostile) startReaders(ctx context.Context) {
	// Every form of the same events: two manners, four filters.
	const group = 100
	for i := range h.some(hostileForms) / group {
		for form := range 8 {
			accept, query := "text/event-stream", url.Values{"feed": {feedsOf("form", i*group, group)}, "from": {"start"}}
			if form%2 == 1 {
				accept = "application/x-ndjson"
			}
			if form > 1 {
				query.Set("types", fmt.Sprintf("message,kind%d,kind%d", form%4, form/2))
			}
			h.reader(ctx, reads, "/v1/events?"+query.Encode(), accept)
		}
	}
	// All feeds of one large event.
	for i := range h.some(hostileFeeds) / group {
		h.reader(ctx, reads, "/v1/events?from=start&feed="+feedsOf("one", i*group, group), "text/event-stream")
	}
	// Those that stand still, far apart, in two forms.
	for i := range h.some(hostileFar) {
		path := fmt.Sprintf("/v1/feeds/far/events?lastEventId=%d", i)
		if i%2 == 1 {
			path += "&envelope=true"
		}
		h.reader(ctx, stands, path, "text/event-stream")
	}
	for range h.some(hostilePages) {
		h.reader(ctx, leaves, "/v1/feeds/far/events?limit=1000&after=0", "application/json")
	}
	for range h.some(hostileWide) {
		h.reader(ctx, reads, "/v1/events?feed="+feedsOf("wide", 0, hostileWidth), "text/event-stream")
	}
}

// The manners of readers.
const (
	reads  = iota
	stands // reads nothing until it is cut off, and comes again
	leaves // reads nothing, and comes again after some seconds
)

// reader comes, again and again, until ctx ends.
func (h *hostile) reader(ctx context.Context, manner int, path, accept string) {
	request := "GET " + path + " HTTP/1.1\r\nHost: " + h.address + "\r\nAccept: " + accept + "\r\n\r\n"
	h.work.Go(func() {
		_ = sleep(ctx, rand.N(2*time.Second)) // they do not come all at once
		for ctx.Err() == nil {
			h.readOnce(ctx, manner, request)
			_ = sleep(ctx, 100*time.Millisecond+rand.N(400*time.Millisecond)) // the loop looks at ctx
		}
	})
}

func (h *hostile) readOnce(ctx context.Context, manner int, request string) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if manner != reads {
		dialer.Control = narrow
	}
	conn, err := dialer.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return // the others say why
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, request); err != nil {
		return
	}
	if manner != leaves {
		h.streams.Add(1)
		defer h.streams.Add(-1)
	}
	switch manner {
	case reads:
		_, _ = io.Copy(io.Discard, conn)
	case stands:
		h.awaitCut(ctx, conn.(*net.TCPConn))
	case leaves:
		_ = sleep(ctx, 5*time.Second+rand.N(10*time.Second)) // either way, it leaves
	}
}

// awaitCut waits until the server has broken a connection off, without reading
// from it.
func (h *hostile) awaitCut(ctx context.Context, conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for cut := false; !cut && sleep(ctx, time.Second) == nil; {
		err := raw.Control(func(fd uintptr) {
			code, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
			cut = code != 0 || err != nil
		})
		cut = cut || err != nil
	}
}

// startPublishers starts those that publish whether the store stands still or
// not.
func (h *hostile) startPublishers(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	context.AfterFunc(ctx, client.CloseIdleConnections)
	every := func(pause time.Duration, publish func(n int)) {
		h.work.Go(func() {
			for n := 0; sleep(ctx, pause) == nil; n++ {
				publish(n)
			}
		})
	}
	// Patient ones: each waits for its answer, and is asked to come back.
	for i := range 8 {
		every(100*time.Millisecond, func(n int) {
			began := time.Now()
			status, err := h.post(context.Background(), client, fmt.Sprint("/v1/feeds/patient", i, "/events"), "text/plain", strings.Repeat("p", 100), "")
			h.answers.add(status, time.Since(began), err)
		})
	}
	// Events that are not stored, in every form.
	for i := range 16 {
		every(20*time.Millisecond, func(n int) {
			at := fmt.Sprintf("/v1/feeds/form%d/events?ephemeral=true&type=kind%d", (n*16+i)%h.some(hostileForms), n%4)
			_, _ = h.post(ctx, client, at, "text/plain", controls(hostileEvent), "") // it may be lost
		})
	}
	// Requests that are much longer than the events that they carry.
	for i := range 8 {
		every(40*time.Millisecond, func(n int) {
			at := fmt.Sprintf("/v1/feeds/query%d/events?type=kind%d&padding=%s", i, n, strings.Repeat("q", hostileQuery))
			_, _ = h.post(ctx, client, at, "text/plain", "q", "") // what is kept of it is what matters
		})
	}
	// Batches of small events for wide streams.
	every(4*time.Second, func(n int) {
		var body strings.Builder
		for i := range hostileBatch {
			body.WriteString(hostileLine{fmt.Sprint("wide", i%hostileWidth), "", "b"}.String())
		}
		_, _ = h.post(ctx, client, "/v1/events", "application/x-ndjson", body.String(), "") // it may be refused
	})
}

// impatient publishes large events, while the store stands still, by clients that
// leave after two seconds and try again.
func (h *hostile) impatient(ctx context.Context) {
	data := strings.Repeat("i", hostileLarge)
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var work sync.WaitGroup
	for i := range h.some(hostileImpatient) {
		work.Go(func() {
			for ctx.Err() == nil {
				_, _ = h.post(ctx, client, fmt.Sprint("/v1/feeds/impatient", i%10, "/events"), "text/plain", data, "") // it leaves
				_ = sleep(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond))                                       // the loop looks at ctx
			}
		})
	}
	work.Wait()
}

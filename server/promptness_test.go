package server_test

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// The server writes at once whatever it can write. A stream that is looked after
// again only when its keep-alive is due delivers everything, and passes every test
// that does not measure time.

// prompt is enough for the slowest machine, and far less than the time to a keep-alive
// of tests with unhurried.
const prompt = time.Minute

// unhurried puts off keep-alives, so that no stream is looked after for their sake.
var unhurried = server.Options{Heartbeat: time.Hour, WriteTimeout: time.Hour}

func (n *node) publishBatch(b feed.Publication) {
	n.t.Helper()
	if _, err := n.publisher.PublishBatch(n.t.Context(), b); err != nil {
		n.t.Fatal(err)
	}
}

// TestEndAtOnce: the end of a closed feed's stream follows feed.closed at once.
func TestEndAtOnce(t *testing.T) {
	n := start(t, unhurried, nil)
	for i, path := range []string{"/v1/feeds/%s/events", "/v1/events?feed=%s,other"} {
		name := fmt.Sprint("feed", i)
		f := n.follow(fmt.Sprintf(path, name), nil)
		f.block()
		n.publishBatch(feed.Publication{Feed: name, Drafts: []feed.Draft{{Feed: name, Data: "x"}}, Close: true})
		if i == 1 {
			n.publishBatch(feed.Publication{Feed: "other", Close: true})
		}
		began := time.Now()
		rest, err := io.ReadAll(f.r)
		if took := time.Since(began); err != nil || took > prompt || !strings.Contains(string(rest), "feed.closed") {
			t.Errorf("%s: ended with %v after %v:\n%s", path, err, took, rest)
		}
	}
}

// TestMuchAtOnce: events that take more than one piece are not held back behind the
// first piece, even if nothing more is published.
func TestMuchAtOnce(t *testing.T) {
	n := start(t, unhurried, nil)
	const events = 150 // which are small, but each of their lines has a name on the wire
	for i, path := range []string{"/v1/feeds/%s/events", "/v1/events?feed=%s,other"} {
		name := fmt.Sprint("feed", i)
		f := n.follow(fmt.Sprintf(path, name), nil)
		f.block()
		drafts := make([]feed.Draft, events)
		for k := range drafts {
			drafts[k] = feed.Draft{Feed: name, Data: fmt.Sprint(k+1, strings.Repeat("\n", 100))}
		}
		n.publishBatch(feed.Publication{Feed: name, Drafts: drafts})
		began := time.Now()
		for k := range events {
			if got, want := f.block(), fmt.Sprintf("id: %d\n", k+1); i == 0 && !strings.HasSuffix(got, want) {
				t.Fatalf("%s: got %q, want %q", path, got, want)
			}
		}
		if took := time.Since(began); took > prompt {
			t.Errorf("%s: took %v", path, took)
		}
	}
}

// TestDrainAtOnce: a stopping node ends its streams at once, with a farewell, even if
// their heartbeats are far away.
func TestDrainAtOnce(t *testing.T) {
	n := start(t, unhurried, nil)
	f := n.follow(events, nil)
	f.block()
	began := time.Now()
	n.Drain(within(t, prompt), 0)
	if _, err := io.ReadAll(f.r); !isBreak(err) || time.Since(began) > prompt {
		t.Errorf("ended with %v after %v, want a break at once", err, time.Since(began))
	}
}

// stalled opens a stream and reads nothing of it but its beginning, until its
// socket is full.
func (n *node) stalled(header string) *bufio.Reader {
	n.t.Helper()
	conn, tcp := n.dial()
	n.t.Cleanup(func() { conn.Close() })
	// By default the system buffers as much as it is configured to, which can be more
	// than a test sends.
	if err := tcp.SetReadBuffer(64 << 10); err != nil {
		n.t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		n.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: rejoin\r\n%s\r\n", events, header)
	r := bufio.NewReaderSize(conn, 16)
	if _, err := r.ReadString('\n'); err != nil { // it has subscribed
		n.t.Fatal(err)
	}
	return r
}

// TestEndsWhileFull: a client that does not read can neither delay a stopping node nor
// keep a stream beyond its age. Such a stream does not end cleanly, or the client would
// not come back.
func TestEndsWhileFull(t *testing.T) {
	t.Parallel()
	if *netHTTP {
		return // a write of net/http ends with its client, or with the timeout
	}
	const timeout = 4 * time.Second // a socket is checked four times within it
	for reason, o := range map[string]server.Options{
		"draining": unhurried,
		"max_age":  {WriteTimeout: timeout, MaxAge: timeout / 4},
	} {
		t.Run(reason, func(t *testing.T) {
			n := start(t, o, nil)
			var readers []*bufio.Reader
			for range 5 {
				readers = append(readers, n.stalled(""))
			}
			data := strings.Repeat("x", 50_000)
			for id := range 200 { // 10 MB, more than the buffers on both sides take
				n.publish("chat", data, feed.ID(id)+1)
			}
			began := time.Now()
			if reason == "draining" {
				n.Drain(within(t, prompt), 0)
			}
			for n.hub.Stats().Subscribers > 0 {
				if time.Since(began) > prompt {
					t.Fatalf("%d subscribers are left after %v", n.hub.Stats().Subscribers, time.Since(began))
				}
				time.Sleep(time.Millisecond) // until they have been ended
			}
			n.wantMetrics(t, []string{fmt.Sprintf("rejoin_streams_ended_total{reason=%q} %d", reason, len(readers))})
			for _, r := range readers {
				rest, _ := io.ReadAll(r)
				if strings.HasSuffix(string(rest), "0\r\n\r\n") {
					t.Error("a stream that was broken off ended cleanly")
				}
			}
		})
	}
}

package e2e

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

var stalledConnections = flag.Int("stalled-connections", 20, "how many connections, of 100 streams each, TestStalledHTTP2 has")

const (
	stalledStreams = 100
	stalledWindow  = 2 << 10 // of each stream: less than three events
	stalledEvents  = 8
)

// TestStalledHTTP2: connections as a browser has them, with a hundred streams each. A
// reader of one of them gets no window. The other 99 streams of that connection, and those
// of all others, must get every event meanwhile. When the reader goes on, it misses none.
func TestStalledHTTP2(t *testing.T) {
	t.Parallel()
	s := attack(t, true, "REJOIN_SERVER_HTTP2=engine", "REJOIN_SUBSCRIBE_WRITE_TIMEOUT=5m", "REJOIN_SUBSCRIBE_HEARTBEAT=5m")
	browsers := make([]*browserFrames, *stalledConnections)
	for i := range browsers {
		browsers[i] = s.browse(i == 0)
	}
	publishEach := func(n int) {
		t.Helper()
		var batch strings.Builder
		for feed := range stalledStreams {
			fmt.Fprintf(&batch, "{\"feed\":\"f%d\",\"data\":%q}\n", feed, textOfStalled(feed, n))
		}
		resp, err := s.client.Post(s.url+"/v1/events", "application/x-ndjson", strings.NewReader(batch.String()))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
			t.Fatal(resp.Status)
		}
	}
	for n := 1; n <= stalledEvents; n++ {
		publishEach(n)
	}
	var reading sync.WaitGroup
	for i, b := range browsers {
		reading.Go(func() {
			if err := b.readAll(); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	reading.Wait()
	if t.Failed() {
		return
	}
	first := browsers[0]
	if got := first.bodies[0].Len(); got > stalledWindow {
		t.Fatalf("the stalled stream has %d bytes, in a window of %d", got, stalledWindow)
	}
	first.stalled = false
	if err := first.grant(1, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := first.readAll(); err != nil {
		t.Errorf("the stream that was stalled: %v", err)
	}
}

func textOfStalled(feed, n int) string {
	return fmt.Sprintf("event %d of feed %d %s", n, feed, strings.Repeat("x", 900))
}

// browserFrames is a connection that follows feeds f0 to f99, each over a stream. Its
// first stream gets no window as long as it is stalled.
type browserFrames struct {
	*frames
	stalled bool
	bodies  [stalledStreams]bytes.Buffer
}

// browse opens such a connection, and returns when all streams are open.
func (s *target) browse(stalled bool) *browserFrames {
	s.t.Helper()
	b := &browserFrames{frames: s.speak(), stalled: stalled}
	window := binary.BigEndian.AppendUint32([]byte{0, byte(http2.SettingInitialWindowSize)}, stalledWindow)
	all := []frame{{frameSettings, 0, 0, window}}
	for i := range uint32(stalledStreams) {
		all = append(all, getFrame(2*i+1, fmt.Sprintf("/v1/feeds/f%d/events", i)))
	}
	if err := b.send(all...); err != nil {
		s.t.Fatal(err)
	}
	if err := b.grant(0, 1<<30); err != nil {
		s.t.Fatal(err)
	}
	if err := b.readUntil(func(body string) bool { return strings.Contains(body, "event: feed.open\n") }, false); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (b *browserFrames) grant(stream uint32, n int) error {
	return b.send(frame{byte(http2.FrameWindowUpdate), 0, stream, binary.BigEndian.AppendUint32(nil, uint32(n))})
}

// readAll reads until all streams that are not stalled have all events.
func (b *browserFrames) readAll() error {
	last := fmt.Sprintf("id: %d\n\n", stalledEvents)
	if err := b.readUntil(func(body string) bool { return strings.HasSuffix(strings.TrimRight(body, ":\n")+"\n\n", last) }, b.stalled); err != nil {
		return err
	}
	for i := range b.bodies {
		if i == 0 && b.stalled {
			continue
		}
		var want strings.Builder
		for n := 1; n <= stalledEvents; n++ {
			fmt.Fprintf(&want, "data: %s\nid: %d\n\n", textOfStalled(i, n), n)
		}
		_, got, _ := strings.Cut(b.bodies[i].String(), "id: 0\n\n")
		if got = strings.ReplaceAll(got, "\n:\n", "\n"); got != want.String() {
			return fmt.Errorf("stream %d has %d bytes of events, want %d", i, len(got), want.Len())
		}
	}
	return nil
}

// readUntil reads until all streams, or all but the first, are as they should be. It gives
// each the window that its stream has used up.
func (b *browserFrames) readUntil(is func(body string) bool, butFirst bool) error {
	if err := b.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	left := make(map[int]bool)
	for i := range b.bodies {
		if !is(b.bodies[i].String()) && (i > 0 || !butFirst) {
			left[i] = true
		}
	}
	for len(left) > 0 {
		fr, err := b.next()
		if err != nil {
			return fmt.Errorf("%w, while %d streams are not done", err, len(left))
		}
		i := int(fr.stream-1) / 2
		switch {
		case fr.kind == frameGoAway || fr.kind == frameReset:
			return fmt.Errorf("frame %d with error %d of stream %d", fr.kind, fr.code(), i)
		case fr.kind != frameData:
			continue
		}
		b.bodies[i].Write(fr.payload)
		if is(b.bodies[i].String()) {
			delete(left, i)
		}
		if i > 0 || !b.stalled {
			if err := b.grant(fr.stream, len(fr.payload)); err != nil {
				return err
			}
		}
	}
	return nil
}

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	client "github.com/tmaxmax/go-sse"
)

// TestStalledSubscriber: one subscriber reads nothing while 50 MB are
// published. The process must not grow with what that one has not read, the
// others must not notice, and when it reads on, it gets everything.
func TestStalledSubscriber(t *testing.T) {
	t.Parallel()
	const size, count, allowed = 50_000, 1000, 64 << 20
	p := serve(t, built(t, true), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SUBSCRIBE_WRITE_TIMEOUT=5m")
	padding := strings.Repeat("x", size)

	stalled := subscribeRaw(t, p.url)
	other := subscribeRaw(t, p.url)
	before, most := p.rss(), 0

	var work sync.WaitGroup
	work.Go(func() { checkStream(t, "the one that reads", other, count, padding) })
	for id := range count {
		if _, err := publish(http.DefaultClient, p.url, "chat", fmt.Sprintf("%d %s", id+1, padding)); err != nil {
			t.Fatal(err)
		}
		most = max(most, p.rss())
	}
	work.Wait()
	checkStream(t, "the one that stalled", stalled, count, padding)
	most = max(most, p.rss())
	t.Logf("%d MB before, %d MB at most", before>>20, most>>20)
	if most-before > allowed {
		t.Errorf("the process grew by %d MB while a subscriber was stalled", (most-before)>>20)
	}
}

// subscribeRaw subscribes to the feed chat and reads next to nothing.
func subscribeRaw(t *testing.T, url string) *bufio.Reader {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, "GET /v1/feeds/chat/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	r := bufio.NewReaderSize(conn, 64)
	if _, err := r.Peek(12); err != nil {
		t.Fatal(err)
	}
	return r
}

// checkStream reads a stream to event count and demands every event before it.
func checkStream(t *testing.T, who string, r *bufio.Reader, count int, padding string) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Errorf("%s: %v", who, err)
		return
	}
	next := 1
	for e, err := range client.Read(resp.Body, nil) {
		if err != nil {
			t.Errorf("%s: after event %d: %v", who, next-1, err)
			return
		}
		if e.Type == "feed.open" {
			continue
		}
		if e.LastEventID != fmt.Sprint(next) || e.Data != fmt.Sprintf("%d %s", next, padding) {
			t.Errorf("%s: got event %s %.20q where %d should be", who, e.LastEventID, e.Data, next)
			return
		}
		if next == count {
			return
		}
		next++
	}
	t.Errorf("%s: the stream ended after event %d", who, next-1)
}

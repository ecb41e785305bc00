package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// slowEvents is the number of events. They are small, except for the cursor of a
// hundred feeds.
const slowEvents = 400

// slowReader is a client that reads all the time, but little by little, over
// sockets that hold little.
type slowReader struct {
	conn  net.Conn
	bytes int           // at most that many …
	every time.Duration // … in this time
	until time.Time     // from then on it is quick; zero: never

	reads   []time.Time   // when the last ten began
	slowest time.Duration // that ten reads took
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.until.IsZero() || time.Now().Before(r.until) {
		time.Sleep(r.every) // it is slow
		p = p[:min(len(p), r.bytes)]
	}
	if r.reads = append(r.reads, time.Now()); len(r.reads) > 10 {
		r.slowest = max(r.slowest, r.reads[10].Sub(r.reads[0]))
		r.reads = r.reads[1:]
	}
	return r.conn.Read(p)
}

// startNarrow starts a server of the node whose sockets hold about twice the
// bytes, and returns its address.
func startNarrow(t *testing.T, n *node, bytes int, secure bool) string {
	t.Helper()
	narrow := httptest.NewUnstartedServer(n.Server)
	narrow.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			tcp = conn.(*tls.Conn).NetConn().(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn)
		}
		if err := tcp.SetWriteBuffer(bytes); err != nil {
			t.Error(err)
		}
		return overBoth(ctx, conn)
	}
	if secure {
		n.startTLS(narrow)
	} else {
		narrow.Start()
	}
	t.Cleanup(narrow.Close)
	t.Cleanup(func() { n.Drain(context.Background(), 0) })
	return narrow.Listener.Addr().String()
}

// followSlowly follows a hundred feeds, the last of which has many events, over conn.
// It makes r read from conn.
func followSlowly(t *testing.T, n *node, conn net.Conn, r *slowReader) *bufio.Reader {
	t.Helper()
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("livefeed-%03d-of-100", i))
	}
	drafts := make([]feed.Draft, slowEvents)
	for i := range drafts {
		drafts[i] = feed.Draft{Feed: names[99], Data: "x"}
	}
	if _, err := n.publisher.PublishBatch(t.Context(), feed.Publication{Feed: names[99], Drafts: drafts}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /v1/events?from=start&feed=%s HTTP/1.1\r\nHost: rejoin\r\n\r\n", strings.Join(names, ","))
	r.conn = conn
	resp, err := http.ReadResponse(bufio.NewReaderSize(r, 16<<10), nil)
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(resp.Body)
}

// dialNarrow connects with packets as small as on Ethernet: the loopback would send
// 64 KiB in a packet and acknowledge no less. The socket holds about twice the bytes
// unread.
func dialNarrow(t *testing.T, address string, bytes int) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400),
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes))
		})
		return errors.Join(err, failed)
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

var lastOfMany = regexp.MustCompile(`^id: .*,livefeed-099-of-100=(\d+)\n$`)

// TestSlowReaderOfMany: a slow reader is not stalled, even if the cursors turn a few
// kilobytes of the store into a megabyte. Within the timeout it reads dozens of
// times, but far less than makes a full socket writable again. If the machine makes the
// reader far slower than that, it is tried again with a longer timeout.
func TestSlowReaderOfMany(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%t", secure), func(t *testing.T) {
			t.Parallel()
			for timeout := range longer(t, 3*time.Second) {
				if readAllSlowly(t, timeout, secure) {
					break
				}
			}
		})
	}
}

// readAllSlowly reads all events slowly. It reports false if it was so slow that the
// server was right to break off the stream.
func readAllSlowly(t *testing.T, timeout time.Duration, secure bool) bool {
	n := start(t, server.Options{WriteTimeout: timeout}, nil)
	conn := dialNarrow(t, startNarrow(t, n, 200<<10, secure), 16<<10)
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	slow := &slowReader{bytes: 3 << 10, every: timeout / 30}
	r := followSlowly(t, n, conn, slow)
	began := time.Now()
	slow.until = began.Add(3 * timeout)
	for last := ""; last != fmt.Sprint(slowEvents); {
		line, err := r.ReadString('\n')
		if err != nil && slow.slowest > timeout*2/3 { // twice as slow as it wants to be
			return false
		}
		if err != nil {
			t.Fatalf("broken off behind event %s, %v after the beginning: %v", last, time.Since(began), err)
		}
		if id := lastOfMany.FindStringSubmatch(line); id != nil {
			last = id[1]
		}
	}
	if time.Now().Before(slow.until) {
		t.Error("it was through before it could be slow")
	}
	return true
}

// TestSlowReaderOfManyDrained: the server soon ends the stream of a client that is far
// behind. A farewell has the cursor that was shown. net/http sends one; the engine does
// not wait for a full socket.
func TestSlowReaderOfManyDrained(t *testing.T) {
	n := start(t, server.Options{}, nil)
	conn, err := net.Dial("tcp", startNarrow(t, n, 64<<10, false))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	r := followSlowly(t, n, conn, &slowReader{bytes: 16 << 10, every: 30 * time.Millisecond})
	var last, kind, line string
	for i := 0; err == nil; i++ {
		if i == 30 {
			go n.Drain(context.Background(), 0)
			eventually(t, "it drains", func() bool {
				_, body := n.do("GET", "/readyz", nil, "")
				return strings.Contains(body, `"draining":true`)
			})
		}
		line, err = r.ReadString('\n')
		if name, found := strings.CutPrefix(line, "event: "); found {
			kind = strings.TrimSpace(name)
		}
		id := lastOfMany.FindStringSubmatch(line)
		if id == nil {
			continue
		}
		if kind == "feed.cursor" && id[1] != last {
			t.Errorf("the farewell has the cursor %s, the last event %s", id[1], last)
		}
		last = id[1]
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || *netHTTP && kind != "feed.cursor" || last == fmt.Sprint(slowEvents) {
		t.Errorf("ended with %v behind event %s of %d; the last control event was %s", err, last, slowEvents, kind)
	}
}

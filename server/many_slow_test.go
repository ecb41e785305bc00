package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

const (
	slowEvents = 400 // which are small, but for the cursor of a hundred feeds
	slowBytes  = 16 << 10
)

// slowReader is a client that reads all the time, but little by little, over
// sockets that hold next to nothing.
type slowReader struct{ conn net.Conn }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(30 * time.Millisecond) // it is slow
	return r.conn.Read(p[:min(len(p), slowBytes)])
}

// followSlowly follows a hundred feeds, the last of which has many events.
func followSlowly(t *testing.T, n *node) *bufio.Reader {
	t.Helper()
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("livefeed-%03d-of-100", i))
	}
	drafts := make([]feed.Draft, slowEvents)
	for i := range drafts {
		drafts[i] = feed.Draft{Feed: names[99], Data: "x"}
	}
	if _, err := n.publisher.PublishBatch(t.Context(), feed.Batch{Feed: names[99], Drafts: drafts}); err != nil {
		t.Fatal(err)
	}
	narrow := httptest.NewUnstartedServer(n.Server)
	narrow.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if err := conn.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		return overBoth(ctx, conn)
	}
	narrow.Start()
	t.Cleanup(narrow.Close)
	t.Cleanup(func() { n.Drain(context.Background(), 0) })
	conn, err := net.Dial("tcp", narrow.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v1/events?from=start&feed=%s HTTP/1.1\r\nHost: rejoin\r\n\r\n", strings.Join(names, ","))
	resp, err := http.ReadResponse(bufio.NewReaderSize(slowReader{conn}, slowBytes), nil)
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(resp.Body)
}

var lastOfMany = regexp.MustCompile(`^id: .*,livefeed-099-of-100=(\d+)\n$`)

// TestSlowReaderOfMany: who reads slowly is not who reads nothing, even where
// the cursors make a megabyte of what is a few kilobytes in the store.
func TestSlowReaderOfMany(t *testing.T) {
	n := start(t, server.Options{WriteTimeout: time.Second}, nil)
	r := followSlowly(t, n)
	began := time.Now()
	for last := ""; last != fmt.Sprint(slowEvents); {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("broken off behind event %s, %v after the beginning: %v", last, time.Since(began), err)
		}
		if id := lastOfMany.FindStringSubmatch(line); id != nil {
			last = id[1]
		}
	}
}

// TestSlowReaderOfManyDrained: who is in the middle of much is broken off soon.
// If there is a farewell, it says what was shown. Over net/http there is; the
// engine does not wait for a socket that is full.
func TestSlowReaderOfManyDrained(t *testing.T) {
	n := start(t, server.Options{}, nil)
	r := followSlowly(t, n)
	var last, kind, line string
	var err error
	for i := 0; err == nil; i++ {
		if i == 30 {
			go n.Drain(context.Background(), 0)
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
			t.Errorf("it is told to go on behind %s, and was shown %s", id[1], last)
		}
		last = id[1]
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || *netHTTP && kind != "feed.cursor" || last == fmt.Sprint(slowEvents) {
		t.Errorf("ended with %v behind event %s of %d; the last control event was %s", err, last, slowEvents, kind)
	}
}

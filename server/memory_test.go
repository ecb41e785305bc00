package server_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// heap returns how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fill publishes n events whose data is about so many bytes, of two types by turns.
func (n *node) fill(name string, events, size int, data string) {
	n.t.Helper()
	for from := 0; from < events; from += 100 {
		drafts := make([]feed.Draft, min(100, events-from))
		for i := range drafts {
			drafts[i] = feed.Draft{Feed: name, Type: []string{"even", "odd", "odd"}[rand.IntN(3)], Data: strings.Repeat(data, 1+rand.IntN(2*size))}
		}
		if _, err := n.publisher.Publish(n.t.Context(), drafts...); err != nil {
			n.t.Fatal(err)
		}
	}
}

// ask sends a request over a connection that holds little unread.
func ask(t *testing.T, address, path string, header string) net.Conn {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (failed error) {
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return errors.Join(err, failed)
	}}
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path, header)
	return conn
}

// drawn matches the line that differs from one stream to the next.
var drawn = regexp.MustCompile(`(?m)^retry: .*\n`)

// TestSlowReadersGetTheSame: a socket that is full keeps no more than a cursor, and
// whatever form a stream has, a client that reads slowly gets the same bytes as one that
// reads at once.
func TestSlowReadersGetTheSame(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	address := startNarrow(t, n, 8<<10, false)
	n.fill("chat", 100, 2000, "a\n\x01")
	n.fill("chat", 1500, 40, "x")
	if _, err := n.publisher.PublishBatch(t.Context(), feed.Publication{Feed: "chat", Close: true}); err != nil {
		t.Fatal(err)
	}
	const lines = "Accept: application/x-ndjson\r\n"
	var work sync.WaitGroup
	defer work.Wait()
	for _, c := range []struct{ path, header string }{
		{"/v1/feeds/chat/events?from=start", ""},
		{"/v1/feeds/chat/events?from=start&types=odd", ""},
		{"/v1/feeds/chat/events?from=start&types=even,none&envelope=true", ""},
		{"/v1/feeds/chat/events?from=start&control=live", ""},
		{"/v1/feeds/chat/events?from=start&types=none", lines},
		{"/v1/feeds/chat/events?from=start", lines},
		{"/v1/events?from=start&feed=chat", ""},
		{"/v1/events?from=start&feed=chat&types=even", ""},
		{"/v1/events?from=start&feed=chat", lines},
	} {
		name, value, _ := strings.Cut(strings.TrimSpace(c.header), ": ")
		header := map[string]string{}
		if name != "" {
			header[name] = value
		}
		_, want := n.do("GET", c.path, header, "")
		work.Go(func() {
			conn := ask(t, address, c.path, c.header)
			resp, err := http.ReadResponse(bufio.NewReaderSize(&unsteady{conn}, 512), nil)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Errorf("%s %s: %v after %d bytes of %d", c.path, c.header, err, len(got), len(want))
				return
			}
			if a, b := drawn.ReplaceAll(got, nil), drawn.ReplaceAllString(want, ""); string(a) != b {
				at := 0
				for at < min(len(a), len(b)) && a[at] == b[at] {
					at++
				}
				t.Errorf("%s %s: %d bytes, want %d; byte %d is another", c.path, c.header, len(a), len(b), at)
			}
		})
	}
}

// unsteady reads little by little, and now and then takes its time.
type unsteady struct{ io.Reader }

func (r *unsteady) Read(p []byte) (int, error) {
	if rand.IntN(400) == 0 {
		time.Sleep(2 * time.Millisecond) // its socket is full by then
	}
	return r.Reader.Read(p[:min(len(p), 1+rand.IntN(16<<10))])
}

// TestStandingReadersHoldNothing: subscribers that read nothing, each at another
// cursor, cost the node no memory but their streams. Over net/http, each holds a
// piece.
func TestStandingReadersHoldNothing(t *testing.T) {
	n := start(t, server.Options{}, nil)
	address := startNarrow(t, n, 8<<10, false)
	const readers = 300
	n.fill("chat", 1000, 4000, "\x01")
	before := heap()
	for i := range readers {
		path := "/v1/feeds/chat/events?envelope=true"
		if i%3 == 0 {
			path = "/v1/events?feed=chat,news,mail"
		}
		cursor := fmt.Sprint(1 + i*2)
		if i%3 == 0 {
			cursor = "chat=" + cursor
		}
		ask(t, address, path, "Last-Event-ID: "+cursor+"\r\n")
	}
	eventually(t, "they follow", func() bool {
		s := n.hub.Stats()
		return s.Subscribers == readers+2*readers/3 && s.FromStore >= readers
	})
	settled(t, func() uint64 { s := n.hub.Stats(); return s.FromStore + s.FromLog })
	held := n.hub.Memory().Used(feed.HoldStreams)
	if grown := heap() - before; grown > readers*64<<10 || held > readers*2<<10 {
		t.Errorf("%d readers hold %d bytes of memory, of which %d are counted", readers, grown, held)
	}
}

// settled waits until a figure has not changed for a while.
func settled(t *testing.T, figure func() uint64) {
	t.Helper()
	last, since := figure(), time.Now()
	for deadline := time.Now().Add(prompt); time.Since(since) < time.Second; time.Sleep(20 * time.Millisecond) {
		if now := figure(); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not settle")
		}
	}
}

// TestUnreadPages: each page whose client does not read holds one stretch, within the
// budget, and is complete when its client reads on.
func TestUnreadPages(t *testing.T) {
	n := start(t, server.Options{}, nil)
	address := startNarrow(t, n, 8<<10, false)
	n.fill("chat", 1000, 4000, "\x01")
	_, want := n.do("GET", "/v1/feeds/chat/events?after=0&limit=1000", map[string]string{"Accept": "application/json"}, "")
	const pages = 200
	before := heap()
	var conns []net.Conn
	for range pages {
		conns = append(conns, ask(t, address, "/v1/feeds/chat/events?after=0&limit=1000", "Accept: application/json\r\n"))
	}
	memory := n.hub.Memory()
	eventually(t, "each page holds something", func() bool { return memory.Used(feed.HoldPages) >= pages*32<<10 })
	settled(t, func() uint64 { return uint64(memory.Used(feed.HoldPages)) })
	used := memory.Used(feed.HoldPages)
	if limit := memory.Limit(feed.HoldPages); used > limit || used < pages*32<<10 {
		t.Errorf("%d pages hold %d bytes, their share is %d", pages, used, limit)
	}
	if grown := heap() - before; grown > pages*256<<10 {
		t.Errorf("%d pages hold %d bytes of memory", pages, grown)
	}
	for _, conn := range conns[:3] {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != want {
			t.Errorf("a page has %d bytes, want %d: %v", len(got), len(want), err)
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
	for deadline := time.Now().Add(prompt); memory.Used(feed.HoldPages) != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are held of pages that are gone", memory.Used(feed.HoldPages))
		}
	}
}

// TestPageBrokenOff: if the rest of a page is trimmed while the page is being
// written, the server breaks it off. A client must not take it for complete.
func TestPageBrokenOff(t *testing.T) {
	n := start(t, server.Options{}, nil)
	address := startNarrow(t, n, 8<<10, false)
	n.fill("chat", 1000, 4000, "x")
	conn := ask(t, address, "/v1/feeds/chat/events?after=0&limit=1000", "Accept: application/json\r\n")
	r := bufio.NewReaderSize(conn, 1024)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.hub.Trim(t.Context(), "chat", 900); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, and then %v", len(got), err)
	}
}

// TestNothingOfTheRequestIsKept: a stored event and a subscriber do not keep the rest
// of their request in memory, which can be long.
func TestNothingOfTheRequestIsKept(t *testing.T) {
	n := start(t, server.Options{}, nil)
	padding := "&pad=" + strings.Repeat("p", 30_000)
	const events = 300
	f := n.follow("/v1/feeds/chat/events", nil)
	defer f.body.Close()
	n.publish("chat", "x", 1)
	before := heap()
	for range events {
		resp, _ := n.do("POST", "/v1/feeds/chat/events?type=note"+padding, nil, "x")
		if resp.StatusCode != http.StatusCreated {
			t.Fatal(resp.Status)
		}
	}
	for i := range events / 3 {
		conn, err := net.Dial("tcp", n.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/feeds/f%d/events?types=note%s HTTP/1.1\r\nHost: localhost\r\n\r\n", i, padding)
		line := make([]byte, 9)
		if _, err := io.ReadFull(conn, line); err != nil || !bytes.Equal(line, []byte("HTTP/1.1 ")) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if grown := heap() - before; grown > events*30_000/3 {
		t.Errorf("%d publishes and %d streams hold %d bytes", events, events/3, grown)
	}
}

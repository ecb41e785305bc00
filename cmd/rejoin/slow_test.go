package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client/clienttest"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/web"
)

// pipe returns a connection to a server as rejoin serve configures it, both in
// the bubble of the test, where the timeouts take no time.
func pipe(t *testing.T, files TLSConfig) net.Conn {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, bus := feedtest.NewStore(), memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{Logger: quiet})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
	if _, err := publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: "x"}); err != nil {
		t.Fatal(err)
	}
	handler := server.New(hub, publisher, server.Options{Console: web.Handler(), Logger: quiet})
	httpServer := newHTTPServer(handler, quiet)
	g, err := openSecurity(t.Context(), Config{TLS: files}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	g.secure(httpServer, DefaultConfig().Subscribe.WriteTimeout)
	network := clienttest.NewNetwork()
	ended := make(chan error, 1)
	go func() { ended <- serveHTTP(httpServer, g.over(network, nil, quiet)) }()
	here, err := network.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = here.SetDeadline(time.Now().Add(time.Hour))
	t.Cleanup(func() {
		here.Close()
		handler.Drain(context.Background(), 0)
		_ = httpServer.Shutdown(context.Background())
		if err := <-ended; err != nil {
			t.Error(err)
		}
		publisher.Close()
		hub.Close()
		bus.Close()
		store.Close()
	})
	return here
}

// drip sends text a byte a second until the connection is closed.
func drip(conn net.Conn, text string) {
	for i := range len(text) {
		time.Sleep(time.Second) // this is the attack
		if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
			return
		}
	}
}

// TestSlowClients: a connection costs a goroutine and a descriptor. The number of
// subscribers can be limited. Other clients must not hold a connection for as long as
// they like, or they could hold all that there are.
func TestSlowClients(t *testing.T) {
	const event, body = "/v1/feeds/chat/events", " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
	const asPage = "Accept: application/json\r\n\r\n"
	const whatever = -1 // any answer or none: one that comes this late may not be read
	endless := strings.Repeat("x", 1000)
	for _, test := range []struct {
		name, at, slowly string // what is sent at once, and then a byte a second
		status           int    // 0 for no answer, or whatever
		least, most      time.Duration
	}{
		{"nothing", "", "", 0, 9 * time.Second, 11 * time.Second},
		{"a head", "", "GET / HTTP/1.1\r\nHost: " + endless, 0, 9 * time.Second, 12 * time.Second},
		{"half a head", "GET / HTTP/1.1\r\nHost: localhost\r\n", "", 0, 9 * time.Second, 11 * time.Second},
		{"a second head", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n", "", 200, 9 * time.Second, 11 * time.Second},
		{"no second request", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "", 200, 119 * time.Second, 121 * time.Second},
		{"a body", "POST " + event + body + "\r\n", endless, 408, 29 * time.Second, 32 * time.Second},
		{"chunks", "POST " + event + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 200), 408, 29 * time.Second, 32 * time.Second},
		{"trailers", "POST " + event + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: " + endless, 400, 29 * time.Second, 32 * time.Second},
		// The server also waits for a body that it does not need, before it sends the
		// answer.
		{"the body of a page", "GET " + event + body + asPage, endless, whatever, 0, 32 * time.Second},
		{"the body of an event", "GET " + event + "/1" + body + asPage, "", 200, 0, 32 * time.Second},
		{"the body of a health check", "GET /healthz" + body + "\r\n", "", 200, 0, 32 * time.Second},
		{"the body of a HEAD", "HEAD " + event + body + "\r\n", "", 200, 0, 32 * time.Second},
		{"the body of the console", "GET /" + body + "\r\n", "", 200, 0, 32 * time.Second},
		{"the body of what is not there", "GET /v1/x" + body + "\r\n", "", 404, 0, 32 * time.Second},
		{"the body of a refused stream", "GET " + event + "?from=x" + body + "\r\n", "", 400, 0, 32 * time.Second},
		{"the body of OPTIONS *", "OPTIONS *" + body + "\r\n", "", 404, 0, 32 * time.Second},
		{"the body of TRACE", "TRACE /" + body + "\r\n", endless, 405, 0, 32 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := pipe(t, TLSConfig{})
				begin := time.Now()
				var sending sync.WaitGroup
				sending.Go(func() {
					_, _ = io.WriteString(conn, test.at)
					drip(conn, test.slowly)
				})
				if test.status == whatever {
					_, _ = io.Copy(io.Discard, conn)
				} else {
					wantAnswerAndEnd(t, conn, test.status)
				}
				if took := time.Since(begin); took < test.least || took > test.most {
					t.Errorf("it was held for %v, want %v to %v", took, test.least, test.most)
				}
				conn.Close()
				sending.Wait()
			})
		})
	}
}

// wantAnswerAndEnd reads one answer of the status, or none if that is 0, and
// then the end of the connection.
func wantAnswerAndEnd(t *testing.T, conn net.Conn, status int) {
	t.Helper()
	r := bufio.NewReader(conn)
	if status != 0 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if resp.StatusCode != status {
			t.Errorf("%s, want %d", resp.Status, status)
		}
	}
	// HEAD has no body, whatever its Content-Length.
	if rest, err := io.ReadAll(r); err != nil || strings.Contains(string(rest), "HTTP/1.1 2") {
		t.Errorf("%v after %q", err, rest)
	}
}

// TestSlowHandshakes: no other limit applies before the first byte of HTTP.
func TestSlowHandshakes(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, test := range []struct {
		name     string
		protocol string // empty for no handshake at all
		send     string
		most     time.Duration
	}{
		{"nothing", "", "", 11 * time.Second},
		{"half a handshake", "", "\x16\x03\x01\x02\x00\x01", 11 * time.Second},
		{"nothing of HTTP/1.1", "http/1.1", "", 11 * time.Second},
		{"half a head", "http/1.1", "GET / HTTP/1.1\r\n", 11 * time.Second},
		{"no preface", "h2", "", 11 * time.Second},
		{"half a preface", "h2", preface[:7], 11 * time.Second},
		{"no request", "h2", preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", 130 * time.Second},
		{"half of the headers", "h2", preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82", 130 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := certificateFiles(t)
			writeCertificate(t, files)
			synctest.Test(t, func(t *testing.T) {
				var conn net.Conn = pipe(t, files)
				begin := time.Now()
				if test.protocol != "" {
					secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{test.protocol}})
					if err := secure.HandshakeContext(t.Context()); err != nil {
						t.Fatal(err)
					}
					conn = secure
				}
				var sending sync.WaitGroup
				sending.Go(func() { _, _ = io.WriteString(conn, test.send) })
				_, err := io.Copy(io.Discard, conn)
				if took := time.Since(begin); took > test.most || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it was held for %v, want at most %v", took, test.most)
				}
				conn.Close()
				sending.Wait()
			})
		})
	}
}

// TestUnreadAnswers: a client that never lets the server send could make it hold
// answers for ever, each with a goroutine. None of these counts as a subscriber.
func TestUnreadAnswers(t *testing.T) {
	for _, path := range []string{
		"/v1/feeds/chat/events/1", "/v1/feeds/chat", "/v1/feeds", "/healthz", "/readyz", "/v1/nothing", "/", "/v1/feeds/chat/events?from=start", "/v1/feeds/chat/events?from=x",
	} {
		t.Run(path, func(t *testing.T) {
			files := certificateFiles(t)
			writeCertificate(t, files)
			synctest.Test(t, func(t *testing.T) {
				conn := tls.Client(pipe(t, files), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				if _, err := conn.Write(requestWithoutWindow(path)); err != nil {
					t.Fatal(err)
				}
				wantReset(t, conn, answerTimeout+time.Second)
			})
			synctest.Test(t, func(t *testing.T) {
				conn := pipe(t, TLSConfig{}) // where nothing is sent that is not read
				if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(answerTimeout + time.Second)
				if _, err := io.WriteString(conn, "x"); err == nil {
					t.Error("the answer is still held")
				}
			})
		})
	}
}

// requestWithoutWindow begins HTTP/2 with a request whose answer may have no byte
// of a body.
func requestWithoutWindow(path string) []byte {
	const headers, settings, endStreamAndHeaders, initialWindow = 1, 4, 5, 4
	frame := func(to []byte, kind, flags byte, stream uint32, payload []byte) []byte {
		to = append(to, 0, byte(len(payload)>>8), byte(len(payload)), kind, flags)
		return append(binary.BigEndian.AppendUint32(to, stream), payload...)
	}
	var fields []byte // literally and without an index (RFC 7541)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}} {
		for i, text := range field {
			if i == 0 {
				fields = append(fields, 0)
			}
			fields = append(append(fields, byte(len(text))), text...)
		}
	}
	out := frame([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings, 0, 0, []byte{0, initialWindow, 0, 0, 0, 0})
	return frame(out, headers, endStreamAndHeaders, 1, fields)
}

// wantReset demands that a stream ends within the time, and that no byte of a
// body came of it.
func wantReset(t *testing.T, conn net.Conn, within time.Duration) {
	t.Helper()
	const data, reset, settings, ping, goAway, ack = 0, 3, 4, 6, 7, 1
	begin := time.Now()
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Errorf("it is held: %v", err)
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			t.Errorf("it is held: %v", err)
			return
		}
		switch kind, flags := head[3], head[4]; {
		case kind == data && len(payload) > 0:
			t.Errorf("%d bytes came through a window of 0", len(payload))
			return
		case kind == reset || kind == goAway:
			if took := time.Since(begin); took > within {
				t.Errorf("it was held for %v", took)
			}
			return
		case (kind == settings || kind == ping) && flags&ack == 0:
			answer := []byte{0, 0, 0, kind, ack, 0, 0, 0, 0}
			if kind == ping {
				answer[2] = byte(len(payload))
				answer = append(answer, payload...)
			}
			if _, err := conn.Write(answer); err != nil {
				t.Errorf("it is held: %v", err)
				return
			}
		}
	}
}

package server_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client/clienttest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
)

// dialBubble returns a connection to a node, both in the bubble of the test.
func dialBubble(t *testing.T, handler func(*feed.Hub, *feed.Publisher) http.Handler, wraps ...func(feed.Store) feed.Store) net.Conn {
	t.Helper()
	return dialBubbleOf(t, handler, 0, wraps...)
}

// dialBubbleOf is dialBubble with a ReadTimeout of the http.Server.
func dialBubbleOf(t *testing.T, handler func(*feed.Hub, *feed.Publisher) http.Handler, readTimeout time.Duration, wraps ...func(feed.Store) feed.Store) net.Conn {
	t.Helper()
	bus := memory.NewBus()
	var store feed.Store = newKeeper(t)
	for _, wrap := range wraps {
		store = wrap(store)
	}
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	network := clienttest.NewNetwork()
	httpServer := &http.Server{Handler: handler(hub, publisher), ReadTimeout: readTimeout}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = httpServer.Serve(network) // always that it was closed
	}()
	here, err := network.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = here.SetReadDeadline(time.Now().Add(5 * time.Minute))
	t.Cleanup(func() {
		here.Close()
		_ = httpServer.Shutdown(context.Background())
		<-ended
		publisher.Close()
		hub.Close()
		bus.Close()
		store.Close()
	})
	return here
}

func newServer(hub *feed.Hub, publisher *feed.Publisher) http.Handler {
	return server.New(hub, publisher, server.Options{})
}

func newWaiting(*feed.Hub, *feed.Publisher) http.Handler { return server.Waiting(server.Options{}) }

// TestStalledBody: a body that stops coming holds its connection for a limited time,
// whether the server waits for the body or has refused it.
func TestStalledBody(t *testing.T) {
	const post, head = "POST /v1/feeds/chat/events", "Host: x\r\nContent-Length: 100\r\n"
	for _, test := range []struct {
		name, request string
		handler       func(*feed.Hub, *feed.Publisher) http.Handler
		status        int
	}{
		{"an event", post + " HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 408},
		{"chunks", post + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", newServer, 408},
		{"a batch", post + " HTTP/1.1\r\n" + head + ndjson + "\r\n\r\n{", newServer, 408},
		{"a batch for many", "POST /v1/events HTTP/1.1\r\n" + head + ndjson + "\r\n\r\n{", newServer, 408},
		{"an ephemeral event", post + "?ephemeral=true HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 408},
		{"refused before", post + "?type=open HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 400},
		{"closing", "POST /v1/feeds/chat/close HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 204},
		{"nowhere", "POST /v1/nowhere HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 404},
		{"not possible", "PUT /v1/feeds/chat/events HTTP/1.1\r\n" + head + "\r\nhalf", newServer, 405},
		{"no store yet", post + " HTTP/1.1\r\n" + head + "\r\nhalf", newWaiting, 503},
	} {
		stalls := func(t *testing.T, readTimeout time.Duration) {
			synctest.Test(t, func(t *testing.T) {
				conn := dialBubbleOf(t, test.handler, readTimeout)
				begin := time.Now()
				if _, err := io.WriteString(conn, test.request); err != nil {
					t.Fatal(err)
				}
				r := bufio.NewReader(conn)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != test.status || !resp.Close && resp.StatusCode == 408 {
					t.Errorf("%s %v %s %v", resp.Status, resp.Header, body, err)
				}
				if _, err := r.ReadByte(); err != io.EOF {
					t.Errorf("the connection is still open: %v", err)
				}
				if took := time.Since(begin); took < 29*time.Second || took > 31*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
		t.Run(test.name, func(t *testing.T) { stalls(t, 0) })
		t.Run(test.name+", bound by net/http", func(t *testing.T) { stalls(t, server.BodyTimeout) })
	}
}

// TestContinue: a client that sends Expect: 100-continue gets 100, or an error at once.
func TestContinue(t *testing.T) {
	const expect = " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
	for _, test := range []struct{ name, request, body, answer string }{
		{"an event", "POST /v1/feeds/chat/events" + expect + "Content-Length: 2\r\n\r\n", "hi", "HTTP/1.1 201 Created\r\n"},
		{"a batch", "POST /v1/events" + expect + ndjson + "\r\nTransfer-Encoding: chunked\r\n\r\n", "1c\r\n" + `{"feed":"chat","data":"hiya"}`[:28] + "\r\n1\r\n}\r\n0\r\n\r\n", "HTTP/1.1 201 Created\r\n"},
		{"refused", "POST /v1/feeds/chat/events?close=x" + expect + "Content-Length: 2\r\n\r\n", "", "HTTP/1.1 400 Bad Request\r\n"},
		{"too large an event", "POST /v1/feeds/chat/events" + expect + "Content-Length: 120001\r\n\r\n", "", "HTTP/1.1 413 Request Entity Too Large\r\n"},
		{"too large a batch", "POST /v1/events" + expect + ndjson + "\r\nContent-Length: 4194305\r\n\r\n", "", "HTTP/1.1 413 Request Entity Too Large\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := dialBubble(t, newServer)
				r := bufio.NewReader(conn)
				if _, err := io.WriteString(conn, test.request); err != nil {
					t.Fatal(err)
				}
				if test.body != "" {
					if line, err := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
						t.Fatalf("%q, %v", line, err)
					}
					_, _ = r.ReadString('\n')
					if _, err := io.WriteString(conn, test.body); err != nil {
						t.Fatal(err)
					}
				}
				line, err := r.ReadString('\n')
				if line != test.answer || err != nil {
					t.Errorf("%q, %v; want %q", line, err, test.answer)
				}
				rest := make([]byte, 4096)
				n, _ := r.Read(rest)
				if strings.Contains(test.answer, "413") && !strings.Contains(string(rest[:n]), "Connection: close") {
					t.Errorf("%s", rest[:n])
				}
			})
		})
	}
}

package client

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// startServer runs a whole server but for its configuration, and returns its
// address and its hub.
func startServer(t *testing.T) (url string, hub *feed.Hub) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "rejoin.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bus := memory.NewBus()
	hub = feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	handler := server.New(hub, publisher, server.Options{Retry: 10 * time.Millisecond})
	http := httptest.NewUnstartedServer(handler)
	http.Config.ConnContext = server.WithConn
	http.Start()
	t.Cleanup(func() {
		handler.Drain(context.Background(), 0)
		http.Close()
		publisher.Close()
		hub.Close()
		handler.Close()
		bus.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return http.URL, hub
}

// cutter breaks each connection that it dials after some number of bytes. A
// connection gets its limits when it is dialled. A limit is one more than the bytes
// that pass, and 0 means none.
type cutter struct {
	limits func() (read, written int64)
	cuts   atomic.Int64
}

func (c *cutter) client(t *testing.T, url string, o Options) *Client {
	t.Helper()
	transport := NewTransport()
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		read, written := c.limits()
		return &cutConn{Conn: conn, cuts: &c.cuts, read: read, written: written}, nil
	}
	o.Transport, o.RetryMin, o.RetryMax = transport, 2*time.Millisecond, 10*time.Millisecond
	made, err := New(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.HTTP().CloseIdleConnections)
	return made
}

// cutConn is a connection that breaks.
type cutConn struct {
	net.Conn
	cuts          *atomic.Int64
	read, written int64
}

func (c *cutConn) Read(p []byte) (int, error) { return c.cut(c.Conn.Read, p, &c.read) }

func (c *cutConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil { // the limit may let only a part pass
		var more int
		more, err = c.cut(c.Conn.Write, p[n:], &c.written)
		n += more
	}
	return n, err
}

func (c *cutConn) cut(carry func([]byte) (int, error), p []byte, left *int64) (int, error) {
	if *left == 0 {
		return carry(p)
	}
	if *left == 1 {
		c.cuts.Add(1)
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	n, err := carry(p[:min(len(p), int(*left-1))])
	*left -= int64(n)
	return n, err
}

var odd = []string{"", " ", "one line", "two\nlines", "\ttab, then two spaces  ", "data: id: 7", ":", "ünïcödé 🚀 \u2028 line separator", "id: 99\n\nevent: feed.gap"}

// TestFollowCutAtEveryByte cuts the first connection after each number of bytes that
// it can have. Follow always yields the same events.
func TestFollowCutAtEveryByte(t *testing.T) {
	url, _ := startServer(t)
	plain, err := New(url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range odd {
		p := say(data)
		p.Close = i == len(odd)-1
		if _, err := plain.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for envelopes, step := range map[bool]int64{false: 1, true: 3} {
		var whole []string
		for limit := int64(0); ; limit += step {
			first := limit
			c := &cutter{limits: func() (read, written int64) {
				read, first = first, 0
				return read, 0
			}}
			var got []string
			for e, err := range c.client(t, url, Options{}).Follow(t.Context(), Subscription{Feeds: []string{"log"}, From: "start", Envelopes: envelopes}) {
				if err != nil {
					t.Fatalf("cut after %d bytes: %v", limit, err)
				}
				if e.Kind != KindOpen {
					got = append(got, line(e))
				}
			}
			if limit == 0 {
				whole = got
			}
			if diff := cmp.Diff(whole, got); diff != "" || len(got) != len(odd)+1 {
				t.Fatalf("cut after %d bytes: %s", limit-1, diff)
			}
			if limit > 0 && c.cuts.Load() == 0 {
				if limit < 600 {
					t.Errorf("no cut after %d bytes", limit-1)
				}
				break
			}
		}
	}
}

// TestPublishCutAtEveryByte cuts the first connection after each number of bytes
// of the request, and then of the answer. Each event is stored once, in order.
func TestPublishCutAtEveryByte(t *testing.T) {
	url, hub := startServer(t)
	var want []string
	for _, ofAnswer := range []bool{false, true} {
		for limit := int64(1); ; limit++ {
			first := limit
			c := &cutter{limits: func() (read, written int64) {
				read, written, first = 0, first, 0
				if ofAnswer {
					read, written = written, 0
				}
				return read, written
			}}
			data := fmt.Sprintf("%d bytes, of the answer: %t", limit-1, ofAnswer)
			got, err := c.client(t, url, Options{}).Publish(t.Context(), say(data))
			if want = append(want, data); err != nil || !slices.Equal(got.IDs, []feed.ID{feed.ID(len(want))}) {
				t.Fatalf("cut after %s: %+v, %v", data, got, err)
			}
			if c.cuts.Load() == 0 {
				break
			}
		}
	}
	if len(want) < 400 {
		t.Errorf("only %d cuts", len(want))
	}
	if diff := cmp.Diff(want, history(t, hub, "log")); diff != "" {
		t.Error(diff)
	}
}

// history returns the data of all events of a feed.
func history(t *testing.T, hub *feed.Hub, name string) (data []string) {
	t.Helper()
	for after := feed.ID(0); ; {
		page, err := hub.Read(t.Context(), name, after, feed.Limit{Events: 1000, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			data = append(data, e.Data)
			after = e.ID
		}
		if len(page.Events) == 0 {
			return data
		}
	}
}

// TestThroughCuts publishes to several feeds and follows them, all over
// connections that break again and again in both directions.
func TestThroughCuts(t *testing.T) {
	url, hub := startServer(t)
	c := &cutter{limits: func() (read, written int64) {
		if rand.IntN(4) == 0 {
			return 0, 2 + rand.Int64N(600)
		}
		return 2 + rand.Int64N(400<<rand.IntN(5)), 0 // enough for the largest event, now and then
	}}
	feeds := []string{"chat", "news", "log"}
	var work sync.WaitGroup
	for _, name := range feeds {
		work.Go(func() {
			publisher := c.client(t, url, Options{})
			for i := range 100 {
				p := Publication{Feed: name, Drafts: []feed.Draft{{Data: fmt.Sprint(i+1, odd[i%len(odd)])}}}
				if i%10 == 5 {
					p.Drafts = append(p.Drafts, feed.Draft{Type: "x", Data: strings.Repeat("long ", 1000)})
				}
				if p.Close = i == 99; p.Close {
					p.IfLast = new(feed.ID(109))
				}
				if got, err := publisher.Publish(t.Context(), p); err != nil {
					t.Errorf("%s: event %d: %+v, %v", name, i+1, got, err)
					return
				}
			}
		})
	}
	follow := func(s Subscription, want map[string]int) {
		got, ended := make(map[string][]string), 0
		for e, err := range c.client(t, url, Options{}).Follow(t.Context(), s) {
			if err != nil {
				t.Errorf("%+v: %v", s, err)
			}
			switch e.Kind {
			case KindEvent:
				got[e.Feed] = append(got[e.Feed], e.Data)
			case KindClosed:
				ended++
			}
		}
		for name, count := range want {
			all := history(t, hub, name)
			if len(s.Types) > 0 {
				all = slices.DeleteFunc(all, func(data string) bool { return !strings.HasPrefix(data, "long ") })
			}
			if diff := cmp.Diff(all, got[name]); diff != "" || len(all) != count {
				t.Errorf("%+v: %s: %s", s, name, diff)
			}
		}
		if ended != len(s.Feeds) {
			t.Errorf("%+v: closed %d times", s, ended)
		}
	}
	work.Go(func() {
		follow(Subscription{Feeds: feeds, From: "start"}, map[string]int{"chat": 110, "news": 110, "log": 110})
	})
	work.Go(func() { follow(Subscription{Feeds: feeds[:1], Cursor: "0"}, map[string]int{"chat": 110}) })
	work.Go(func() {
		follow(Subscription{Feeds: feeds[1:], From: "start", Types: []string{"x"}}, map[string]int{"news": 10, "log": 10})
	})
	work.Wait()
	if n := c.cuts.Load(); n < 30 {
		t.Errorf("only %d cuts", n)
	} else {
		t.Logf("%d cuts", n)
	}
}

package server_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

var reuseFor = flag.Duration("reuse", 1500*time.Millisecond, "how long TestDescriptorReuse lasts at least")

const (
	reuseFeeds   = 30
	reuseClients = 48
)

// TestDescriptorReuse: subscribers of many feeds are cut at any moment, while new
// ones connect and get the same descriptors at once. A write that comes a moment too
// late goes to another client. That client gets events of a feed that it may not even
// be allowed to read, or half an event. Each client checks every byte, and in the end
// nothing is left of any of them.
func TestDescriptorReuse(t *testing.T) {
	n := start(t, server.Options{WriteTimeout: 150 * time.Millisecond, Heartbeat: 40 * time.Millisecond}, nil)
	n.follow(events, nil).block() // so that all is running that ever will
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	descriptors, goroutines := descriptors(t), runtime.NumGoroutine()

	r := &reuse{t: t, node: n}
	least := int64(20)
	if *overTLS {
		least = 5 // handshakes take most of the time
	}
	began := time.Now()
	enough := func() bool {
		took := time.Since(began)
		return took > *reuseFor && r.events.Load() > 0 && r.streams.Load() >= least || took > 2*prompt
	}
	var clients, publishers sync.WaitGroup
	stop := make(chan struct{})
	publishers.Go(func() { r.publish(n, stop) })
	for range reuseClients {
		clients.Go(func() {
			for patience := time.Duration(1); !enough() && !t.Failed(); {
				if r.subscribe(patience) {
					patience = 1
				} else if patience < 64 {
					patience *= 2
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	publishers.Wait()
	t.Logf("%d connections, %d events read in %d streams", r.connections.Load(), r.events.Load(), r.streams.Load())
	if r.events.Load() == 0 || r.streams.Load() < least {
		t.Error("hardly anything was tried")
	}
	demandNothingLeft(t, n, descriptors, goroutines)
}

// demandNothingLeft waits until nothing is left of any subscriber but one, which a
// loaded machine may have cut too.
func demandNothingLeft(t *testing.T, n *node, before, goroutines int) {
	t.Helper()
	for deadline := time.Now().Add(prompt); ; time.Sleep(10 * time.Millisecond) {
		subscribers, fds, running := n.hub.Stats().Subscribers, descriptors(t), runtime.NumGoroutine()
		if subscribers <= 1 && fds <= before && running <= goroutines {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d subscriptions, want 1 at most; %d descriptors, %d before; %d goroutines, %d before", subscribers, fds, before, running, goroutines)
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			return
		}
	}
}

// descriptors returns how many this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// reuse is what the clients of the test share.
type reuse struct {
	t                            *testing.T
	node                         *node
	connections, streams, events atomic.Int64
}

func reuseFeed(i int) string { return fmt.Sprintf("feed-%02d", i) }

// publish publishes to all feeds, little and much, until it is to stop.
func (r *reuse) publish(n *node, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond): // so that others have their turn
		}
		name := reuseFeed(rand.IntN(reuseFeeds))
		data := strings.Repeat(name+" ", 1+rand.IntN([]int{2, 20, 3000}[i%3]))
		if _, err := n.publisher.Publish(r.t.Context(), feed.Draft{Feed: name, Data: data}); err != nil {
			r.t.Error(err)
			return
		}
	}
}

// subscribe connects, and is cut at some moment in some way. It reports false if patience
// was not enough for the head of the answer.
func (r *reuse) subscribe(patience time.Duration) bool {
	conn, tcp := r.node.dial()
	began := time.Now()
	r.connections.Add(1)
	pause := func(most time.Duration) { time.Sleep(rand.N(most)) } // this is the moment
	if rand.IntN(2) == 0 {
		_ = tcp.SetReadBuffer(8 << 10) // so that the socket is full soon
	}
	name := reuseFeed(rand.IntN(reuseFeeds))
	if _, err := fmt.Fprintf(conn, "GET /v1/feeds/%s/events?from=-3 HTTP/1.1\r\nHost: rejoin\r\n\r\n", name); err != nil {
		_ = conn.Close()
		if took := time.Since(began); !*overTLS || took < 8*time.Second {
			r.t.Errorf("%v after %v", err, took)
		}
		pause(10 * time.Second) // while fewer clients shake hands: the server waits 10 s for each
		return false
	}
	answered := true
	if rand.IntN(3) > 0 {
		if rand.IntN(4) == 0 {
			pause(300 * time.Millisecond) // may be long enough for the server to drop the connection
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience * (20*time.Millisecond + rand.N(80*time.Millisecond))))
		answered = r.check(conn, name)
	} else {
		pause(2 * time.Millisecond) // while it is being taken over
	}
	switch rand.IntN(4) {
	case 0:
		_ = tcp.SetLinger(0) // a reset
	case 1:
		_ = tcp.CloseWrite()
		pause(time.Millisecond)
	}
	_ = conn.Close()
	return answered
}

// check reads a stream until it ends, and demands that it is one, of that feed. It reports
// whether there was an answer at all.
func (r *reuse) check(conn net.Conn, name string) bool {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		r.checkEnd(name, err)
		return false
	}
	r.streams.Add(1)
	lines, last, control := bufio.NewReader(resp.Body), 0, false
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			r.checkEnd(name, err)
			return true
		}
		line = line[:len(line)-1]
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			var n int
			if _, err := fmt.Sscan(id, &n); err != nil || !control && n != last+1 {
				r.t.Errorf("%s: event %s follows event %d", name, id, last)
			}
			last, control = n, false
			r.events.Add(1)
			continue
		}
		data, isData := strings.CutPrefix(line, "data: ")
		switch {
		case isData && control && strings.HasPrefix(data, fmt.Sprintf("{%q:%q,", "feed", name)):
		case isData && !control && strings.Trim(data, name+" ") == "" && strings.Count(data, name+" ") == len(data)/len(name+" "):
		case strings.HasPrefix(line, "event: feed."):
			control = true
		case line == "", line == ":", strings.HasPrefix(line, "retry: "):
		default:
			r.t.Errorf("%s: got the line %.100q", name, line)
			return true
		}
	}
}

// checkEnd fails the test unless the error means that a stream was cut.
func (r *reuse) checkEnd(name string, err error) {
	var cut *net.OpError
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &cut) {
		r.t.Errorf("%s: ended with %v, want a break", name, err)
	}
}

package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// TestForwardRevokes: when the application no longer allows them, streams of every kind
// end cleanly, and show nothing that was published after the verdict.
func TestForwardRevokes(t *testing.T) {
	t.Parallel()
	n, a := asking(t, auth.ForwardOptions{Recheck: 300 * time.Millisecond, Cache: time.Hour, Grace: time.Hour}, server.Options{})
	cookie := map[string]string{"Cookie": "a=1", "Accept": "text/event-stream"}
	streams := map[string]*follower{
		"events": n.follow(events, cookie),
		"many":   n.follow("/v1/events?feed=chat,news", cookie),
		"bare":   n.follow("/v1/feeds/chat/stream", cookie),
		"lines":  n.follow(events, map[string]string{"Cookie": "a=1", "Accept": "application/x-ndjson"}),
	}
	other := n.follow(events, map[string]string{"Cookie": "b=2", "Accept": "text/event-stream"})
	for _, f := range streams {
		if _, err := f.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	var published, verdict atomic.Int64
	a.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "a=1" {
			w.WriteHeader(401)
			verdict.CompareAndSwap(0, published.Load())
		}
	})
	done := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: fmt.Sprint("at=", published.Add(1), ";")})
			}
		}
	})
	for name, f := range streams {
		rest, err := io.ReadAll(f.r)
		end := map[string]string{
			"events": control("feed.expired", `{"reason":"revoked"}`, "") + "\n", "many": control("feed.expired", `{"reason":"revoked"}`, "") + "\n",
			"lines": `{"type":"feed.expired","data":{"reason":"revoked"}}` + "\n",
		}[name]
		if err != nil || !strings.HasSuffix(string(rest), end) {
			t.Errorf("%s ends with %.200q, %v", name, rest[max(0, len(rest)-200):], err)
		}
		// A stream is asked about by itself, so its own verdict may be a recheck later.
		// Until then, at most 60 are published, and more on a slow machine.
		last := verdict.Load() + 400
		for part := range strings.SplitSeq(string(rest), "at=") {
			var at int64
			if _, err := fmt.Sscanf(part, "%d;", &at); err == nil && at > last {
				t.Errorf("%s shows event %d, %d were published before the verdict", name, at, verdict.Load())
			}
		}
	}
	for request, want := range map[string]int{events: 401, "/v1/feeds/chat": 401} {
		if r, _ := n.head("GET", request, cookie, ""); r.StatusCode != want {
			t.Errorf("%s, back again: %s", request, r.Status)
		}
	}
	close(done)
	publishing.Wait()
	// Nobody else is concerned, and a new login is good at once.
	n.put("chat", "to the other")
	for !strings.Contains(other.block(), "to the other") {
	}
	a.set(nil)
	n.follow(events, map[string]string{"Cookie": "a=3", "Accept": "text/event-stream"}).block()
	n.wantMetrics(t, []string{`rejoin_streams_ended_total{reason="revoked"} 4`})
}

// TestForwardRevokesPublishers: a stream that is being published ends when the application
// no longer allows it, and is answered in mid-body.
func TestForwardRevokesPublishers(t *testing.T) {
	t.Parallel()
	n, a := asking(t, auth.ForwardOptions{Recheck: 300 * time.Millisecond, Grace: 100 * time.Millisecond}, server.Options{})
	for code, want := range map[int]int{403: 403, 500: 503} {
		a.set(nil)
		name := fmt.Sprint("chat-", code)
		s := n.send(name, "")
		s.chunk("data: a\n\n")
		n.awaitStored(name, 1)
		a.status(code)
		if got := s.answer(); got.Status != want || got.Events != 1 {
			t.Errorf("after %d: %+v", code, got)
		}
	}
}

// TestForwardSharesRechecks: streams with the same question are asked about together.
func TestForwardSharesRechecks(t *testing.T) {
	t.Parallel()
	const recheck = 400 * time.Millisecond
	n, a := asking(t, auth.ForwardOptions{Recheck: recheck, Cache: time.Hour, Grace: time.Hour}, server.Options{})
	began := time.Now()
	var all []*follower
	for i := range 40 {
		all = append(all, n.follow(events, map[string]string{"Cookie": fmt.Sprint("user=", i%2)}))
	}
	for _, f := range all {
		f.block()
	}
	if held := n.hub.Memory().Used(feed.HoldStreams); held < 1000 || held > 10_000 {
		t.Errorf("40 streams of two users hold %d bytes", held)
	}
	var asked []string
	eventually(t, "it has asked eight times", func() bool {
		asked = append(asked, a.take()...)
		return len(asked) >= 8
	})
	if most := 2 + 2*int(time.Since(began)/(recheck/2)); len(asked) > most {
		t.Errorf("%d questions in %v", len(asked), time.Since(began))
	}
	for _, f := range all {
		f.body.Close()
	}
	eventually(t, "without streams, nothing is held", func() bool { return n.hub.Memory().Used(feed.HoldStreams) == 0 })
	eventually(t, "without streams, nothing is asked", func() bool { // but what was on its way
		a.take()
		time.Sleep(2 * recheck)
		return len(a.take()) == 0
	})
}

// TestForwardGrace: open streams live through an outage of the application, up to the
// grace. Then they are broken off, and their return is held.
func TestForwardGrace(t *testing.T) {
	t.Parallel()
	for grace := range longer(t, 3*time.Second) {
		if outlive(t, grace) {
			break
		}
	}
}

// outlive reports false if the machine was too slow for the grace.
func outlive(t *testing.T, grace time.Duration) bool {
	n, a := asking(t, auth.ForwardOptions{Recheck: 200 * time.Millisecond, Grace: grace}, server.Options{})
	began := time.Now()
	f := n.follow(events, map[string]string{"Accept": "text/event-stream"})
	f.want(open("chat", 0, 1, 0))
	a.status(500)
	a.take()
	eventually(t, "it has asked, and got no answer", func() bool { return len(a.take()) > 0 })
	for range 7 {
		n.put("chat", "x")
		if got, err := f.next(); !strings.HasPrefix(got, "data: x\n") {
			if time.Since(began) > grace {
				return false
			}
			t.Errorf("in the outage, it gets %q, %v", got, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	rest, err := io.ReadAll(f.r)
	if took := time.Since(began); !isBreak(err) || !bytes.HasPrefix(keepAlives.ReplaceAll(rest, nil), []byte("retry: ")) || took < grace {
		t.Errorf("after %v it ends with %q, %v", took, rest, err)
	}
	n.wantMetrics(t, []string{`rejoin_streams_ended_total{reason="undecided"} 1`, `rejoin_streams_ended_total{reason="revoked"} 0`})
	f = n.follow(events, map[string]string{"Accept": "text/event-stream", "Last-Event-ID": "0"})
	a.set(nil)
	if got := f.block(); !strings.Contains(got, "event: feed.open\n") {
		t.Errorf("its return begins with %q", got)
	}
	return true
}

// TestForwardExpiry: an answer counts until its exp. Before that, the application is
// asked again, without grace.
func TestForwardExpiry(t *testing.T) {
	t.Parallel()
	for _, test := range []expiryCase{
		{"a session that goes on", func(w http.ResponseWriter, _, next int64) { allowUntil(w, next) }, false, "draining"},
		{"a session that ends", func(w http.ResponseWriter, exp, _ int64) { allowUntil(w, exp) }, true, "revoked"},
		{"a session that has ended", func(w http.ResponseWriter, _, _ int64) { w.WriteHeader(401) }, true, "revoked"},
		{"an outage", func(w http.ResponseWriter, _, _ int64) { w.WriteHeader(500) }, false, "undecided"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for lifetime := range longer(t, 3*time.Second) {
				if test.run(t, lifetime) {
					break
				}
			}
		})
	}
}

type expiryCase struct {
	name   string
	then   func(w http.ResponseWriter, exp, next int64) // answers again; exp is the one so far
	clean  bool
	reason string
}

// run reports false if the application was not asked again in time, or its answers took
// long, because the machine was too slow for the lifetime.
func (c expiryCase) run(t *testing.T, lifetime time.Duration) bool {
	n, a := asking(t, auth.ForwardOptions{Recheck: time.Hour, Grace: time.Hour}, server.Options{})
	goesOn := c.reason == "draining"
	var mu sync.Mutex
	var exp int64
	asked, late := 0, false
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		next := time.Now().Unix() + int64(lifetime/time.Second)
		if asked++; asked == 1 {
			exp = next
			allowUntil(w, exp)
			return
		}
		if asked == 2 || goesOn {
			late = late || time.Until(time.Unix(exp, 0)) < lifetime/4
		}
		c.then(w, exp, next)
		if goesOn {
			exp = next
		}
	})
	resp := n.request("GET", events, nil, "")
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized {
		return false
	}
	f := &follower{t, resp.Body, bufio.NewReader(resp.Body)}
	f.want(open("chat", 0, 1, 0))
	mu.Lock()
	first := time.Unix(exp, 0)
	mu.Unlock()
	if goesOn {
		time.Sleep(time.Until(first.Add(time.Second)))
		mu.Lock()
		late = late || time.Until(time.Unix(exp, 0)) < lifetime/4
		mu.Unlock()
		n.Drain(t.Context(), 0)
	}
	rest, err := io.ReadAll(f.r)
	mu.Lock()
	defer mu.Unlock()
	if waited, err := strconv.ParseFloat(n.metric(t, "rejoin_auth_question_seconds_sum"), 64); err != nil || waited > lifetime.Seconds()/10 || late || asked < 2 {
		return false
	}
	if rest = keepAlives.ReplaceAll(rest, nil); (err == nil) != c.clean || c.clean && string(rest) != control("feed.expired", `{"reason":"revoked"}`, "")+"\n" {
		t.Errorf("it ends with %q, %v", rest, err)
	}
	if late := time.Since(first); !goesOn && late > prompt {
		t.Errorf("it ends %v after its time", late)
	}
	n.wantMetrics(t, []string{`rejoin_streams_ended_total{reason="` + c.reason + `"} 1`})
	return true
}

func allowUntil(w http.ResponseWriter, exp int64) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"exp":%d,"rejoin":{"subscribe":["*"]}}`, exp)
}

// TestForwardReturning: 2,000 clients of 200 users come back at once, to an application
// that takes 20 ms. It is asked once for each user.
func TestForwardReturning(t *testing.T) {
	n, a := asking(t, auth.ForwardOptions{Cache: time.Hour}, server.Options{})
	a.set(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) })
	n.put("chat", "x")
	const clients, users = 2000, 200
	address := strings.TrimPrefix(n.url, "http://")
	took := make([]time.Duration, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { conn.Close() })
			began := time.Now()
			fmt.Fprintf(conn, "GET %s?lastEventId=%d HTTP/1.1\r\nHost: %s\r\nCookie: user=%d\r\nAccept: text/event-stream\r\n\r\n", events, i%2, address, i%users)
			r := bufio.NewReader(conn)
			for line := ""; !strings.HasPrefix(line, "event: feed.open"); {
				if line, err = r.ReadString('\n'); err != nil {
					t.Error(err)
					return
				}
			}
			took[i] = time.Since(began)
		})
	}
	all.Wait()
	slices.Sort(took)
	t.Logf("opening took %v (p50), %v (p99)", took[clients/2], took[clients*99/100])
	if asked := a.take(); len(asked) != users {
		t.Errorf("%d users cost %d questions", users, len(asked))
	}
}

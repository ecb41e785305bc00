package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/tmaxmax/go-sse"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// TestDrain: a stream that the server ends has its cursor and a retry time last, and
// breaks off: some clients never return after a clean end.
func TestDrain(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.publish("chat", "a", 1)
	f := n.follow(events+"?from=start", nil)
	f.want(open("chat", 0, 1, 1), event(1, "a"))
	n.Drain(within(t, prompt), 10*time.Millisecond)
	f.want("retry\nevent: feed.cursor\ndata: {\"feed\":\"chat\",\"cursor\":\"1\"}\nid: 1\n")
	if _, err := f.r.ReadByte(); !isBreak(err) {
		t.Errorf("the stream ended with %v, want a break", err)
	}
	// A browser that comes too early must not be stopped by a status.
	f = n.follow(events, map[string]string{"Accept": "text/event-stream"})
	rest, err := io.ReadAll(f.r)
	if !isBreak(err) || !regexp.MustCompile(`^retry: \d{4,5}\n$`).Match(rest) {
		t.Errorf("got %q and %v", rest, err)
	}
	if r, body := n.do("GET", events, nil, ""); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v %s", r.Status, r.Header, body)
	}
}

func TestDrainSpreads(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	const streams, window = 10, 500 * time.Millisecond
	var ended [streams]time.Time
	var reading sync.WaitGroup
	for i := range streams {
		f := n.follow(events, nil)
		f.block()
		reading.Go(func() {
			io.Copy(io.Discard, f.r) //nolint:errcheck // it always breaks
			ended[i] = time.Now()
		})
	}
	begin := time.Now()
	n.Drain(t.Context(), window)
	reading.Wait()
	late := 0
	for _, at := range ended {
		if at.Sub(begin) > window/4 {
			late++
		}
	}
	if late < streams/2 {
		t.Errorf("only %d of %d streams were left after a quarter of the window", late, streams)
	}
}

func TestMaxAge(t *testing.T) {
	n := start(t, server.Options{MaxAge: 50 * time.Millisecond}, nil)
	f := n.follow(events, nil)
	f.want(open("chat", 0, 1, 0), "retry\nevent: feed.cursor\ndata: {\"feed\":\"chat\",\"cursor\":\"0\"}\nid: 0\n")
	if _, err := f.r.ReadByte(); !isBreak(err) {
		t.Errorf("the stream ended with %v, want a break", err)
	}
}

// TestStalledReader: the server breaks off the stream of a client that reads nothing;
// other clients do not notice, and the stalled one can resume.
func TestStalledReader(t *testing.T) {
	for timeout := range longer(t, 200*time.Millisecond) {
		if stallOne(t, timeout) {
			break
		}
	}
}

// stallOne reports false if a client that reads was broken off: on a slow machine, it can
// take longer than the timeout.
func stallOne(t *testing.T, timeout time.Duration) bool {
	n := start(t, server.Options{WriteTimeout: timeout}, nil)
	r := n.stalled("")
	other := n.follow(events+"?from=start", nil)
	other.block()
	data := strings.Repeat("x", 50_000)
	const count = 400 // 20 MB, more than the buffers on both sides take
	for id := range count {
		n.publish("chat", data, feed.ID(id)+1)
		if got, err := other.next(); err != nil {
			return false
		} else if want := event(id+1, data); got != want {
			t.Fatalf("got the block\n%s\nwant\n%s", got, want)
		}
	}
	eventually(t, "the stalled stream is broken off", func() bool { return n.hub.Stats().Subscribers == 1 })
	got, err := io.ReadAll(r)
	if strings.Contains(string(got), fmt.Sprintf("id: %d\n", count)) {
		t.Fatalf("the stalled stream went on to its end: %v after %d bytes", err, len(got))
	}
	ids := regexp.MustCompile(`(?m)^id: (\d+)$`).FindAllStringSubmatch(string(got), -1)
	f := n.follow(events, map[string]string{"Last-Event-ID": ids[len(ids)-1][1]})
	for block := ""; block != event(count, data); {
		if block, err = f.next(); err != nil {
			return false
		}
	}
	return true
}

// TestQuietHTTP2: over HTTP/2, a deadline that passes resets the stream, whether
// anything is being written or not. A client that asks for few keep-alives must
// not be cut off between them, or while the store is away.
func TestQuietHTTP2(t *testing.T) {
	t.Parallel()
	for tooLong := range longer(t, 500*time.Millisecond) {
		if quiet(t, tooLong) {
			break
		}
	}
}

// quiet reports false if a stream did not begin within tooLong, which is less than a
// keep-alive takes to come.
func quiet(t *testing.T, tooLong time.Duration) bool {
	store := &broken{}
	n := start(t, server.Options{WriteTimeout: tooLong, Heartbeat: time.Minute}, func(s feed.Store) feed.Store {
		store.Store = s
		return store
	})
	secure := httptest.NewUnstartedServer(n.Server)
	secure.EnableHTTP2 = true
	secure.Config.WriteTimeout = tooLong
	secure.StartTLS()
	t.Cleanup(secure.Close)
	t.Cleanup(func() { n.Drain(context.Background(), 0) })
	follow := func(path string) *follower {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", secure.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		resp, err := secure.Client().Do(r)
		if err != nil {
			return nil
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.ProtoMajor != 2 {
			t.Fatal(resp)
		}
		return &follower{t, resp.Body, bufio.NewReader(resp.Body)}
	}
	f := follow(events + "?heartbeat=" + (4 * tooLong).String())
	if f == nil {
		return false
	}
	if block, err := f.next(); err != nil {
		return false
	} else if block != open("chat", 0, 1, 0) {
		t.Errorf("it begins with %q", block)
	}
	store.down.Store(true)
	held := follow("/v1/feeds/news/events")
	if held == nil {
		return false
	}
	if line, err := f.r.ReadString('\n'); line != ":\n" {
		t.Errorf("%q, %v; want a keep-alive", line, err)
	}
	store.down.Store(false)
	held.want(open("news", 0, 1, 0))
	return true
}

// broken is a store that fails on demand.
type broken struct {
	feed.Store
	down atomic.Bool
}

func (s *broken) err() error {
	if s.down.Load() {
		return fmt.Errorf("%w: the plug was pulled", feed.ErrUnavailable)
	}
	return nil
}

func (s *broken) Append(ctx context.Context, b []feed.Batch) ([]feed.Result, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Append(ctx, b)
}

func (s *broken) Read(ctx context.Context, f string, after feed.ID, l feed.Limit) (feed.Page, error) {
	if err := s.err(); err != nil {
		return feed.Page{}, err
	}
	return s.Store.Read(ctx, f, after, l)
}

func (s *broken) Seek(ctx context.Context, f string, at time.Time) (feed.ID, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.Seek(ctx, f, at)
}

func (s *broken) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Bounds(ctx, feeds)
}

// TestStoreAway: event streams wait for the store, and other requests get a time after
// which to come back.
func TestStoreAway(t *testing.T) {
	store := &broken{}
	n := start(t, server.Options{Heartbeat: 20 * time.Millisecond}, func(s feed.Store) feed.Store {
		store.Store = s
		return store
	})
	n.publish("chat", "a", 1)
	early := n.follow(events+"?from=start", nil)
	early.want(open("chat", 0, 1, 1), event(1, "a"))

	store.down.Store(true)
	r, body := n.do("POST", events, nil, "lost")
	wantProblem(t, r, body, 503, "nothing was stored")
	r, body = n.do("GET", "/v1/feeds/news/events", nil, "")
	wantProblem(t, r, body, 503, "store")
	if r, body := n.do("GET", "/readyz", nil, ""); r.StatusCode != 503 || !strings.Contains(body, `"store":"down"`) {
		t.Errorf("%s %s", r.Status, body)
	}
	held := n.follow("/v1/feeds/news/events?lastEventId=0", map[string]string{"Accept": "text/event-stream"})
	if line, err := held.r.ReadString('\n'); err != nil || line != ":\n" {
		t.Fatalf("%q, %v; want a keep-alive", line, err)
	}

	// An event that another node publishes meanwhile is new to an open stream.
	late := n.follow("/v1/feeds/late/events", map[string]string{"Accept": "text/event-stream"})
	if _, err := store.Store.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "late", Data: "x"}}}}); err != nil {
		t.Fatal(err)
	}

	store.down.Store(false)
	late.want(open("late", 0, 1, 1), event(1, "x"))
	held.want(open("news", 0, 1, 0))
	n.publish("news", "b", 1)
	held.want(event(1, "b"))
	n.publish("chat", "c", 2)
	early.want(event(2, "c"))
}

// panics is a response whose Write panics the second time.
type panics struct {
	*httptest.ResponseRecorder
	writes int
}

func (p *panics) Write(b []byte) (int, error) {
	if p.writes++; p.writes > 1 {
		panic("the pen broke")
	}
	return p.ResponseRecorder.Write(b)
}

// TestPanicEndsStream: a panic in a stream that net/http carries breaks the stream
// off, is logged, and leaves no subscriber behind.
func TestPanicEndsStream(t *testing.T) {
	var log strings.Builder
	n := start(t, server.Options{SubscribersPerAddress: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	n.publish("chat", "a", 1)
	for range 3 {
		func() {
			defer func() {
				if value := recover(); value != http.ErrAbortHandler {
					t.Errorf("got the panic %v, want ErrAbortHandler", value)
				}
			}()
			r := httptest.NewRequest("GET", events+"?from=start", nil)
			n.ServeHTTP(&panics{ResponseRecorder: httptest.NewRecorder()}, r)
		}()
	}
	if count := strings.Count(log.String(), "the pen broke"); count != 3 {
		t.Errorf("logged %d times, want 3:\n%s", count, log.String())
	}
	if left := n.hub.Stats().Subscribers; left != 0 {
		t.Errorf("%d subscribers are left", left)
	}
	ctx := within(t, prompt)
	if n.Drain(ctx, 0); ctx.Err() != nil {
		t.Error("a subscriber is still counted")
	}
}

// TestEverybodyAtOnce: eight publishers at full speed on one feed, while a
// hundred subscribers join at random cursors. Each gets exactly what follows.
func TestEverybodyAtOnce(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const publishers, each, subscribers = 8, 150, 100
	const total = publishers * each
	var published atomic.Int64
	stored := make([]string, total+1) // by id; written before published counts the event
	var storedMu sync.Mutex

	var work sync.WaitGroup
	for p := range publishers {
		work.Go(func() {
			for i := range each {
				data := fmt.Sprintf("publisher %d, event %d", p, i)
				r, body := n.do("POST", events, nil, data)
				var id int
				if _, err := fmt.Sscanf(body, `{"feed":"chat","id":%d,`, &id); err != nil || r.StatusCode != 201 {
					t.Errorf("%s %s", r.Status, body)
					return
				}
				storedMu.Lock()
				stored[id] = data
				storedMu.Unlock()
				published.Add(1)
			}
		})
	}
	got := make([][]client.Event, subscribers)
	starts := make([]int, subscribers)
	for i := range subscribers {
		work.Go(func() {
			for published.Load() < int64(rand.IntN(total)) && published.Load() < total {
				time.Sleep(time.Millisecond) // until some moment in the middle of it
			}
			starts[i] = rand.IntN(int(published.Load()) + 1)
			resp := n.request("GET", fmt.Sprintf("%s?lastEventId=%d", events, starts[i]), nil, "")
			defer resp.Body.Close()
			got[i] = readTo(t, resp, total)
		})
	}
	work.Wait()
	for i, list := range got {
		for k, e := range list {
			id := starts[i] + k + 1
			if e.LastEventID != fmt.Sprint(id) || e.Data != stored[id] {
				t.Fatalf("subscriber %d from %d: got event %s %q, want %d %q", i, starts[i], e.LastEventID, e.Data, id, stored[id])
			}
		}
		if len(list) != total-starts[i] {
			t.Errorf("subscriber %d from %d: %d events, want %d", i, starts[i], len(list), total-starts[i])
		}
	}
}

// readTo reads a stream's events up to the id last.
func readTo(t *testing.T, resp *http.Response, last int) []client.Event {
	var list []client.Event
	for e, err := range client.Read(resp.Body, nil) {
		if err != nil {
			t.Error(err)
			return list
		}
		if !strings.HasPrefix(e.Type, "feed.") {
			list = append(list, e)
		}
		if e.LastEventID == fmt.Sprint(last) {
			return list
		}
	}
	t.Errorf("the stream ended after %d events", len(list))
	return list
}

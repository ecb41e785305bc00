package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// streamServer stores the lines of streams, each key once, and ends requests as told.
type streamServer struct {
	mu      sync.Mutex
	breaks  []int // after how many lines each request ends, without an answer
	status  int   // that answers a line "refused"
	stored  map[string]string
	order   []string
	matches []string
}

func (s *streamServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	breaks := -1
	if len(s.breaks) > 0 {
		breaks, s.breaks = s.breaks[0], s.breaks[1:]
	}
	s.matches = append(s.matches, r.Header.Get("If-Match"))
	s.mu.Unlock()
	_ = http.NewResponseController(w).EnableFullDuplex()
	lines := bufio.NewScanner(r.Body)
	n, replayed := 0, 0
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		if n == breaks {
			panic(http.ErrAbortHandler)
		}
		if strings.Contains(lines.Text(), "refused") {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(s.status)
			fmt.Fprintf(w, `{"detail":"no","status":%d,"events":%d,"line":%d}`, s.status, n, n+1)
			return
		}
		n++
		key := fmt.Sprint(r.Header.Get("Idempotency-Key"), "/", n)
		s.mu.Lock()
		if _, ok := s.stored[key]; ok {
			replayed++
		} else {
			s.stored[key] = lines.Text()
			s.order = append(s.order, lines.Text())
		}
		s.mu.Unlock()
	}
	if n == breaks || lines.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"feed":"chat","first":%d,"last":%d,"events":%d,"replayed":%d}`, min(n, 1), n, n, replayed)
}

func publishTo(t *testing.T, s *streamServer, ctx context.Context, o PublishedStream, drafts <-chan feed.Draft) (StreamResult, error) {
	t.Helper()
	s.stored = make(map[string]string)
	srv := httptest.NewServer(s)
	defer srv.Close()
	c, err := New(srv.URL, Options{RetryMin: time.Millisecond, RetryMax: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.http.CloseIdleConnections()
	return c.PublishStream(ctx, o, drafts)
}

func given(data ...string) <-chan feed.Draft {
	c := make(chan feed.Draft, len(data))
	for _, d := range data {
		c <- feed.Draft{Data: d}
	}
	close(c)
	return c
}

// TestPublishStream: whatever request breaks off, and where, the events are stored once
// and in order.
func TestPublishStream(t *testing.T) {
	for first := range 5 {
		for second := range 5 {
			s := &streamServer{breaks: []int{first, second, 4}}
			got, err := publishTo(t, s, t.Context(), PublishedStream{Feed: "chat"}, given("a", "b", "c", "d"))
			want := []string{`{"data":"a"}`, `{"data":"b"}`, `{"data":"c"}`, `{"data":"d"}`}
			if err != nil || got.Events != 4 || got.First != 1 || got.Last != 4 || !slices.Equal(s.order, want) {
				t.Errorf("cut at %d and %d: %+v, %v, stored %q", first, second, got, err, s.order)
			}
		}
	}
}

func TestPublishStreamRefused(t *testing.T) {
	s := &streamServer{status: 409}
	got, err := publishTo(t, s, t.Context(), PublishedStream{Feed: "chat"}, given("a", "b", "refused", "d"))
	if problem, ok := errors.AsType[*Problem](err); !ok || !errors.Is(err, feed.ErrClosed) || problem.Line != 3 || got.Events != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	// What comes before a draft that cannot be sent is stored.
	s = &streamServer{}
	got, err = publishTo(t, s, t.Context(), PublishedStream{Feed: "chat"}, given("a", "\xff", "c"))
	if !errors.Is(err, feed.ErrInvalid) || got.Events != 1 || len(s.order) != 1 {
		t.Errorf("%+v, %v, stored %q", got, err, s.order)
	}
	if _, err := publishTo(t, s, t.Context(), PublishedStream{Feed: "chat", Key: strings.Repeat("k", 201)}, given()); !errors.Is(err, feed.ErrInvalid) {
		t.Errorf("a long key: %v", err)
	}
}

// TestPublishStreamParts: a stream of many events takes several requests, and the chain
// goes on from one to the next.
func TestPublishStreamParts(t *testing.T) {
	s := &streamServer{}
	got, err := publishTo(t, s, t.Context(), PublishedStream{Feed: "chat", IfLast: new(feed.ID(0))}, given(slices.Repeat([]string{strings.Repeat("x", 50_000)}, 30)...))
	if err != nil || got.Events != 30 || !slices.Equal(s.matches, []string{`"0"`, `"21"`}) {
		t.Errorf("%+v, %v, matches %q", got, err, s.matches)
	}
}

// TestPublishStreamInterrupted: what was taken before the end of the context is stored.
func TestPublishStreamInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	drafts := make(chan feed.Draft)
	go func() {
		drafts <- feed.Draft{Data: "a"}
		drafts <- feed.Draft{Data: "b"}
		cancel()
	}()
	got, err := publishTo(t, &streamServer{}, ctx, PublishedStream{Feed: "chat", Close: true}, drafts)
	if !errors.Is(err, context.Canceled) || got.Events != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDrafts: a stream of events becomes drafts, and its last block needs no empty line.
func TestDrafts(t *testing.T) {
	var got []feed.Draft
	for d, err := range Drafts(strings.NewReader("event: t\ndata: a\ndata: b\n\n: x\nid: 1\n\ndata: c\n\ndata: d")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d)
	}
	if want := []feed.Draft{{Type: "t", Data: "a\nb"}, {Data: "c"}, {Data: "d"}}; !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestPublishStreamAnswered: a part whose request fails while it takes a draft, or hands
// it over, has that failure. What the request did not send is sent again.
func TestPublishStreamAnswered(t *testing.T) {
	for range 100 {
		drafts := make(chan feed.Draft, 1)
		drafts <- feed.Draft{Data: "x"}
		answered := make(chan error, 1)
		answered <- errors.New("broken off")
		p := &part{stream: PublishedStream{Feed: "chat"}, from: drafts}
		if err, done := p.feed(t.Context(), make(chan string), make(chan struct{}), answered); err == nil || !done {
			t.Fatalf("got %v, %t with %d lines taken", err, done, len(p.lines))
		}
	}
}

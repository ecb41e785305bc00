package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
)

// walk follows the links of a relation and returns the ids of each page.
func (n *node) walk(path, rel string) (pages [][2]feed.ID) {
	n.t.Helper()
	for path != "" {
		p := n.page(path, nil)
		low, high := p.ids(n.t)
		pages = append(pages, [2]feed.ID{low, high})
		path = p.links[rel]
	}
	return pages
}

// wantWalk demands that the pages have each event from low to high once.
func wantWalk(t *testing.T, pages [][2]feed.ID, rel string, low, high feed.ID) {
	t.Helper()
	for i, p := range pages {
		if i == 0 {
			continue
		}
		if rel == "next" && p[0] != pages[i-1][1]+1 || rel == "prev" && p[1] != pages[i-1][0]-1 {
			t.Errorf("page %d has %d to %d, and the one before %d to %d", i, p[0], p[1], pages[i-1][0], pages[i-1][1])
		}
	}
	oldest, newest := pages[0], pages[len(pages)-1]
	if rel == "prev" {
		oldest, newest = newest, oldest
	}
	if oldest[0] != low || newest[1] != high {
		t.Errorf("the pages have %d to %d, want %d to %d", oldest[0], newest[1], low, high)
	}
}

// TestWalk: following the links in either direction yields every event once.
func TestWalk(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.append("chat", 1234)
	for _, limit := range []int{7, 100, 1000} {
		for rel, start := range map[string]string{"next": "after=0", "prev": "before=1235"} {
			pages := n.walk(fmt.Sprintf("%s?%s&limit=%d", events, start, limit), rel)
			wantWalk(t, pages, rel, 1, 1234)
			if len(pages) != (1234+limit-1)/limit {
				t.Errorf("%s: %d pages of %d", rel, len(pages), limit)
			}
		}
	}
}

// TestLongPages: a page has as many events as were asked for, however large they are.
func TestLongPages(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{}, nil)
	small, large := "x", strings.Repeat("x", 59_000)
	for i := range 600 {
		data := small
		if i >= 100 && i < 230 {
			data = large
		}
		if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		query string
		want  [2]feed.ID
	}{
		{"after=0&limit=1000", [2]feed.ID{1, 600}},
		{"after=99&limit=131", [2]feed.ID{100, 230}},
		{"before=601&limit=1000", [2]feed.ID{1, 600}},
		{"before=231&limit=72", [2]feed.ID{159, 230}},
		{"before=9999&limit=500", [2]feed.ID{101, 600}},
		{"before=150&limit=1000", [2]feed.ID{1, 149}},
	} {
		p := n.page(events+"?"+test.query, nil)
		if low, high := p.ids(t); low != test.want[0] || high != test.want[1] {
			t.Errorf("%s: %d to %d, want %v", test.query, low, high, test.want)
		}
	}
	wantWalk(t, n.walk(events+"?limit=1000", "next"), "next", 1, 600)
	wantWalk(t, n.walk(events+"?before=601&limit=1000", "prev"), "prev", 1, 600)
}

// TestAnEventLargerThanAPage: such an event cannot be published, but might stand in a
// store.
func TestAnEventLargerThanAPage(t *testing.T) {
	store := newKeeper(t)
	huge := strings.Repeat("x", 4<<20+1)
	for range 2 {
		if _, err := store.Append(t.Context(), []feed.Batch{{Drafts: []feed.Draft{{Feed: "chat", Data: huge}}}}); err != nil {
			t.Fatal(err)
		}
	}
	n := startOn(t, store, server.Options{})
	wantWalk(t, n.walk(events, "next"), "next", 1, 2)
	wantWalk(t, n.walk(events+"?before=3", "prev"), "prev", 1, 2)
}

// discard is a client that takes everything.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(b []byte) (int, error) {
	d.bytes += len(b)
	return len(b), nil
}

// TestPageMemory: a page takes 24 MB on the wire, because JSON escapes control
// characters. It is never in memory as a whole.
func TestPageMemory(t *testing.T) {
	n := startOn(t, feedtest.NewStore(), server.Options{}) // hands out its events without copying them
	for range 419 {
		if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: strings.Repeat("\x01", 10_000)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, query := range []string{"?after=0&limit=1000", "?before=420&limit=1000"} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", events+query, nil)
		r.Header.Set("Accept", "application/json")
		w := &discard{header: http.Header{}}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; w.bytes < 24_000_000 || took > 2<<20 {
			t.Errorf("%s: %d bytes took %d bytes of memory", query, w.bytes, took)
		}
	}
}

// TestNothingFallsBetween: the page is rendered, then the stream is opened with
// its cursor, while others publish.
func TestNothingFallsBetween(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const total, readers = 2000, 8
	var work sync.WaitGroup
	work.Go(func() {
		for i := range total {
			if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: fmt.Sprint(i + 1)}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range readers {
		work.Go(func() {
			path, cursor, seen := fmt.Sprintf("%s?limit=%d", events, 1+i*20), "", feed.ID(0)
			for path != "" && (i%2 == 0 || seen < total/2) { // some do not read to the end
				p := n.page(path, nil)
				low, high := p.ids(t)
				if len(p.Events) > 0 && low != seen+1 {
					t.Errorf("the page after %d begins with %d", seen, low)
				}
				seen, cursor, path = max(seen, high), p.Cursor, p.links["next"]
			}
			resp := n.request("GET", events+"?lastEventId="+cursor, nil, "")
			defer resp.Body.Close()
			if seen == total {
				return // nothing will follow
			}
			for _, e := range readTo(t, resp, total) {
				if seen++; e.LastEventID != fmt.Sprint(seen) || e.Data != e.LastEventID {
					t.Fatalf("got event %s %s, want %d", e.LastEventID, e.Data, seen)
				}
			}
			if seen != total {
				t.Errorf("the stream ended with %d", seen)
			}
		})
	}
	work.Wait()
}

// TestTrimmedWhileWalking: pages continue with the oldest event that is left; the
// stream opened after a gap has the gap.
func TestTrimmedWhileWalking(t *testing.T) {
	n := start(t, server.Options{}, nil)
	n.append("chat", 100)
	p := n.page(events+"?limit=10", nil)
	n.delete(events + "?before=51")
	q := n.page(p.links["next"], nil)
	if low, high := q.ids(t); low != 51 || high != 60 || q.First != 51 || q.links["prev"] != "" {
		t.Errorf("%d to %d, %v", low, high, q)
	}
	f := n.follow(events+"?lastEventId="+p.Cursor, nil)
	f.want(open("chat", 10, 51, 100), "event: feed.gap\ndata: {\"feed\":\"chat\",\"after\":\"10\",\"resumes\":51,\"reason\":\"trimmed\"}\nid: 50\n")
	r, body := n.do("GET", p.links["next"]+"&gap=fail", acceptJSON, "")
	wantProblem(t, r, body, 410, "51")

	wantWalk(t, n.walk(events+"?before=80&limit=7", "prev"), "prev", 51, 79)
	n.delete("/v1/feeds/chat")
	q = n.page(p.links["next"], nil)
	if q.Cursor != "10" || len(q.Events) > 0 || len(q.links) > 0 {
		t.Errorf("deleted: %+v", q)
	}
	n.publish("chat", "101", 101)
	q = n.page(p.links["next"], nil)
	if low, high := q.ids(t); low != 101 || high != 101 || q.Cursor != "101" {
		t.Errorf("%d to %d, %v", low, high, q)
	}
}

// TestTrimmedWithinAPage: a page of large events is put together from several reads.
// If events are trimmed in between, the server breaks the page off, because it would
// have a hole. The next request gets the events that remain.
func TestTrimmedWithinAPage(t *testing.T) {
	for _, test := range []struct{ before, low, high feed.ID }{{220, 220, 300}, {260, 260, 300}, {301, 0, 0}} {
		store := feedtest.NewStore()
		var reads atomic.Int64
		n := startOn(t, store.Through(func(ctx context.Context, c feedtest.Call) error {
			if c.At == feedtest.ReadAsked && reads.Add(1) == 3 {
				return store.Trim(ctx, "chat", test.before)
			}
			return nil
		}), server.Options{})
		for range 300 {
			if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: strings.Repeat("x", 50_000)}); err != nil {
				t.Fatal(err)
			}
		}
		resp := n.request("GET", events+"?before=301&limit=200", map[string]string{"Accept": "application/json"}, "")
		if body, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes, and then %v", len(body), err)
		}
		resp.Body.Close()
		p := n.page(events+"?before=301&limit=200", nil)
		low, high := p.ids(t)
		if diff := cmp.Diff([]feed.ID{test.low, test.high, test.before}, []feed.ID{low, high, p.First}); diff != "" {
			t.Errorf("after %d reads: %s", reads.Load(), diff)
		}
		if p.links["prev"] != "" {
			t.Errorf("prev: %s", p.links["prev"])
		}
	}
}

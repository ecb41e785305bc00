package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// reports makes the node report its number, and counts how often.
func (r *rig) reports(number int) *atomic.Int64 {
	read := new(atomic.Int64)
	r.hub.Report(func(context.Context) string {
		read.Add(1)
		return fmt.Sprint(number)
	})
	return read
}

// watch returns what the next report of each node is, within so long.
func watch(t *testing.T, s *feed.Subscription, within time.Duration) map[string]int {
	t.Helper()
	got := map[string]int{}
	for {
		began := time.Now()
		d := next(t, s, within)
		if len(d.Events()) == 0 {
			return got
		}
		e := d.Events()[0]
		if !d.Ephemeral || e.ID != 0 || e.Feed != feed.NodesFeed || e.Type != "node" || !e.JSON || e.Time.IsZero() {
			t.Fatalf("got %+v", e)
		}
		got[e.Data]++
		within -= time.Since(began)
	}
}

// Nodes report only while somebody watches, whichever node that is at.
func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rigs := startNodes(t, 3)
		var read []*atomic.Int64
		var mu sync.Mutex
		sent := 0
		for i, r := range rigs {
			read = append(read, r.reports(i))
			r.wire.set(0, func(payload []byte) bool {
				mu.Lock()
				defer mu.Unlock()
				if strings.Contains(string(payload), `"report"`) {
					sent++
				}
				return true
			}, nil)
		}
		time.Sleep(time.Minute)
		if n := read[0].Load() + read[1].Load() + read[2].Load(); n != 0 || sent != 0 {
			t.Fatalf("nobody watches, and there are %d reports, %d of them sent", n, sent)
		}

		s := rigs[1].subscribe(feed.NodesFeed, feed.From{})
		if diff := cmp.Diff(map[string]int{"0": 1, "1": 1, "2": 1}, watch(t, s, 100*time.Millisecond)); diff != "" {
			t.Errorf("at once: %s", diff)
		}
		if diff := cmp.Diff(map[string]int{"0": 10, "1": 10, "2": 10}, watch(t, s, 10*time.Second)); diff != "" {
			t.Errorf("in ten seconds: %s", diff)
		}
		s.Close()
		time.Sleep(5 * time.Second)
		before := read[0].Load() + read[1].Load() + read[2].Load()
		time.Sleep(time.Minute)
		if n := read[0].Load() + read[1].Load() + read[2].Load() - before; n != 0 {
			t.Errorf("nobody watches any more, and there are %d reports", n)
		}

		// A node that dies while it is watched from is forgotten, too.
		s = rigs[1].subscribe(feed.NodesFeed, feed.From{})
		watch(t, s, 3*time.Second)
		rigs[1].wire.set(0, nothing, nothing)
		time.Sleep(10 * time.Second)
		before = read[0].Load()
		time.Sleep(time.Minute)
		if n := read[0].Load() - before; n != 0 {
			t.Errorf("the only watcher is silent, and there are %d reports", n)
		}
		watch(t, s, time.Second)
		if diff := cmp.Diff(map[string]int{"1": 5}, watch(t, s, 5*time.Second)); diff != "" {
			t.Errorf("without the bus: %s", diff)
		}
	})
}

// However many nodes there are, they report fifty times in a second at the most, all
// together.
func TestReportsOfManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startNodes(t, 1)[0]
		read := r.reports(0)
		r.subscribe(feed.NodesFeed, feed.From{})
		for second := range 40 {
			for i := range 149 {
				if err := r.wire.Bus.Signal(t.Context(), fmt.Appendf(nil, "node %d\n[{\"kind\":\"here\"}]", i)); err != nil {
					t.Fatal(err)
				}
			}
			if time.Sleep(time.Second); second == 9 {
				read.Store(0)
			}
		}
		if n := read.Load(); n < 9 || n > 11 {
			t.Errorf("of 150 nodes, one has reported %d times in 30 s, want every 3 s", n)
		}
	})
}

// A report needs no store, and neither does a subscription to reports.
func TestReportsWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.hold(func(context.Context, feedtest.Call) error { return errors.New("away") })
		r.reports(7)
		for _, from := range []feed.From{{}, feed.FromStart(), feed.FromCursor(0), feed.FromTime(time.Now())} {
			s := r.subscribe(feed.NodesFeed, from)
			if got := watch(t, s, 3*time.Second); got["7"] < 2 {
				t.Errorf("from %v: got %v", from, got)
			}
			s.Close()
		}
		if p, err := r.hub.Read(t.Context(), feed.NodesFeed, 0, feed.Limit{Events: 1, Bytes: 1}); err != nil || p.First != 1 || len(p.Events) != 0 {
			t.Errorf("got %+v, %v", p, err)
		}
		time.Sleep(30 * time.Second) // verification passes the feed over
		if n := r.count(feedtest.BoundsAsked); n != 0 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

// Clients cannot write to a feed of the server, through whichever node.
func TestReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rigs := startNodes(t, 2)
		r := rigs[0]
		s := rigs[1].subscribe(feed.NodesFeed, feed.From{})
		for _, name := range []string{feed.NodesFeed, "feed.", "feed.x"} {
			draft := feed.Draft{Feed: name, Data: "1", JSON: true}
			_, published := r.pub.Publish(t.Context(), draft)
			_, several := r.pub.PublishBatch(t.Context(), feed.Publication{Drafts: []feed.Draft{{Feed: "a"}, draft}})
			_, keyed := r.pub.PublishBatch(t.Context(), feed.Publication{Feed: name, Drafts: []feed.Draft{draft}, Key: "k"})
			_, closed := r.pub.PublishBatch(t.Context(), feed.Publication{Feed: name, Close: true})
			for what, err := range map[string]error{
				"published": published, "one of several": several, "with a key": keyed, "closed": closed,
				"ephemeral": r.pub.PublishEphemeral(t.Context(), draft),
			} {
				if !errors.Is(err, feed.ErrInvalid) || !strings.Contains(err.Error(), `begin with "feed." belong to the server`) {
					t.Errorf("%s, %s: got %v", name, what, err)
				}
			}
		}
		if p := r.store.History(feed.NodesFeed); p.Last != 0 {
			t.Errorf("something was stored: %+v", p)
		}
		// A node of an older version lets clients publish there.
		for _, kind := range []string{"ephemeral", "report"} {
			for _, event := range []string{
				`{"Feed":"feed.nodes","Type":"node","Data":"1"}`, `{"Feed":"feed.nodes","Type":"x","Data":"1","JSON":true}`,
				`{"Feed":"feed.nodes","Type":"node","Data":"{","JSON":true}`, `{"Feed":"feed.nodes","ID":1,"Type":"node","Data":"1","JSON":true}`,
				`{"Feed":"chat","Type":"node","Data":"1","JSON":true}`,
			} {
				if err := r.wire.Bus.Signal(t.Context(), fmt.Appendf(nil, "old\n[{\"kind\":%q,\"event\":%s}]", kind, event)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := watch(t, s, 5*time.Second); len(got) > 0 {
			t.Errorf("a client got through with %v", got)
		}
	})
}

func TestFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for name, n := range map[string]int{"a": 1, "b": 3, "c": 2, "d": 1, feed.NodesFeed: 5} {
			for range n {
				r.subscribe(name, feed.From{})
			}
		}
		r.subscribe("gone", feed.From{}).Close()
		got, ok := r.hub.Followed(3)
		if diff := cmp.Diff([]feed.FollowedFeed{{Feed: "b", Subscribers: 3}, {Feed: "c", Subscribers: 2}, {Feed: "a", Subscribers: 1}}, got); diff != "" || !ok {
			t.Error(diff)
		}
	})
}

func TestQuantile(t *testing.T) {
	var d feed.Durations
	if _, ok := d.Counts().Quantile(.5); ok {
		t.Error("nothing has a median")
	}
	before := d.Counts()
	for range 98 {
		d.Observe(1500 * time.Microsecond)
	}
	d.Observe(20 * time.Millisecond)
	d.Observe(time.Hour)
	for q, want := range map[float64][2]time.Duration{
		.5: {time.Millisecond, 2 * time.Millisecond}, .985: {10 * time.Millisecond, 25 * time.Millisecond}, 1: {30 * time.Second, 30 * time.Second},
	} {
		if got, ok := d.Counts().Minus(before).Quantile(q); !ok || got < want[0] || got > want[1] {
			t.Errorf("%v: got %v, want %v", q, got, want)
		}
	}
}

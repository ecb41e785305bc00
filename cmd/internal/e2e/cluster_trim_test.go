package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

var trimFor = flag.Duration("trim-for", 2*time.Second, "how long the test of trimming under readers takes")

// TestClusterTrim trims a feed in a loop, at any point of it, while it is
// published to and twenty readers replay it from before its first event, on
// both nodes, cut off at any point. What each sees has no hole, but for gaps
// that say what is missing: something that is gone, and no more than that.
func TestClusterTrim(t *testing.T) {
	t.Parallel()
	onEachBus(t, testClusterTrim)
}

func testClusterTrim(t *testing.T, c *cluster) {
	const readers = 20
	c.start(2)
	tr := &trimming{c: c}
	for range 3 {
		tr.publish(c.nodes[0], 1000)
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); work.Wait() })
	work.Go(func() {
		for ctx.Err() == nil {
			tr.publish(c.nodes[1], 50)
			time.Sleep(20 * time.Millisecond) // or the readers would never reach the end
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			tr.trim(c.nodes[0])
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // a random moment
		}
	})
	var reading sync.WaitGroup
	began := time.Now()
	for i := range readers {
		reading.Go(func() {
			// A machine with much else to do takes longer to try it all.
			for j := 0; time.Since(began) < *trimFor || !tr.tried(readers) && time.Since(began) < 60**trimFor; j++ {
				tr.replay(t, c.nodes[i%2], fmt.Sprintf("replay %d of reader %d, at node %d", j, i, i%2), i%2 == 0)
			}
		})
	}
	reading.Wait()
	cancel()
	work.Wait()
	h := readHistory(t, c.nodes[1].url, "chat")
	c.checker.End("chat", h.page(t))
	if err := c.checker.Err(); err != nil {
		t.Error(err)
	}
	t.Logf("%d trims up to %d of %d events, %d gaps, %d of them in the middle, %d cuts", tr.trims.Load(), h.First-1, h.Last, tr.gaps.Load(), tr.middle.Load(), tr.cuts.Load())
	if !tr.tried(readers) {
		t.Error("that is not what was to be tried")
	}
	if t.Failed() {
		t.Logf("node 0:\n%s\nnode 1:\n%s", c.nodes[0].log, c.nodes[1].log)
	}
}

// trimming is a feed that is published to and trimmed.
type trimming struct {
	c                         *cluster
	last                      atomic.Uint64 // acknowledged
	gone                      atomic.Uint64 // what is below was trimmed, and that was answered
	trims, gaps, middle, cuts atomic.Int64
}

// tried reports whether what was to be tried has happened often enough.
func (tr *trimming) tried(readers int64) bool {
	return tr.trims.Load() >= 20 && tr.gaps.Load() >= 2*readers && tr.middle.Load() > 0 && tr.cuts.Load() > 0
}

func (tr *trimming) publish(n *process, count int) {
	var lines []byte
	events := make([]feed.Event, count)
	for i := range events {
		events[i] = feed.Event{Feed: "chat", Data: fmt.Sprintf("%d behind %d %0*d", i, tr.last.Load(), rand.IntN(500), 0)}
		lines = fmt.Appendf(lines, "{\"data\":%q}\n", events[i].Data)
	}
	text := call(tr.c.t, http.MethodPost, n.url+"/v1/feeds/chat/events", "application/x-ndjson", string(lines), http.StatusCreated)
	var answer struct{ Events []struct{ ID feed.ID } }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Events) != count {
		tr.c.t.Errorf("%v in %s", err, text)
		return
	}
	for i := range events {
		events[i].ID = answer.Events[i].ID
	}
	tr.c.checker.Acked(events...)
	tr.last.Store(uint64(answer.Events[count-1].ID))
}

// trim gives up some events, and at times nearly all.
func (tr *trimming) trim(n *process) {
	last, gone := tr.last.Load(), tr.gone.Load()
	before := min(last+1, max(gone, 1)+uint64(rand.IntN(60)))
	if rand.IntN(50) == 0 {
		before = max(before, last-min(last, uint64(rand.IntN(1000))))
	}
	tr.c.checker.Trimming("chat", feed.ID(before))
	call(tr.c.t, http.MethodDelete, n.url+"/v1/feeds/chat/events?before="+strconv.FormatUint(before, 10), "", "", http.StatusNoContent)
	tr.gone.Store(max(gone, before))
	tr.trims.Add(1)
}

// replay reads from before the first event to what is the last at the start,
// over connections that end at any point. Here says that the node is the one
// that is trimmed on, which serves nothing of what it said was gone.
func (tr *trimming) replay(t *testing.T, n *process, who string, here bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	end := feed.ID(tr.last.Load())
	r := &replayer{tr: tr, seen: tr.c.checker.Follow(who, "chat")}
	source := &eventSource{url: func() string { return n.url + "/v1/feeds/chat/events?envelope=true" }, from: "0"}
	first := true
	for ctx.Err() == nil && r.seen.Cursor() < end {
		if !first {
			r.seen.Resume(r.seen.Cursor())
			source.from = r.seen.Cursor().String()
			tr.cuts.Add(1)
		}
		first = false
		if here {
			r.seen.Gone(feed.ID(tr.gone.Load()))
		}
		connection, cut := context.WithCancel(ctx)
		left := 1 + rand.IntN(2000)
		source.take = func(b rawBlock) {
			if connection.Err() != nil {
				return // what was read before the cut shows
			}
			r.take(b)
			if left--; left == 0 || r.seen.Cursor() >= end {
				cut()
			}
		}
		source.run(connection)
		cut()
		if source.status() != 0 {
			t.Errorf("%s: %v", who, source)
			return
		}
	}
	if ctx.Err() != nil {
		t.Errorf("%s does not reach %d: %v", who, end, source)
	}
	r.seen.Leave()
}

// replayer tells the checker what a stream of one feed brings.
type replayer struct {
	tr   *trimming
	seen *feedtest.Follower
}

func (r *replayer) take(b rawBlock) {
	t := r.tr.c.t
	var err error
	switch b.kind {
	case "feed.open":
		var open struct{ Cursor string }
		if err = json.Unmarshal([]byte(b.data), &open); err == nil {
			var at feed.ID
			if at, err = feed.ParseCursor(open.Cursor); err == nil && open.Cursor == b.id {
				r.seen.Opened(at)
			}
		}
	case "feed.gap":
		var gap struct {
			After   feed.ID `json:",string"`
			Resumes feed.ID
			Reason  feed.GapReason
		}
		if err = json.Unmarshal([]byte(b.data), &gap); err == nil {
			r.tr.gaps.Add(1)
			if gap.After > 0 {
				r.tr.middle.Add(1)
			}
			r.seen.SawGap(feed.Gap{After: gap.After, Resumes: gap.Resumes, Reason: gap.Reason})
		}
	default:
		var e wireEvent
		if err = json.Unmarshal([]byte(b.data), &e); err == nil {
			r.seen.Saw(e.event())
		}
	}
	if at := r.seen.Cursor(); err != nil || b.id != at.String() {
		t.Errorf("after %d: %v in %+v", at, err, b)
	}
}

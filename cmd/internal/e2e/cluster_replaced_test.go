package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

// TestClusterStoreWentBackAndGrew has nodes meet, while they run, what they see
// of a standby that was promoted without its last commits and was published to:
// ids that were given before stand for other events.
func TestClusterStoreWentBackAndGrew(t *testing.T) {
	t.Parallel()
	onEachBus(t, testWentBackAndGrew)
}

func testWentBackAndGrew(t *testing.T, c *cluster) {
	c.start(2)
	for i := range 70 {
		c.mustPublish(c.nodes[i%2], "chat", fmt.Sprintf("old %d", i+1))
	}
	c.mustPublish(c.nodes[0], "other", "untouched")
	var streams, others []<-chan sight
	for _, n := range c.nodes {
		streams = append(streams, streamOf(t, n, "chat", "0"))
		others = append(others, streamOf(t, n, "other", "0"))
	}
	for i, s := range streams {
		for id := range feed.ID(70) {
			nextSight(t, s).demand(t, id+1, fmt.Sprintf("old %d", id+1))
		}
		nextSight(t, others[i]).demand(t, 1, "untouched")
	}

	c.sendBack("chat", 50, 80, "promoted")
	for _, s := range streams {
		nextSight(t, s).demandGap(t, 70, 81)
	}
	c.mustPublish(c.nodes[1], "chat", "new 81")
	for _, s := range streams {
		nextSight(t, s).demand(t, 81, "new 81")
	}
	for _, n := range c.nodes {
		late := streamOf(t, n, "chat", "50")
		for id := feed.ID(51); id <= 80; id++ {
			nextSight(t, late).demand(t, id, fmt.Sprintf("promoted %d", id))
		}
		nextSight(t, late).demand(t, 81, "new 81")
	}

	// It ends earlier, and a node's own commits are the first to come.
	c.sendBack("chat", 60, 60, "")
	for i := range 30 {
		if _, err := publish(http.DefaultClient, c.nodes[0].url, "chat", fmt.Sprintf("own %d", 61+i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range streams {
		at, b := feed.ID(81), nextSight(t, s)
		for ; b.Kind == client.KindEvent && b.ID == at+1; b = nextSight(t, s) {
			// The bus may be faster than the comparison: then this node takes them for
			// what follows, until it compares.
			b.demand(t, at+1, fmt.Sprintf("own %d", at+1))
			at++
		}
		if b.Gap.Reason != feed.Ahead || b.Gap.After != at || b.Gap.Resumes < 61 || b.Gap.Resumes > 91 {
			t.Fatalf("got %+v, want a gap ahead of %d", b, at)
		}
		for id := b.Gap.Resumes; id <= 90; id++ {
			nextSight(t, s).demand(t, id, fmt.Sprintf("own %d", id))
		}
	}
	c.mustPublish(c.nodes[0], "other", "still untouched")
	for i, n := range c.nodes {
		nextSight(t, others[i]).demand(t, 2, "still untouched")
		if lines := strings.Count(n.log.String(), "replaced by an older one"); lines != 1 {
			t.Errorf("node %d logged it %d times:\n%s", i, lines, n.log)
		}
	}
}

// sendBack makes the feed in the database what an older copy of it has become:
// it loses the events after last, and gets others up to the id end.
func (c *cluster) sendBack(name string, last, end int, data string) {
	c.t.Helper()
	db, err := pgx.Connect(c.t.Context(), c.store)
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close(context.Background())
	err = pgx.BeginFunc(c.t.Context(), db, func(tx pgx.Tx) error {
		for _, step := range []struct {
			sql  string
			args []any
		}{
			{`DELETE FROM rejoin.events e USING rejoin.feeds f WHERE f.name = $1 AND e.feed = f.id AND e.seq > $2`, []any{name, last}},
			{`INSERT INTO rejoin.events (feed, seq, time, json, type, data)
			  SELECT f.id, n, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, false, '', $3::text || ' ' || n
			  FROM rejoin.feeds f, generate_series($2::int + 1, $4::int) n WHERE f.name = $1`, []any{name, last, data, end}},
			{`UPDATE rejoin.feeds f SET last = $2, updated = (SELECT max(e.time) FROM rejoin.events e WHERE e.feed = f.id)
			  WHERE f.name = $1`, []any{name, end}},
		} {
			if _, err := tx.Exec(c.t.Context(), step.sql, step.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// sight is an event or a gap of a stream.
type sight struct {
	client.Event
	err error // of the stream, which has ended
}

func (b sight) demand(t *testing.T, id feed.ID, data string) {
	t.Helper()
	if b.err != nil || b.Kind != client.KindEvent || b.ID != id || b.Data != data {
		t.Fatalf("got %v %q, gap %+v, %v; want event %d %q", b.Event, b.Data, b.Gap, b.err, id, data)
	}
}

func (b sight) demandGap(t *testing.T, after feed.ID, resumes feed.ID) {
	t.Helper()
	want := feed.Gap{After: after, Resumes: resumes, Reason: feed.Ahead}
	if b.err != nil || b.Kind != client.KindGap || b.Gap != want {
		t.Fatalf("got %v %q, gap %+v, %v; want the gap %+v", b.Event, b.Data, b.Gap, b.err, want)
	}
}

func nextSight(t *testing.T, s <-chan sight) sight {
	t.Helper()
	select {
	case b := <-s:
		return b
	case <-time.After(30 * time.Second):
		t.Fatal("the stream brings nothing")
		return sight{}
	}
}

// streamOf follows a feed after the cursor until the test ends.
func streamOf(t *testing.T, n *process, name, after string) <-chan sight {
	t.Helper()
	stream, err := clientOf(t, n.url).Connect(t.Context(), client.Subscription{Feeds: []string{name}, Cursor: after})
	if err != nil {
		t.Fatal(err)
	}
	sights := make(chan sight, 1000)
	go func() {
		defer stream.Close()
		for {
			e, err := stream.Next()
			if err != nil || e.Kind != client.KindOpen {
				sights <- sight{e, err}
			}
			if err != nil {
				return
			}
		}
	}()
	return sights
}

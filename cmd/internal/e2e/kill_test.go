package e2e

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

// TestKill kills the server with SIGKILL in the middle of publishing, again and
// again: what was acknowledged is there after each restart, under its id; the
// ids have no hole; what was not acknowledged is there once or not at all.
func TestKill(t *testing.T) {
	t.Parallel()
	const rounds, publishers = 30, 4
	binary := built(t, true) // as users have it: it starts sooner, and publishes more between two kills
	db := filepath.Join(t.TempDir(), "rejoin.db")
	acknowledged := map[feed.ID]string{}
	attempted := map[string]bool{}
	// A slow machine needs more rounds for as much.
	for round := 0; round < rounds || len(acknowledged) < rounds && round < 10*rounds; round++ {
		p := serve(t, binary, db)
		var mu sync.Mutex
		var work sync.WaitGroup
		for n := range publishers {
			work.Go(func() {
				c := &http.Client{Transport: &http.Transport{}}
				defer c.CloseIdleConnections()
				for i := 0; ; i++ {
					data := fmt.Sprintf("round %d publisher %d event %d", round, n, i)
					mu.Lock()
					attempted[data] = true
					mu.Unlock()
					id, err := publish(c, p.url, "chat", data)
					if err != nil {
						return // killed
					}
					mu.Lock()
					if other, taken := acknowledged[id]; taken {
						t.Errorf("id %d was given to %q and to %q", id, other, data)
					}
					acknowledged[id] = data
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // a random moment
		p.kill()
		work.Wait()
	}

	p := serve(t, binary, db)
	stored := readAll(t, p.url, "chat")
	if err := p.terminate(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, p.log)
	}
	if len(acknowledged) < rounds {
		t.Errorf("only %d events were acknowledged in %d rounds", len(acknowledged), rounds)
	}
	seen := map[string]bool{}
	for i, e := range stored {
		id := feed.ID(i) + 1
		if e.ID != id {
			t.Fatalf("event %d stands where %d should", e.ID, id)
		}
		if want, ok := acknowledged[id]; ok && want != e.Data {
			t.Errorf("event %d is %q, was acknowledged as %q", id, e.Data, want)
		}
		delete(acknowledged, id)
		if seen[e.Data] || !attempted[e.Data] {
			t.Errorf("event %d, %q, is there twice or was never published", id, e.Data)
		}
		seen[e.Data] = true
	}
	for id, data := range acknowledged {
		t.Errorf("event %d, %q, was acknowledged and is lost", id, data)
	}
	checkIntegrity(t, db)
}

// readAll returns all events of a feed, by publishing one more and reading up
// to it.
func readAll(t *testing.T, url, feed string) []client.Event {
	t.Helper()
	last, err := publish(http.DefaultClient, url, feed, "the end")
	if err != nil {
		t.Fatal(err)
	}
	var events []client.Event
	for e, err := range clientOf(t, url).Follow(t.Context(), client.Subscription{Feeds: []string{feed}, From: "start"}) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.ID == last:
			return events
		case e.Kind == client.KindEvent:
			events = append(events, e)
		}
	}
	t.Fatalf("the feed ended after %d events", len(events))
	return nil
}

func checkIntegrity(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check: %s, %v", verdict, err)
	}
}

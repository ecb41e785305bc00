package server_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// What is there to be written is written now. A stream that is looked after again
// only when its keep-alive is due delivers everything, and passes every test that
// does not look at the time.

// prompt is far less than the time to a keep-alive.
const prompt = 3 * time.Second

func (n *node) publishBatch(b feed.Batch) {
	n.t.Helper()
	if _, err := n.publisher.PublishBatch(n.t.Context(), b); err != nil {
		n.t.Fatal(err)
	}
}

// TestEndAtOnce: the end of a feed that is closed follows what says so.
func TestEndAtOnce(t *testing.T) {
	n := start(t, server.Options{}, nil)
	for i, path := range []string{"/v1/feeds/%s/events", "/v1/events?feed=%s,other"} {
		name := fmt.Sprint("feed", i)
		f := n.follow(fmt.Sprintf(path, name), nil)
		f.block()
		n.publishBatch(feed.Batch{Feed: name, Drafts: []feed.Draft{{Feed: name, Data: "x"}}, Close: true})
		if i == 1 {
			n.publishBatch(feed.Batch{Feed: "other", Close: true})
		}
		began := time.Now()
		rest, err := io.ReadAll(f.r)
		if took := time.Since(began); err != nil || took > prompt || !strings.Contains(string(rest), "feed.closed") {
			t.Errorf("%s: ended with %v after %v:\n%s", path, err, took, rest)
		}
	}
}

// TestMuchAtOnce: what makes more than one piece is not held back behind the
// first of them, though no more has been published since.
func TestMuchAtOnce(t *testing.T) {
	n := start(t, server.Options{}, nil)
	const events = 150 // which are small, but each of their lines has a name on the wire
	for i, path := range []string{"/v1/feeds/%s/events", "/v1/events?feed=%s,other"} {
		name := fmt.Sprint("feed", i)
		f := n.follow(fmt.Sprintf(path, name), nil)
		f.block()
		drafts := make([]feed.Draft, events)
		for k := range drafts {
			drafts[k] = feed.Draft{Feed: name, Data: fmt.Sprint(k+1, strings.Repeat("\n", 100))}
		}
		n.publishBatch(feed.Batch{Feed: name, Drafts: drafts})
		began := time.Now()
		for k := range events {
			if got, want := f.block(), fmt.Sprintf("id: %d\n", k+1); i == 0 && !strings.HasSuffix(got, want) {
				t.Fatalf("%s: got %q, want %q", path, got, want)
			}
		}
		if took := time.Since(began); took > prompt {
			t.Errorf("%s: took %v", path, took)
		}
	}
}

// TestDrainAtOnce: a node that stops waits for nobody, and says so to those who
// listen, while its heartbeats are far away.
func TestDrainAtOnce(t *testing.T) {
	n := start(t, server.Options{Heartbeat: time.Hour}, nil)
	f := n.follow(events, nil)
	f.block()
	began := time.Now()
	n.Drain(within(t, prompt), 0)
	if _, err := io.ReadAll(f.r); !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(began) > prompt {
		t.Errorf("ended with %v after %v, want a break at once", err, time.Since(began))
	}
}

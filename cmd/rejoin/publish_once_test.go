package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/client/clienttest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
)

// TestPublishOnce: an event with an unknown outcome is sent again until the outcome
// is known, and is stored once.
func TestPublishOnce(t *testing.T) {
	for name, answer := range clienttest.Uncertain {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored: %t", name, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					k := &clienttest.Keeper{Answers: []http.HandlerFunc{nil, answer, answer, nil, answer, nil, answer}, After: after}
					p, notes, _ := newScriptPublisher(t, k, client.Options{})
					p.close = true
					if err := publishLines(t.Context(), p, strings.NewReader("a\nb\nc\n")); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff([]string{"a", "b", "c"}, k.Data()); diff != "" || k.Asked != 8 || !k.Closed {
						t.Errorf("asked %d times, closed: %t\n%s", k.Asked, k.Closed, diff)
					}
					if !strings.HasSuffix(notes.String(), "rejoin: published 3 events to log, ids 1 to 3; the feed is closed\n") {
						t.Error(notes)
					}
				})
			})
		}
	}
}

// TestPublishKeyAndClose: the key is the caller's, or a unique one.
func TestPublishKeyAndClose(t *testing.T) {
	k := &clienttest.Keeper{}
	for _, args := range [][]string{{"--key", "mine", "x"}, {"--key", "mine", "x"}, {"y"}, {"y"}, {"--close", "z"}} {
		if k.Closed {
			t.Errorf("closed before %q", args)
		}
		if code, _, stderr, _ := publishArgs(t, k, nil, append([]string{"--feed", "log"}, args...)...); code != exitOK {
			t.Fatalf("%q: %s", args, stderr)
		}
	}
	if diff := cmp.Diff([]string{"x", "y", "y", "z"}, k.Data()); diff != "" || !k.Closed || k.Keys[0] != "mine" || slices.Contains(k.Keys, "") {
		t.Errorf("keys %q, closed: %t\n%s", k.Keys, k.Closed, diff)
	}
	k = &clienttest.Keeper{}
	for range 2 {
		if code, _, stderr, _ := publishArgs(t, k, strings.NewReader("x\nx\n"), "--feed", "log"); code != exitOK || k.Closed {
			t.Fatal(stderr)
		}
	}
	if diff := cmp.Diff([]string{"x", "x", "x", "x"}, k.Data()); diff != "" {
		t.Error(diff)
	}
	if code, _, stderr, _ := publishArgs(t, k, strings.NewReader(""), "--feed", "log", "--close"); code != exitOK || !k.Closed || stderr != "rejoin: published 0 events to log; the feed is closed\n" {
		t.Errorf("exit %d, closed: %t, %s", code, k.Closed, stderr)
	}
}

// brokenStore fails every append in one way.
type brokenStore struct {
	feed.Store
	err error
}

func (s brokenStore) ID() string { return "broken" }

func (s brokenStore) Append(context.Context, []feed.Batch) ([]feed.Result, error) { return nil, s.err }
func (s brokenStore) Bounds(_ context.Context, feeds []string) ([]feed.Bounds, error) {
	return make([]feed.Bounds, len(feeds)), nil
}

// TestPublishKnowsTheServer: publish reads from the server's answer whether an event
// may be stored. That answer must not change unnoticed.
func TestPublishKnowsTheServer(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	for _, broken := range []error{feed.ErrUnavailable, feed.ErrUncertain} {
		store, bus := brokenStore{err: broken}, memory.NewBus()
		hub := feed.NewHub(store, bus, feed.HubOptions{Logger: quiet})
		publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{Logger: quiet})
		srv := httptest.NewServer(server.New(hub, publisher, server.Options{Logger: quiet}))
		c, err := newClient(srv.URL, client.Options{Patience: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		p := &linePublisher{feed: "log", client: c, notes: io.Discard}
		if _, err := p.publish(t.Context(), p.event("x")); err == nil || errors.Is(err, feed.ErrUncertain) != (broken == feed.ErrUncertain) {
			t.Errorf("%v became %v", broken, err)
		}
		result, err := c.Send(t.Context(), p.event("x"))
		problem, ok := errors.AsType[*client.Problem](err)
		if !ok || !problem.Temporary() || (result.Outcome == client.Unknown) != (broken == feed.ErrUncertain) || problem.RetryAfter == 0 {
			t.Errorf("%v became %v, %#v", broken, result.Outcome, err)
		}
		srv.Close()
		publisher.Close()
		hub.Close()
		bus.Close()
	}
}

package client

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
)

// TestSubscriptionTravels: the request of each subscription.
func TestSubscriptionTravels(t *testing.T) {
	c, err := New("http://rejoin.test", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		s              Subscription
		address, place string
	}{
		{Subscription{Feeds: []string{"a:b@c~d"}}, "/v1/feeds/a:b@c~d/events?heartbeat=15s", ""},
		{Subscription{Feeds: []string{"a"}, From: "-5", Silence: 6 * time.Second}, "/v1/feeds/a/events?from=-5&heartbeat=2s", ""},
		{Subscription{Feeds: []string{"a"}, From: "-5", Cursor: "0"}, "/v1/feeds/a/events?heartbeat=15s", "0"},
		{Subscription{Feeds: []string{"a"}, Types: []string{"x", "message"}, Envelopes: true, Live: true, Heartbeats: true, Heartbeat: 7 * time.Second},
			"/v1/feeds/a/events?control=live%2Cheartbeat&envelope=true&heartbeat=7s&types=x%2Cmessage", ""},
		{Subscription{Feeds: []string{"a", "b"}, From: "start", Envelopes: true, Live: true}, "/v1/events?control=live&feed=a&feed=b&from=start&heartbeat=15s", ""},
		{Subscription{Feeds: []string{"a", "b"}, From: "start", Cursor: "b=7"}, "/v1/events?feed=a&feed=b&from=start&heartbeat=15s", "b=7"},
		{Subscription{Feeds: []string{"a", "b"}, From: "start", Cursor: "b=7,a=1"}, "/v1/events?feed=a&feed=b&heartbeat=15s", "b=7,a=1"},
	} {
		r, err := test.s.request(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.URL.RequestURI() != test.address || r.Header.Get("Last-Event-ID") != test.place {
			t.Errorf("%+v: %s, %q", test.s, r.URL.RequestURI(), r.Header.Get("Last-Event-ID"))
		}
	}
}

// TestControls asks for the optional control events, and follows until each kind has
// come.
func TestControls(t *testing.T) {
	t.Parallel() // a heartbeat takes two seconds
	url, _ := startServer(t)
	c, err := New(url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(t.Context(), say("hi")); err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	for e, err := range c.Follow(t.Context(), Subscription{Feeds: []string{"log"}, From: "start", Live: true, Heartbeats: true, Heartbeat: 2 * time.Second}) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind)
		if e.Kind == KindHeartbeat {
			if e.Cursor != "1" || e.Positions != nil {
				t.Errorf("a heartbeat at %q, %v", e.Cursor, e.Positions)
			}
			break
		}
	}
	if diff := cmp.Diff([]Kind{KindOpen, KindEvent, KindLive, KindHeartbeat}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestEventOfEnvelope(t *testing.T) {
	at := time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC)
	const texts, other = `{"feed":"a","id":7,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"\"x\n"}`, `{"feed":"a","type":"x","time":"2026-01-31T09:30:00.000Z","data":null}`
	for envelope, want := range map[string]Event{
		texts: {Kind: KindEvent, Feed: "a", ID: 7, Data: "\"x\n", Time: at, Raw: texts},
		other: {Kind: KindEphemeral, Feed: "a", Type: "x", Data: "null", Time: at, Raw: other},
	} {
		var got Event
		if err := json.Unmarshal([]byte(envelope), &got); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%s: %v %s", envelope, err, cmp.Diff(want, got))
		}
	}
	for _, bad := range []string{`{}`, `{"feed":"a","id":7}`, `{"feed":"a","id":"7","data":1}`, `[]`, `{"feed":"a","id":-1,"data":1}`} {
		var events []Event
		if err := json.Unmarshal([]byte("["+bad+"]"), &events); !errors.Is(err, ErrViolation) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestPositions: an event that moves the cursor also has the position in each feed.
func TestPositions(t *testing.T) {
	got, _ := followScript(t, both, sends(openedAt("chat=3,news=4"), wrapped("news", 5, "1", "chat=3,news=5"), closed("chat", 3, "chat=3,news=5"), closed("news", 5, "chat=3,news=5")))
	var positions [][]feed.ID
	for _, e := range got.events {
		positions = append(positions, e.Positions)
	}
	if diff := cmp.Diff([][]feed.ID{{3, 4}, {3, 5}, {3, 5}, {3, 5}}, positions); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
}

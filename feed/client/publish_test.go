package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// publishing runs fn in a bubble, with a client of the keeper.
func publishing(t *testing.T, k *clienttest.Keeper, o Options, fn func(t *testing.T, network *clienttest.Network, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network, c := servePipes(t, k, o)
		fn(t, network, c)
	})
}

func say(data string) Publication {
	return Publication{Feed: "log", Drafts: []feed.Draft{{Data: data}}}
}

// TestPublishTravels: the request of each publication.
func TestPublishTravels(t *testing.T) {
	const text, lines = "text/plain; charset=utf-8", "application/x-ndjson"
	two := []feed.Draft{{Data: "a\r\n<b>"}, {Type: "x", Data: "{\n \"n\": 1.0}", JSON: true}}
	named := []feed.Draft{{Feed: "log", Data: "a"}, {Feed: "log", Type: "x", Data: "b"}}
	for _, test := range []struct {
		p    Publication
		want clienttest.Stored
		ids  []feed.ID
	}{
		{say("hi"), clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text, Data: "hi"}, []feed.ID{1}},
		{say(""), clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: text}, []feed.ID{1}},
		{Publication{Feed: "a:b@c~d", Drafts: []feed.Draft{{Feed: "a:b@c~d", Type: "x.y/z", Data: "a\nb\r\n"}}, IfLast: new(feed.ID(7))},
			clienttest.Stored{Path: "/v1/feeds/a:b@c~d/events", ContentType: text, EventType: "x.y/z", IfMatch: `"7"`, Data: "a\nb\r\n"}, []feed.ID{1}},
		{Publication{Feed: "log", Drafts: []feed.Draft{{Data: `{"a":1}`, JSON: true}}}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: "application/json", Data: `{"a":1}`}, []feed.ID{1}},
		{Publication{Feed: "log", Drafts: two}, clienttest.Stored{Path: "/v1/feeds/log/events", ContentType: lines,
			Data: `{"data":"a\r\n\u003cb\u003e"}` + "\n" + `{"type":"x","data":{  "n": 1.0}}` + "\n"}, []feed.ID{1, 2}},
		{Publication{Drafts: named}, clienttest.Stored{Path: "/v1/events", ContentType: lines, Data: `{"feed":"log","data":"a"}` + "\n" + `{"feed":"log","type":"x","data":"b"}` + "\n"}, []feed.ID{1, 2}},
	} {
		k := &clienttest.Keeper{}
		publishing(t, k, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
			got, err := c.Publish(t.Context(), test.p)
			if err != nil || got.Outcome != Stored || got.Replayed || !slices.Equal(got.IDs, test.ids) || got.Key == "" || got.Key != k.Keys[0] {
				t.Errorf("%+v: %+v, %v", test.p, got, err)
			}
			if diff := cmp.Diff([]clienttest.Stored{test.want}, k.Events); diff != "" {
				t.Errorf("%+v: %s", test.p, diff)
			}
		})
	}
}

// TestPublishIsChecked: a publication that can never be stored is not sent.
func TestPublishIsChecked(t *testing.T) {
	k := &clienttest.Keeper{}
	publishing(t, k, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
		for words, p := range map[string]Publication{
			"neither drafts nor a close": {Feed: "log"},
			"are about one feed":         {Close: true},
			"character 1 of":             {Feed: "../x", Close: true},
			"idempotency key is visible": {Feed: "log", Close: true, Key: "a b"},
			"belong to the server":       {Feed: "log", Drafts: []feed.Draft{{Type: "feed.x"}}},
			"draft 2: invalid: it is for the feed chat, the publication for log": {Feed: "log", Drafts: []feed.Draft{{}, {Feed: "chat"}}},
			"a feed name has 1 to 255":        {Drafts: []feed.Draft{{}}},
			"draft 1: invalid: the data is n": {Feed: "log", Drafts: []feed.Draft{{Data: "\xff"}, {}}},
			"the data is not valid JSON":      {Feed: "log", Drafts: []feed.Draft{{}, {Data: "{", JSON: true}}},
		} {
			for name, publish := range map[string]func(context.Context, Publication) (Result, error){"Publish": c.Publish, "Send": c.Send} {
				if got, err := publish(t.Context(), p); got.Outcome != Refused || !errors.Is(err, feed.ErrInvalid) || !strings.Contains(err.Error(), words) {
					t.Errorf("%s of %+v: %v, %v, want %q", name, p, got, err, words)
				}
			}
		}
	})
	if k.Asked > 0 {
		t.Errorf("%d requests", k.Asked)
	}
}

// TestPublishOnce: a publication with an unknown outcome is sent again until the
// outcome is known, and is stored once.
func TestPublishOnce(t *testing.T) {
	for name, answer := range clienttest.Uncertain {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored: %t", name, after), func(t *testing.T) {
				k := &clienttest.Keeper{Answers: []http.HandlerFunc{nil, answer, answer, nil, answer, nil, answer}, After: after}
				publishing(t, k, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
					for id, data := range []string{"a", "b", "c"} {
						got, err := c.Publish(t.Context(), say(data))
						if err != nil || got.Outcome != Stored || !slices.Equal(got.IDs, []feed.ID{feed.ID(id) + 1}) || got.Replayed != (after && id > 0) {
							t.Errorf("%q: %+v, %v", data, got, err)
						}
					}
					if got, err := c.Publish(t.Context(), Publication{Feed: "log", Close: true}); err != nil || got.Outcome != Stored || got.IDs != nil {
						t.Errorf("close: %+v, %v", got, err)
					}
				})
				if len(k.Events) != 3 || k.Asked != 8 || !k.Closed {
					t.Errorf("asked %d times, closed: %t\n%+v", k.Asked, k.Closed, k.Events)
				}
			})
		}
	}
}

// TestPublishTriesAgain: a publication that is certainly not stored is sent again
// until it is.
func TestPublishTriesAgain(t *testing.T) {
	many := slices.Repeat([]http.HandlerFunc{away("no")}, 100)
	k := &clienttest.Keeper{Answers: append([]http.HandlerFunc{fails(429, map[string]string{"Retry-After": "20"})}, many...)}
	var failures []string
	o := Options{Retrying: func(err error, wait time.Duration) {
		if wait <= 0 {
			t.Errorf("a wait of %v", wait)
		}
		failures = append(failures, err.Error())
	}}
	publishing(t, k, o, func(t *testing.T, network *clienttest.Network, c *Client) {
		network.Refuse.Store(3)
		begin := time.Now()
		if got, err := c.Publish(t.Context(), say("a")); err != nil || got.Outcome != Stored || len(k.Events) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if took := time.Since(begin); took < 20*time.Second+100*7*time.Second {
			t.Errorf("103 refusals took no more than %v", took)
		}
	})
	if len(failures) != 104 || failures[0] != "connection refused" || failures[3] != "the detail of 429 (status 429)" {
		t.Errorf("%d failures, %q", len(failures), failures[:4])
	}
}

// TestPublishRefused: a publication that would be refused again is sent once, and
// returns the error of its status.
func TestPublishRefused(t *testing.T) {
	last := func(w http.ResponseWriter, r *http.Request) { fails(412, map[string]string{"ETag": `"41"`})(w, r) }
	for _, test := range []struct {
		status int
		answer http.HandlerFunc
		is     error
	}{
		{400, fails(400, nil), feed.ErrInvalid}, {401, fails(401, nil), nil}, {409, fails(409, nil), feed.ErrClosed},
		{412, last, nil}, {413, fails(413, nil), feed.ErrTooLarge}, {422, fails(422, nil), feed.ErrKeyReused}, {501, fails(501, nil), nil},
		{200, func(http.ResponseWriter, *http.Request) {}, nil}, {307, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusTemporaryRedirect) }, nil},
	} {
		k := &clienttest.Keeper{Answers: []http.HandlerFunc{test.answer}}
		publishing(t, k, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
			got, err := c.Publish(t.Context(), say("a"))
			p, _ := errors.AsType[*Problem](err)
			if got.Outcome != Refused || p == nil || p.Status != test.status || test.is != nil && !errors.Is(err, test.is) || k.Asked != 1 {
				t.Errorf("%d: %v, %v", test.status, got, err)
			}
			if other, _ := errors.AsType[*feed.LastError](err); (other != nil) != (test.status == 412) || other != nil && other.Last != 41 {
				t.Errorf("%d: %v", test.status, other)
			}
		})
	}
}

// TestPublishEnds is about outcomes when the context or the patience ends.
func TestPublishEnds(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		_ = sleep(r.Context(), 3*time.Second)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"id":2}`)
	}
	later := map[string]string{"Retry-After": "9"}
	for _, test := range []struct {
		name     string
		answer   http.HandlerFunc
		refuse   int32
		patience time.Duration // else the context ends after a second
		outcome  Outcome
		is       error
		words    string
		took     time.Duration // 0: up to the patience
	}{
		{"before the answer", slow, 0, 0, Stored, nil, "", 3 * time.Second},
		{"before an answer that does not come", hangs, 0, 0, Unknown, feed.ErrUncertain, "its outcome is unknown: context canceled", time.Second + lastAnswerPatience},
		{"while waiting, with an unknown outcome", fails(504, later), 0, 0, Unknown, feed.ErrUncertain, "the detail of 504", time.Second},
		{"while waiting to try again", fails(429, later), 0, 0, Refused, context.DeadlineExceeded, "", time.Second},
		{"while nothing answers", nil, 1000, 30 * time.Second, Refused, clienttest.ErrRefused, "connection refused", 0},
		{"without an answer", hangs, 0, 30 * time.Second, Unknown, feed.ErrUncertain, "", answerPatience},
		{"an answer that is none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, 0, time.Minute, Stored, nil, "it was stored, but the answer with its id cannot be read", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			publishing(t, &clienttest.Keeper{Answers: []http.HandlerFunc{test.answer}}, Options{Patience: test.patience}, func(t *testing.T, network *clienttest.Network, c *Client) {
				network.Refuse.Store(test.refuse)
				ctx := t.Context()
				if test.patience == 0 {
					var end context.CancelFunc
					ctx, end = context.WithTimeout(ctx, time.Second)
					defer end()
				}
				begin := time.Now()
				got, err := c.Publish(ctx, say("a"))
				if got.Outcome != test.outcome || test.is != nil && !errors.Is(err, test.is) || err == nil && test.words != "" || err != nil && !strings.Contains(err.Error(), test.words) {
					t.Errorf("%+v, %v", got, err)
				}
				if took := time.Since(begin); test.took > 0 && took != test.took || took > test.took+test.patience {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
	publishing(t, &clienttest.Keeper{}, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
		ctx, end := context.WithCancel(t.Context())
		end()
		if got, err := c.Publish(ctx, say("a")); got.Outcome != Refused || err != context.Canceled {
			t.Errorf("after the end: %v, %v", got, err)
		}
	})
}

// TestPublishGivesUp: servers forget keys in the end, after which sending an
// event again could store it twice.
func TestPublishGivesUp(t *testing.T) {
	for _, test := range []struct {
		name    string
		first   http.HandlerFunc
		outcome Outcome
		within  time.Duration
	}{
		{"unknown", vanishes, Unknown, 23 * time.Hour},
		{"not stored", away("no"), Refused, 72 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			answers := []http.HandlerFunc{test.first}
			for range 10_000 {
				answers = append(answers, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Retry-After", "50") // days of asking every few seconds take seconds even here
					away("no")(w, r)
				})
			}
			publishing(t, &clienttest.Keeper{Answers: answers}, Options{}, func(t *testing.T, _ *clienttest.Network, c *Client) {
				ctx, end := context.WithTimeout(t.Context(), 72*time.Hour)
				defer end()
				begin := time.Now()
				got, err := c.Publish(ctx, say("a"))
				if took := time.Since(begin); got.Outcome != test.outcome || err == nil || took > test.within || took < test.within-time.Minute {
					t.Errorf("%v, %v after %v", got, err, took)
				}
			})
		})
	}
}

// TestSend is about the outcome of one attempt.
func TestSend(t *testing.T) {
	k := &clienttest.Keeper{Answers: []http.HandlerFunc{nil, vanishes, away("no"), fails(503, nil), fails(408, nil), fails(429, nil), fails(409, nil)}}
	publishing(t, k, Options{}, func(t *testing.T, network *clienttest.Network, c *Client) {
		for i, want := range []Outcome{Stored, Unknown, Refused, Unknown, Unknown, Refused, Refused, Stored} {
			if got, err := c.Send(t.Context(), say("a")); got.Outcome != want || (err == nil) != (want == Stored) || got.Key != "" {
				t.Errorf("attempt %d: %+v, %v, want %v", i+1, got, err, want)
			}
		}
		c.HTTP().CloseIdleConnections()
		network.Refuse.Store(1)
		if got, err := c.Send(t.Context(), say("a")); got.Outcome != Refused || !errors.Is(err, clienttest.ErrRefused) {
			t.Errorf("without a connection: %+v, %v", got, err)
		}
	})
	if k.Asked != 8 {
		t.Errorf("%d requests", k.Asked)
	}
	// A transport that does not report its connections may have sent it.
	c, err := New("http://rejoin.test", Options{Transport: mute{}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Send(t.Context(), say("a")); got.Outcome != Unknown || err == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// mute is a transport that fails and reports nothing.
type mute struct{}

func (mute) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("no luck") }

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "localhost:8080", "ftp://x", "http://", "http://u:hunter2@[", "http://localhost/?a=b", "http://localhost/#a"} {
		if _, err := New(bad, Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var got *http.Request
	synctest.Test(t, func(t *testing.T) {
		_, c := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r
			delivered(w, r)
		}), Options{Token: "secret"})
		base, err := New("http://rejoin.test/below/", Options{Token: "secret", Transport: c.options.Transport})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := base.Connect(t.Context(), chat); err != ErrDelivered {
			t.Error(err)
		}
	})
	if got.URL.Path != "/below/v1/feeds/chat/events" || got.Header.Get("Authorization") != "Bearer secret" || got.Header.Get("Accept") != "text/event-stream" {
		t.Errorf("%v %v", got.URL, got.Header)
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client/clienttest"
)

func TestFollowResumes(t *testing.T) {
	got, script := followScript(t, chat,
		// Cut in mid-event, before and after the id.
		breaks(opened(0), sent(1, "one"), sent(2, "two"), "data: thr"),
		breaks(opened(2), "data: three\nid: 3\n"),
		breaks(opened(2), sent(3, "three"), "data: four\nid: 4"),
		sends(opened(3), sent(4, "fo\nur")), // some proxies end cleanly
		fails(503, nil),
		fails(429, nil),
		vanishes,
		// As one write, with keep-alives and the server's farewell.
		breaks(opened(4)+":\n:\n"+sent(5, "")+":\n"+"event: edited\n"+sent(6, "six")+"event: feed.cursor\ndata: {}\nretry: 9\nid: 6\n\n"),
		sends(opened(6), sent(7, "seven"), closed("chat", 7, "7")),
	)
	if got.err != nil {
		t.Error(got.err)
	}
	if diff := cmp.Diff([]string{
		`chat 1 ":one" at 1`, `chat 2 ":two" at 2`, `chat 3 ":three" at 3`, `chat 4 ":fo\nur" at 4`, `chat 5 ":" at 5`, `chat 6 "edited:six" at 6`,
		"feed.cursor chat at 6", `chat 7 ":seven" at 7`, "feed.closed chat 7 at 7",
	}, got.lines); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"start", "2", "2", "3", "4", "4", "4", "4", "6"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		"unexpected EOF", "unexpected EOF", "unexpected EOF", "the stream ended",
		"the detail of 503 (status 503)", "the detail of 429 (status 429)", // net/http itself repeats the requests that vanish
		"unexpected EOF",
	}, got.losses); diff != "" {
		t.Error(diff)
	}
}

// TestFollowCutBeforeFirstEvent: a subscriber that has seen no event yet must not
// lose the events that are published while it is away.
func TestFollowCutBeforeFirstEvent(t *testing.T) {
	got, script := followScript(t, chat, fails(502, nil), breaks(opened(41)), breaks(), breaks(opened(41), sent(42, "x")), delivered)
	if diff := cmp.Diff([]string{"start", "start", "41", "41", "42"}, script.Cursors()); diff != "" || len(got.lines) != 2 || got.lines[1] != "feed.closed chat 42 at 42" || got.err != nil {
		t.Errorf("got %q, %v\n%s", got.lines, got.err, diff)
	}
}

func TestFollowGaps(t *testing.T) {
	got, script := followScript(t, chat.at("3"),
		breaks(opened(3), gap("chat", 3, 10, "trimmed", "9"), sent(10, "ten")),
		breaks(opened(10), gap("chat", 10, 5, "ahead", "4")),
		breaks(opened(4), sent(5, "five")),
		delivered)
	if diff := cmp.Diff([]string{
		"gap of chat, trimmed: after 3, resumes 10 at 9", `chat 10 ":ten" at 10`,
		"gap of chat, ahead: after 10, resumes 5 at 4", `chat 5 ":five" at 5`, "feed.closed chat 5 at 5",
	}, got.lines); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
	if diff := cmp.Diff([]string{"3", "10", "4", "5"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}

// TestFollowDeadConnection: a connection that dies without an end shows only by its
// silence. A keep-alive is a sign of life. The time that the caller spends on an
// event does not count.
func TestFollowDeadConnection(t *testing.T) {
	silent := func(w http.ResponseWriter, r *http.Request) {
		sends(opened(0), sent(1, "one"))(w, r)
		for range 4 {
			if sleep(r.Context(), 44*time.Second) != nil {
				return
			}
			_, _ = io.WriteString(w, ":\n")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
	got, script := followScript(t, chat, silent, hangs, delivered)
	if diff := cmp.Diff([]string{"start", "1", "1"}, script.Cursors()); diff != "" || len(got.lines) != 2 || got.err != nil {
		t.Fatalf("got %q, %v\n%s", got.lines, got.err, diff)
	}
	if after := script.Visits[1].After; after < 4*44*time.Second+45*time.Second || after > 4*44*time.Second+46*time.Second {
		t.Errorf("gave up after %v, want 45s after the last keep-alive", after)
	}
	if after := script.Visits[2].After; after < 45*time.Second || after > 47*time.Second {
		t.Errorf("gave up after %v without an answer, want 45s", after)
	}
	if diff := cmp.Diff([]string{"no byte for 45s", "no byte for 45s"}, got.losses); diff != "" {
		t.Error(diff)
	}
	synctest.Test(t, func(t *testing.T) {
		script := &clienttest.Script{Answers: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			sends(opened(0), sent(1, "one"))(w, r)
			_ = sleep(r.Context(), time.Hour)
			_, _ = io.WriteString(w, sent(2, "two")+closed("chat", 2, "2"))
		}}}
		_, c := servePipes(t, script, Options{})
		for e, err := range c.Follow(t.Context(), chat) {
			if err != nil {
				t.Error(err)
			}
			if e.ID == 1 {
				time.Sleep(time.Hour - time.Second)
			}
		}
		if len(script.Visits) != 1 {
			t.Errorf("%d connections for a caller that takes its time", len(script.Visits))
		}
	})
}

// TestFollowBacksOff: a client must not hammer a server that fails or that turns
// clients away with empty streams.
func TestFollowBacksOff(t *testing.T) {
	turned := breaks("retry: 9000\n") // used only if it is longer than the client's own delay
	refused := fails(503, nil)
	got, script := followScript(t, chat, turned, refused, turned, vanishes, turned, refused, turned, refused,
		breaks(opened(0)), fails(503, map[string]string{"Retry-After": "20"}), fails(503, map[string]string{"Retry-After": "7200"}), delivered)
	if got.err != nil {
		t.Fatal(got.err)
	}
	for i, want := range []struct{ least, most float64 }{{9, 10}, {1, 2}, {9, 12}, {4, 8}, {9, 15}, {7.5, 15}, {9, 15}, {7.5, 15}, {0.5, 1}} {
		if after := script.Visits[i+1].After.Seconds(); after < want.least || after > want.most {
			t.Errorf("attempt %d came after %v s, want %v to %v", i+2, after, want.least, want.most)
		}
	}
	if after := script.Visits[10].After; after < 20*time.Second || after > 23*time.Second {
		t.Errorf("asked for 20s, it came after %v", after)
	}
	if after := script.Visits[11].After; after < time.Minute || after > 65*time.Second {
		t.Errorf("asked for two hours, it came after %v", after)
	}
	if len(got.losses) != 11 {
		t.Errorf("%d waits were reported, want 11", len(got.losses))
	}
}

func TestBackoff(t *testing.T) {
	c, err := New("http://rejoin.test", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		b := c.backoff()
		for _, limit := range []time.Duration{1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15, 15} {
			limit *= time.Second
			if wait := b.next(0); wait < limit/2 || wait > limit {
				t.Fatalf("after %d failures it waits %v", b.failures, wait)
			}
		}
		b.reset()
		if wait := b.next(10 * time.Second); wait < 10*time.Second || wait > 11*time.Second {
			t.Fatalf("asked for 10s, it waits %v", wait)
		}
	}
}

// TestFollowHoldsServerToItsPromise: the client yields everything before a broken
// promise, and nothing after it.
func TestFollowHoldsServerToItsPromise(t *testing.T) {
	for name, second := range map[string]http.HandlerFunc{
		"an event again":        breaks(opened(2), sent(2, "two")),
		"an event left out":     breaks(opened(2), sent(4, "four")),
		"another cursor":        breaks(opened(3), sent(4, "four")),
		"no cursor":             breaks("event: feed.open\ndata: {}\n\n"),
		"no greeting":           breaks(sent(3, "three")),
		"a moved cursor":        breaks(opened(2), "event: feed.cursor\ndata: {}\nid: 3\n\n", sent(4, "four")),
		"an id that is none":    breaks(opened(2), "data: x\nid: three\n\n"),
		"closed with more left": breaks(opened(2), closed("chat", 3, "3")),
		"closed elsewhere":      breaks(opened(2), closed("chat", 3, "2")),
		"closed, but of what?":  breaks(opened(2), "event: feed.closed\ndata: {}\nid: 2\n\n"),
		"a gap of nonsense":     breaks(opened(2), "event: feed.gap\ndata: nonsense\nid: 3\n\n"),
		"a gap elsewhere":       breaks(opened(2), gap("chat", 4, 6, "trimmed", "5"), sent(6, "six")),
		"a gap of another size": breaks(opened(2), gap("chat", 2, 6, "trimmed", "4"), sent(5, "five")),
		"no greeting and no id": breaks("data: x\n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := followScript(t, chat, breaks(opened(0), sent(1, "one"), sent(2, "two")), second, delivered)
			if !errors.Is(got.err, ErrViolation) || len(got.lines) != 2 {
				t.Errorf("got %q and %v", got.lines, got.err)
			}
		})
	}
}

// TestFollowLongIdle: keep-alives do not use up the room for the next event.
func TestFollowLongIdle(t *testing.T) {
	data := strings.Repeat("x", 60_000)
	got, script := followScript(t, chat, breaks(opened(0), strings.Repeat(":\n", 100_000), sent(1, data)), delivered)
	if got.err != nil || len(got.events) != 3 || got.events[1].Data != data || len(script.Visits) != 2 {
		t.Errorf("got %d events, %d connections, %v", len(got.events), len(script.Visits), got.err)
	}
}

// TestFollowIsBounded: a line without end breaks the connection, and costs no
// more memory than a block may have.
func TestFollowIsBounded(t *testing.T) {
	got, _ := followScript(t, chat, breaks(opened(0), "data: "+strings.Repeat("x", 2*blockBytes)), delivered)
	if diff := cmp.Diff([]string{"a block of the stream has more than 1 MiB"}, got.losses); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
}

func TestFollowEnvelopes(t *testing.T) {
	s := chat
	s.Envelopes = true
	raw := []string{
		`{"feed":"chat","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"a\n<b>"}`,
		`{"feed":"chat","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"ann"}`,
		`{"feed":"chat","id":2,"type":"edited","time":"2026-01-31T09:30:00.000Z","data":{"x": 12345678901234567890}}`,
	}
	got, script := followScript(t, s, breaks(opened(0), sent(1, raw[0]), "event: typing\ndata: "+raw[1]+"\n\n", "event: edited\n"+sent(2, raw[2])), delivered)
	at := time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC)
	if diff := cmp.Diff([]Event{
		{Kind: KindEvent, Feed: "chat", ID: 1, Data: "a\n<b>", Time: at, Cursor: "1", Positions: []feed.ID{1}, Raw: raw[0]},
		{Kind: KindEphemeral, Feed: "chat", Type: "typing", Data: "ann", Time: at, Cursor: "1", Raw: raw[1]},
		{Kind: KindEvent, Feed: "chat", ID: 2, Type: "edited", Data: `{"x": 12345678901234567890}`, Time: at, Cursor: "2", Positions: []feed.ID{2}, Raw: raw[2]},
	}, got.events[1:4]); diff != "" || got.err != nil {
		t.Error(got.err, diff)
	}
	if diff := cmp.Diff([]string{"start", "2"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}

// TestFollowTypes: with a filter, cursors move past the hidden events, and never
// back.
func TestFollowTypes(t *testing.T) {
	got, script := followScript(t, chat.of("a", "b"),
		breaks(opened(1), sent(4, "four"), control("cursor", `{"feed":"chat","cursor":"7"}`, "7")),
		breaks(opened(7), gap("chat", 9, 12, "trimmed", "11"), sent(12, "twelve")),
		sends(opened(12), closed("chat", 15, "15")))
	if diff := cmp.Diff([]string{"start", "7", "12"}, script.Cursors()); diff != "" || got.err != nil {
		t.Errorf("%v\n%s", got.err, diff)
	}
	if diff := cmp.Diff([]string{
		`chat 4 ":four" at 4`, "feed.cursor chat at 7", "gap of chat, trimmed: after 9, resumes 12 at 11", `chat 12 ":twelve" at 12`, "feed.closed chat 15 at 15",
	}, got.lines); diff != "" {
		t.Error(diff)
	}
	got, script = followScript(t, both.of("a"), breaks(openedAt("chat=1,news=1"), wrapped("chat", 5, `"five"`, "chat=5,news=9")), delivered)
	if diff := cmp.Diff([]string{"start", "chat=5,news=9"}, script.Cursors()); diff != "" || len(got.lines) != 3 || got.err != nil {
		t.Errorf("got %q, %v\n%s", got.lines, got.err, diff)
	}
	for name, second := range map[string]string{
		"an event again":          sent(4, "four"),
		"a cursor that goes back": control("cursor", "{}", "3"),
		"a gap that goes back":    gap("chat", 3, 6, "trimmed", "5"),
		"closed before":           closed("chat", 3, "3"),
	} {
		got, _ := followScript(t, chat.of("a", "b"), breaks(opened(0), sent(4, "four")), breaks(opened(4), second), delivered)
		if !errors.Is(got.err, ErrViolation) || len(got.lines) != 1 {
			t.Errorf("%s: got %q and %v", name, got.lines, got.err)
		}
	}
}

// TestFollowEphemeral: an event without an id leaves the cursor where it is.
func TestFollowEphemeral(t *testing.T) {
	got, script := followScript(t, chat, breaks(opened(0), "data: early\n\n", sent(1, "one"), "event: typing\ndata: ann\n\n"), breaks(opened(1), sent(2, "two")), delivered)
	if diff := cmp.Diff([]string{`chat ":early" at 0`, `chat 1 ":one" at 1`, `chat "typing:ann" at 1`, `chat 2 ":two" at 2`, "feed.closed chat 2 at 2"}, got.lines); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
	if diff := cmp.Diff([]string{"start", "1", "2"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
}

// TestFollowEnds: each error that ends the iteration, and that nothing follows it.
func TestFollowEnds(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") }
	moved := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://example.com/x", http.StatusFound)
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		status int // of the problem; 0 if it is none
		words  string
	}{
		{"204", delivered, 0, ""},
		{"400", fails(400, nil), 400, "the detail of 400 (status 400)"},
		{"401", fails(401, nil), 401, "the detail of 401"},
		{"403", fails(403, nil), 403, "the detail of 403"},
		{"404", fails(404, nil), 404, "the detail of 404"},
		{"409, which is not closed", fails(409, nil), 409, "the detail of 409"},
		{"410", fails(410, nil), 410, "the detail of 410"},
		{"501", fails(501, nil), 501, "the detail of 501"},
		{"a page", page, 200, "not an event stream"},
		{"elsewhere", moved, 302, "https://example.com/x"},
		{"expired", sends(opened(0), control("expired", `{"reason":"token"}`, "")), 0, "the token's time is up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, script := followScript(t, chat, test.answer)
			p, _ := errors.AsType[*Problem](got.err)
			if len(script.Visits) != 1 || (p != nil) != (test.status != 0) || p != nil && p.Status != test.status {
				t.Errorf("%d connections, %#v", len(script.Visits), got.err)
			}
			if got.err == nil && test.words != "" || got.err != nil && (test.words == "" || !strings.Contains(got.err.Error(), test.words)) {
				t.Errorf("got %v, want %q", got.err, test.words)
			}
		})
	}
}

func TestFollowLeft(t *testing.T) {
	cause := errors.New("enough")
	for name, leave := range map[string]bool{"by a break": true, "by the context": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, c := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sends(opened(0))(w, r)
					<-r.Context().Done()
				}), Options{})
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
				defer cancel()
				begin := time.Now()
				var last error
				for _, err := range c.Follow(ctx, chat) {
					last = err
					if leave {
						break
					}
				}
				if leave && (last != nil || time.Since(begin) > 0) || !leave && (last != cause || time.Since(begin) != time.Second) {
					t.Errorf("%v after %v", last, time.Since(begin))
				}
			})
		})
	}
}

func TestSubscriptionIsChecked(t *testing.T) {
	c, err := New("http://127.0.0.1:1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for words, s := range map[string]Subscription{
		"names no feed":                        {},
		"1 to 255 characters":                  {Feeds: []string{""}},
		"names a twice":                        {Feeds: []string{"a", "a"}},
		"from is now, start":                   {Feeds: []string{"a"}, From: "yesterday"},
		"events without a type":                {Feeds: []string{"a"}, Types: []string{""}},
		"belong to the server":                 {Feeds: []string{"a"}, Types: []string{"feed.open"}},
		"a cursor is a decimal number":         {Feeds: []string{"a"}, Cursor: "007"},
		"is like chat=42,news=7":               {Feeds: []string{"a", "b"}, Cursor: "7"},
		`it names "c", which is not followed`:  {Feeds: []string{"a", "b"}, Cursor: "a=1,c=2"},
		"it names a twice":                     {Feeds: []string{"a", "b"}, Cursor: "a=1,a=2"},
		"of b: invalid: a cursor is a decimal": {Feeds: []string{"a", "b"}, Cursor: "a=1,b=02"},
	} {
		for _, err := range c.Follow(t.Context(), s) {
			if !errors.Is(err, feed.ErrInvalid) || !strings.Contains(err.Error(), words) {
				t.Errorf("%+v: %v, want %q", s, err, words)
			}
		}
	}
	for cursor, want := range map[string]bool{"": false, "a=1": false, "b=1,a=0": true} {
		if got, err := (Subscription{Feeds: []string{"a", "b"}, Cursor: cursor}).Resumes(); got != want || err != nil {
			t.Errorf("%q: %t, %v", cursor, got, err)
		}
	}
}

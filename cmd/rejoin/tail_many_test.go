package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// followsTwo makes a tail follow chat and news, instead of chat alone.
func followsTwo(t *testing.T, cursor string) func(*tailer) {
	return func(tail *tailer) {
		if err := tail.aim([]string{"chat", "news"}, "start", cursor); err != nil {
			t.Error(err)
		}
	}
}

func TestTailMany(t *testing.T) {
	got, script := tailScript(t, followsTwo(t, ""),
		fails(503, nil),
		breaks(openedAt("chat=0,news=41"), wrapped("chat", 1, `"one"`, "chat=1,news=41"), wrapped("news", 42, `"n\nd"`, "chat=1,news=42"), "data: {"),
		breaks(openedAt("chat=1,news=42"), "data: "+`{"feed":"chat","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"ann"}`+"\n\n",
			wrapped("chat", 2, `{"a": [1]}`, "news=42,chat=2"), closed("chat", 2, "chat=2,news=42")),
		// The server reports a closed feed again to a client that comes back.
		breaks(openedAt("chat=2,news=42"), closed("chat", 2, "chat=2,news=42"),
			wrapped("news", 43, `""`, "chat=2,news=43"), control("cursor", `{"feed":"chat","cursor":"2"}`, "chat=2,news=43")),
		sends(openedAt("chat=2,news=43"), control("live", "{}", ""), closed("news", 43, "chat=2,news=43")),
	)
	if got.err != nil {
		t.Error(got.err)
	}
	if diff := cmp.Diff("chat\tone\nnews\tn\nnews\td\nchat\tann\nchat\t{\"a\": [1]}\nnews\t\n", got.out); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"start", "start", "chat=1,news=42", "chat=2,news=42", "chat=2,news=43"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
	for _, words := range []string{
		"cannot follow chat,news yet (the detail of 503 (status 503)), trying again",
		"lost the connection after chat=1,news=42 (unexpected EOF), reconnecting",
		"connected, going on after chat=2,news=43",
	} {
		if !strings.Contains(got.notes, "rejoin: "+words+"\n") {
			t.Errorf("%q does not say %q", got.notes, words)
		}
	}
	if n := strings.Count(got.notes, "chat is closed at event 2"); n != 1 {
		t.Errorf("it says %d times that chat is closed", n)
	}
}

func TestTailManyGap(t *testing.T) {
	got, script := tailScript(t, followsTwo(t, "chat=9,news=2"),
		breaks(openedAt("chat=9,news=2"), closed("chat", 9, "chat=9,news=2"), gap("news", 2, 6, "trimmed", "chat=9,news=5"), wrapped("news", 6, `"six"`, "chat=9,news=6")),
		breaks(openedAt("chat=9,news=6"), gap("chat", 9, 4, "ahead", "chat=3,news=6"), wrapped("chat", 4, `"four"`, "chat=4,news=6")),
		delivered)
	if got.err != nil || got.out != "news\tsix\nchat\tfour\n" {
		t.Errorf("got %q, %v", got.out, got.err)
	}
	if diff := cmp.Diff([]string{"chat=9,news=2", "chat=9,news=6", "chat=4,news=6"}, script.Cursors()); diff != "" {
		t.Error(diff)
	}
	for _, words := range []string{"events 3 to 5 of news are no longer kept", "chat ends at event 3, before event 9"} {
		if !strings.Contains(got.notes, words) {
			t.Errorf("%q does not say %q", got.notes, words)
		}
	}
}

// TestTailBare prints the data as it is, of one feed or of several.
func TestTailBare(t *testing.T) {
	bare := func(aim func(*tailer)) func(*tailer) {
		return func(tail *tailer) { aim(tail); tail.bare = true }
	}
	got, _ := tailScript(t, bare(followsTwo(t, "")),
		breaks(openedAt("chat=0,news=0"), wrapped("chat", 1, `"one\nline more"`, "chat=1,news=0"), wrapped("news", 1, `{"a":1}`, "chat=1,news=1")), delivered)
	if got.err != nil || got.out != "one\nline more\n{\"a\":1}\n" {
		t.Errorf("several feeds: %q, %v", got.out, got.err)
	}
	got, _ = tailScript(t, bare(func(*tailer) {}), breaks(opened(0), sent(1, "one\nline more"), "event: t\n"+sent(2, "")), delivered)
	if got.err != nil || got.out != "one\nline more\n\n" {
		t.Errorf("one feed: %q, %v", got.out, got.err)
	}
	var shown strings.Builder
	got, _ = tailScript(t, func(tail *tailer) { bare(followsTwo(t, ""))(tail); tail.out = terminal{&shown} },
		breaks(openedAt("chat=0,news=0"), wrapped("chat", 1, `"\u001b]0;title\u0007\n\u202e"`, "chat=1,news=0")), delivered)
	if got.err != nil || shown.String() != "\\x1b]0;title\\x07\n\\u202e\n" {
		t.Errorf("at a terminal: %q, %v", shown.String(), got.err)
	}
}

// TestTailColumns prints the time and the id before every line.
func TestTailColumns(t *testing.T) {
	columns := func(aim func(*tailer), time, id bool) func(*tailer) {
		return func(tail *tailer) { tail.time, tail.id = time, id; aim(tail) }
	}
	two := breaks(openedAt("chat=0,news=0"), wrapped("chat", 1, `"a\nb"`, "chat=1,news=0"), wrapped("news", 1, `{"a":1}`, "chat=1,news=1"),
		"data: "+`{"feed":"chat","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"ann"}`+"\n\n")
	const at = "2026-01-31T09:30:00.000Z"
	got, _ := tailScript(t, columns(followsTwo(t, ""), true, true), two, delivered)
	if diff := cmp.Diff("chat\t"+at+"\t1\ta\nchat\t"+at+"\t1\tb\nnews\t"+at+"\t1\t{\"a\":1}\nchat\t"+at+"\t-\tann\n", got.out); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
	got, _ = tailScript(t, columns(func(*tailer) {}, false, true), breaks(opened(0), sent(1, "a\tb\nc"), "data: ann\n\n"), delivered)
	if got.err != nil || got.out != "1\ta\tb\n1\tc\n-\tann\n" {
		t.Errorf("ids of one feed: %q, %v", got.out, got.err)
	}
}

// TestTailEphemeral: an event without an id is printed, and leaves the cursor
// where it is.
func TestTailEphemeral(t *testing.T) {
	got, script := tailScript(t, nil, breaks(opened(0), "data: early\n\n", sent(1, "one"), "event: typing\ndata: ann\n\n"), breaks(opened(1), sent(2, "two")), delivered)
	if diff := cmp.Diff([]string{"start", "1", "2"}, script.Cursors()); diff != "" || got.out != "early\none\nann\ntwo\n" || got.err != nil {
		t.Errorf("got %q, %v\n%s", got.out, got.err, diff)
	}
}

// TestTailExpired: tail does not come back with an expired token. Its error names the
// event after which to go on with a new one.
func TestTailExpired(t *testing.T) {
	expired := control("expired", `{"reason":"token"}`, "")
	got, script := tailScript(t, nil, sends(opened(0), sent(1, "one"), expired), delivered)
	if got.err == nil || got.err.Error() != "tail chat: the token's time is up after event 1" || got.out != "one\n" || len(script.Visits) != 1 {
		t.Errorf("got %q, %v, %d connections", got.out, got.err, len(script.Visits))
	}
	got, _ = tailScript(t, followsTwo(t, ""), sends(openedAt("chat=0,news=7"), expired), delivered)
	if got.err == nil || got.err.Error() != "tail chat,news: the token's time is up after chat=0,news=7" {
		t.Error(got.err)
	}
}

func TestTailArguments(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "which feed? Name it, as in: rejoin tail chat\n"},
		{[]string{"chat", ""}, "a feed name has 1 to 255 characters, not 0"},
		{[]string{"chat", "--json", "--id"}, "--time and --id are columns"},
		{[]string{"chat", "--bare", "--time"}, "--time and --id are columns"},
		{[]string{"--feed", ""}, "a feed name has 1 to 255 characters, not 0"},
		{[]string{"--feed", "chat,,news"}, "a feed name has 1 to 255 characters, not 0"},
		{[]string{"--feed", "chat,ne ws"}, "character 3 of"},
		{[]string{"--feed", "chat", "--types", "a,,b"}, "--types: it has an empty type"},
		{[]string{"--feed", "chat", "--types", "feed.open"}, "--types: "},
		{[]string{"--feed", "chat", "--last-event-id", "007"}, "--last-event-id: "},
		{[]string{"--feed", "chat", "--last-event-id", "chat=7"}, "--last-event-id: "},
		{[]string{"--feed", "chat,news", "--last-event-id", "7"}, "is like chat=42,news=7, not"},
		{[]string{"--feed", "chat,news", "--last-event-id", "chat=7,nws=7"}, "it names \"nws\", which is not followed"},
		{[]string{"--feed", "chat,news", "--last-event-id", "chat=7,chat=7"}, "it names chat twice"},
		{[]string{"--feed", "chat,news", "--last-event-id", "chat=7,news=07"}, "--last-event-id: of news: "},
		{[]string{"--feed", "chat,news", "--last-event-id", "chat=7,news=7", "--from", "start"}, "both say where to start"},
		{[]string{"--feed", "chat", "--last-event-id", "7", "--from", "start"}, "both say where to start"},
		{[]string{"--feed", "chat", "--bare", "--json"}, "both say how to print an event"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"tail", "--url", "http://127.0.0.1:1"}, test.args...), nil, &stdout, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit %d, %q, want %q", test.args, code, stderr.String(), test.want)
		}
	}
}

// TestTailManyInUse follows two feeds of a real server with one stream: one from its
// start, the other from a cursor, without filtered events, until both are closed.
func TestTailManyInUse(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"))
	publish := func(args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"publish", "--url", srv.url}, args...), nil, &stdout, &stderr); code != exitOK {
			t.Fatal(stderr.String())
		}
	}
	for i := range 3 {
		publish("--feed", "chat", "--type", "said", fmt.Sprint("c", i+1))
		publish("--feed", "news", "--json", fmt.Sprintf(`{"n":%d}`, i+1))
	}
	out, exit := &lockedBuffer{}, make(chan int, 1)
	go func() {
		exit <- run(t.Context(), []string{"tail", "--url", srv.url, "chat", "--feed", "news", "chat", "--from", "start", "--last-event-id", "news=1", "--types", "said,message"}, nil, out, out)
	}()
	for deadline := time.Now().Add(30 * time.Second); strings.Count(out.String(), "\n") < 5 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // until it is there, which an ephemeral event has to wait for
	}
	resp, err := http.Post(srv.url+"/v1/feeds/chat/events?ephemeral=true&type=said", "text/plain", strings.NewReader("typing"))
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	publish("--feed", "chat", "--type", "other", "not shown")
	publish("--feed", "news", "--close", "the end\nof it")
	publish("--feed", "chat", "--type", "other", "--close", "not shown")
	if code := <-exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
	got := map[string][]string{}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		name, data, tabbed := strings.Cut(line, "\t")
		if !tabbed {
			name, data = "notes", line
		}
		got[name] = append(got[name], data)
	}
	if diff := cmp.Diff(map[string][]string{
		"chat":  {"c1", "c2", "c3", "typing"},
		"news":  {`{"n":2}`, `{"n":3}`, "the end", "of it"},
		"notes": {"rejoin: news is closed at event 4", "rejoin: chat is closed at event 5"},
	}, got); diff != "" {
		t.Error(diff)
	}
	signal()
	srv.await(t, "stopped")
	<-srv.exit
}

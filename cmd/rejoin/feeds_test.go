package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)

// TestFeeds looks after feeds of a real server.
func TestFeeds(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"))
	const url = " --url URL"
	for _, step := range []struct {
		command        string
		code           int
		stdout, stderr string // with TIME for each time
	}{
		{"feeds" + url, exitOK, "", "rejoin: there are no feeds\n"},
		{"publish chat one" + url, exitOK, "1\n", ""},
		{"publish chat two" + url, exitOK, "2\n", ""},
		{"publish chat three" + url, exitOK, "3\n", ""},
		{"publish news:1 x --close" + url, exitOK, "1\n", ""},
		{"feeds" + url, exitOK, "FEED    FIRST  LAST  CLOSED  UPDATED\nchat    1      3     no      TIME\nnews:1  1      1     yes     TIME\n", ""},
		{"feeds news --json" + url, exitOK, `{"feed":"news:1","first":1,"last":1,"closed":true,"updated":"TIME"}` + "\n", ""},
		{"feeds x" + url, exitOK, "", "rejoin: there are no feeds whose names begin with x\n"},
		{"feeds x --json" + url, exitOK, "", ""},
		{"feed chat" + url, exitOK, "feed         chat\nfirst        1\nlast         3\nclosed       no\nupdated      TIME\nsubscribers  0\nbytes        11\n", ""},
		{"feed news:1 --json" + url, exitOK, `{"feed":"news:1","first":1,"last":1,"closed":true,"updated":"TIME","subscribers":0,"bytes":1}` + "\n", ""},
		{"feed nws" + url, exitFailed, "", "rejoin: describe nws: the feed nws does not exist (status 404)\n"},

		{"trim chat --keep 3" + url, exitOK, "", "rejoin: chat has 3 events; nothing is deleted\n"},
		{"trim chat --keep 2" + url, exitOK, "", "rejoin: the events of chat below 2 are deleted\n"},
		{"trim chat --before 3" + url, exitOK, "", "rejoin: the events of chat below 3 are deleted\n"},
		{"trim nws --keep 2" + url, exitFailed, "", "rejoin: trim nws: the feed nws does not exist (status 404)\n"},
		{"close chat" + url, exitOK, "", "rejoin: chat is closed\n"},
		{"close chat" + url, exitOK, "", "rejoin: chat is closed\n"},
		{"delete news:1" + url, exitUsage, "", "rejoin: standard input is not a terminal, to confirm that all events of news:1 go; --yes deletes them unasked\n"},
		{"delete news:1 --yes" + url, exitOK, "", "rejoin: all events of news:1 are deleted\n"},
		{"feeds" + url, exitOK, "FEED    FIRST  LAST  CLOSED  UPDATED\nchat    3      3     yes     TIME\nnews:1  2      1     yes     TIME\n", ""},

		{"feeds a b", exitUsage, "", "rejoin: feeds takes one PREFIX, but was given \"b\", too\n"},
		{"feed", exitUsage, "", "rejoin: which feed? Name it, as in: rejoin feed chat\n"},
		{"delete a b", exitUsage, "", "rejoin: delete takes one feed, but was given \"b\", too\n"},
		{"trim chat", exitUsage, "", "rejoin: give either --before, the id of the oldest event to keep, or --keep, how many events to keep\n"},
		{"trim chat --keep 1 --before 1", exitUsage, "", "rejoin: give either --before, the id of the oldest event to keep, or --keep, how many events to keep\n"},
		{"trim chat --keep 0", exitUsage, "", "rejoin: --keep: at least 1; rejoin delete deletes all events\n"},
		{"trim chat --before 07", exitUsage, "", "rejoin: --before: \"07\" is not the id of an event, such as 43\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(strings.ReplaceAll(step.command, "URL", srv.url)), strings.NewReader(""), &stdout, &stderr)
		if diff := cmp.Diff([]any{step.code, step.stdout, step.stderr}, []any{code, times.ReplaceAllString(stdout.String(), "TIME"), stderr.String()}); diff != "" {
			t.Errorf("%s: %s", step.command, diff)
		}
	}
	signal()
	srv.await(t, "stopped")
	<-srv.exit
}

// TestFeedsRefused: the error of each command has the name of the feed and the words
// of the server, and an interrupt ends each.
func TestFeedsRefused(t *testing.T) {
	srv := httptest.NewServer(fails(http.StatusForbidden, nil))
	defer srv.Close()
	for command, want := range map[string]string{
		"feeds":                "list feeds: ",
		"feed chat":            "describe chat: ",
		"close chat":           "close chat: ",
		"trim chat --before 7": "trim chat: ",
		"trim chat --keep 7":   "trim chat: ",
		"delete chat --yes":    "delete chat: ",
	} {
		args := append(strings.Fields(command), "--url", srv.URL)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, nil, &stdout, &stderr)
		if code != exitFailed || stdout.Len() > 0 || stderr.String() != "rejoin: "+want+"the detail of 403 (status 403)\n" {
			t.Errorf("%s: exit %d, %q, %q", command, code, stdout.String(), stderr.String())
		}
		interrupted, cancel := context.WithCancel(t.Context())
		cancel()
		stderr.Reset()
		code = run(interrupted, args, nil, io.Discard, &stderr)
		if code != exitFailed || !strings.HasPrefix(stderr.String(), "rejoin: "+want+"interrupted") {
			t.Errorf("%s, interrupted: exit %d, %q", command, code, stderr.String())
		}
	}
}

// TestHealthReady: what is down is named.
func TestHealthReady(t *testing.T) {
	for _, test := range []struct {
		status int
		state  map[string]any
		code   int
		says   string
	}{
		{200, map[string]any{"ready": true, "draining": false, "store": "up", "bus": "up"}, exitOK, ""},
		{200, map[string]any{"ready": true, "draining": false, "store": "up", "bus": "down"}, exitOK, "rejoin: the bus is down: no event is lost, but events of other nodes come later\n"},
		{503, map[string]any{"ready": false, "draining": false, "store": "down", "bus": "down"}, exitFailed, "rejoin: not ready: the store is down, the bus is down (/readyz answers 503 Service Unavailable)\n"},
		{503, map[string]any{"ready": false, "draining": true, "store": "up", "bus": "up"}, exitFailed, "rejoin: not ready: the server is stopping (/readyz answers 503 Service Unavailable)\n"},
		{404, nil, exitFailed, "rejoin: ask for health: /readyz answers 404 Not Found, without the state of the server\n"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			_ = json.NewEncoder(w).Encode(test.state)
		}))
		var stderr bytes.Buffer
		if code := run(t.Context(), []string{"health", "--ready", "--url", srv.URL}, nil, io.Discard, &stderr); code != test.code || stderr.String() != test.says {
			t.Errorf("%v: exit %d, %q", test.state, code, stderr.String())
		}
		srv.Close()
	}
}

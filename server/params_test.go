package server_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// TestParametersTwice: of two values, the server must not ignore one silently.
func TestParametersTwice(t *testing.T) {
	n := startSubscribed(t)
	for _, same := range [][2]string{
		{events + "?from=start&types=t&types=message", events + "?from=start&types=t,message"},
		{events + "?from=start&types=t&types=message,u", events + "?from=start&types=t,message,u"},
		{events + "?from=start&types=&types=t", events + "?from=start&types=t"},
		{events + "?from=start&control=live&control=heartbeat", events + "?from=start&control=live,heartbeat"},
		{"/v1/events?from=start&feed=chat&feed=old", "/v1/events?from=start&feed=chat,old"},
		{"/v1/events?from=start&feed=chat&x=1&x=2", "/v1/events?from=start&feed=chat"},
	} {
		twice, once := n.follow(same[0], nil), n.follow(same[1], nil)
		for range 3 {
			if got, want := twice.block(), once.block(); got != want {
				t.Errorf("%s: got %q, want %q", same[0], got, want)
			}
		}
	}
	r, body := n.do("HEAD", events+"?types=a&types=b,,c", nil, "")
	if r.StatusCode != 400 {
		t.Errorf("an empty type in the middle: %s %s", r.Status, body)
	}
}

// TestEveryParameterTwice: on each route, each parameter of the OpenAPI document is a
// list, or is refused by name if it is given twice.
func TestEveryParameterTwice(t *testing.T) {
	n := start(t, server.Options{}, nil)
	lists := []string{"feed", "types", "control"}
	values := map[string]string{
		"envelope": "true", "close": "false", "ephemeral": "false", "gap": "fail", "heartbeat": "4s", "wait": "1ms", "from": "start",
		"limit": "1", "type": "t", "prefix": "c", "lastEventId": "chat=0", "lastEventID": "chat=0", "last_event_id": "chat=0",
	}
	tried := 0
	for _, op := range readDocument(t).operations(t) {
		for _, key := range slices.Sorted(maps.Keys(op.parameters)) {
			where, name, _ := strings.Cut(key, " ")
			if where != "query" || slices.Contains(lists, name) {
				continue
			}
			value, ok := values[name]
			if !ok {
				value = "1"
			}
			query := "?" + name + "=" + value + "&" + name + "=" + value
			if op.path == "/v1/events" && op.method != http.MethodPost {
				query += "&feed=chat"
			}
			path := strings.ReplaceAll(op.path, "{feed}", "chat") + query
			header := map[string]string{}
			if name == "after" || name == "before" || name == "limit" || name == "wait" {
				header["Accept"] = "application/json"
			}
			if op.path == "/v1/events" && op.method == http.MethodPost {
				header["Content-Type"] = "application/x-ndjson"
			}
			r, body := n.head(op.method, path, header, "x")
			if tried++; op.method == http.MethodHead {
				if r.StatusCode != 400 {
					t.Errorf("%s %s: %s", op.method, path, r.Status)
				}
				continue
			}
			wantProblem(t, r, body, http.StatusBadRequest, "the query parameter "+name+" is given more than once")
		}
	}
	if tried < 30 {
		t.Errorf("only %d were tried", tried)
	}
}

// TestTokenTwice: two tokens in one place are refused.
func TestTokenTwice(t *testing.T) {
	n := guarded(t, auth.Options{Key: secret}, server.Options{})
	token := tokenFor(t, auth.Rights{Subscribe: []string{"*"}})
	r, body := n.do("GET", events+"?access_token="+token+"&access_token="+token, nil, "")
	wantProblem(t, r, body, http.StatusUnauthorized, "there are several in the query")
	r, body = n.head("GET", events+"?access_token="+token+"&access_token="+token, bearer(token), "")
	wantProblem(t, r, body, http.StatusBadRequest, "the query parameter access_token is given more than once")
}

// TestCursorParameters: the three names are alternatives. A client may have one in
// its address while a library adds another. In a fixed order of names, the first one
// with a value counts.
func TestCursorParameters(t *testing.T) {
	n := startSubscribed(t)
	for query, cursor := range map[string]int{
		"lastEventId=2&last_event_id=1": 2, "last_event_id=1&lastEventId=2": 2, "lastEventID=2&last_event_id=1": 2, "lastEventId=&lastEventID=2": 2, "last_event_id=2": 2,
	} {
		f := n.follow(events+"?"+query, nil)
		f.want(open("chat", cursor, 1, 3))
	}
}

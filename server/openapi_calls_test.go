package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// call is a request with its expected answer.
type call struct {
	operation string
	status    int
	media     string // of the answer; empty for none
	path      string
	header    string // lines
	body      string

	on    string // the kind of node: see openAPINodes
	token string // the kind of token: see openAPITokens
	until string // where to stop reading a stream; empty reads it to its end
	head  int    // the status for HEAD, if it is another one
}

const (
	problemMedia = "application/problem+json"
	jsonMedia    = "application/json"
	linesMedia   = "application/x-ndjson"
	streamMedia  = "text/event-stream"

	wantsPage  = "Accept: application/json"
	wantsLines = "Accept: application/x-ndjson"
)

// openAPICalls lists every answer that is not common to all operations. The first
// call of an operation also has variants: see withVariants. The node has the feeds of
// startHistory.
var openAPICalls = slices.Concat(pageCalls, streamCalls, linesOf(streamCalls), bareCalls, turnedAway, feedCalls, publishCalls, serverCalls)

var pageCalls = []call{
	{operation: "subscribe", status: 200, media: jsonMedia, path: events + "?after=42&limit=2&gap=fail", header: wantsPage},
	{operation: "subscribe", status: 200, media: jsonMedia, path: events + "?before=43&limit=2", header: wantsPage},
	{operation: "subscribe", status: 200, media: jsonMedia, path: events + "?lastEventId=150&wait=1ms", header: wantsPage},
	{operation: "subscribe", status: 200, media: jsonMedia, path: "/v1/feeds/new/events", header: wantsPage},
	{operation: "subscribe", status: 304, path: events + "?after=42", header: wantsPage + "\nIf-None-Match: *"},
	{operation: "subscribe", status: 400, media: problemMedia, path: events + "?limit=0", header: wantsPage},
	{operation: "subscribe", status: 410, media: problemMedia, path: "/v1/feeds/old/events?after=3&gap=fail", header: wantsPage},
	{operation: "event", status: 200, media: jsonMedia, path: events + "/42"},
	{operation: "event", status: 200, media: jsonMedia, path: events + "/43", token: "cookie"},
	{operation: "event", status: 200, media: jsonMedia, path: events + "/44", token: "query"},
	{operation: "event", status: 304, path: events + "/42", header: "If-None-Match: *"},
	{operation: "event", status: 400, media: problemMedia, path: events + "/x"},
	{operation: "event", status: 404, media: problemMedia, path: events + "/1000"},
	{operation: "event", status: 410, media: problemMedia, path: "/v1/feeds/old/events/3"},
}

// streamCalls is repeated with lines in place of events.
var streamCalls = []call{
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=chat&feed=old&from=start", until: "id: chat=150,old=20"},
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=chat,old&types=x&control=live,heartbeat", header: "Last-Event-ID: chat=140,old=3", until: "feed.heartbeat"},
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=done&from=start&envelope=true&heartbeat=4s"},
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=done&feed=chat", token: "short"},
	{operation: "subscribeMany", status: 204, path: "/v1/events?feed=done&lastEventId=done=3", head: 200},
	{operation: "subscribeMany", status: 410, media: problemMedia, path: "/v1/events?feed=old&lastEventID=old=3&gap=fail", head: 200},
	{operation: "subscribeMany", status: 400, media: problemMedia, path: "/v1/events?feed=old&last_event_id=3"},
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=done&lastEventID=done=2&gap=fail"},
	{operation: "subscribeMany", status: 200, media: streamMedia, path: "/v1/events?feed=done&last_event_id=done=2"},
	{operation: "subscribe", status: 200, media: streamMedia, path: "/v1/feeds/old/events?envelope=true", header: "Last-Event-ID: 3", until: "id: 20"},
	{operation: "subscribe", status: 200, media: streamMedia, path: "/v1/feeds/old/events", header: "Last-Event-ID: 21", until: "ahead"},
	{operation: "subscribe", status: 200, media: streamMedia, path: events + "?types=x&from=-3", until: "feed.cursor"},
	{operation: "subscribe", status: 200, media: streamMedia, path: events + "?from=2026-01-31T09:30:00%2B01:00&control=live,heartbeat", until: "feed.heartbeat"},
	{operation: "subscribe", status: 200, media: streamMedia, path: events + "?last_event_id=149&heartbeat=4s", until: "id: 150"},
	{operation: "subscribe", status: 200, media: streamMedia, path: "/v1/feeds/done/events?from=start"},
	{operation: "subscribe", status: 200, media: streamMedia, path: events, token: "short"},
	{operation: "subscribe", status: 204, path: "/v1/feeds/done/events?lastEventID=3", head: 200},
	{operation: "subscribe", status: 400, media: problemMedia, path: events + "?from=never"},
	{operation: "subscribe", status: 410, media: problemMedia, path: "/v1/feeds/old/events?lastEventId=3&gap=fail", head: 200},
}

var bareCalls = []call{
	{operation: "subscribeBare", status: 200, media: streamMedia, path: "/v1/feeds/old/stream?envelope=true", until: "id: 20"},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: bare + "?startIndex=-3&types=x&heartbeat=4s", until: "id: 150"},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: bare + "?from=-3", header: wantsLines, until: "id: 150"},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: "/v1/feeds/done/stream?last_event_id=3&closed=200"},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: bare + "?lastEventId=149", token: "short"},
	{operation: "subscribeBare", status: 204, path: "/v1/feeds/done/stream", header: "Last-Event-ID: 3", head: 200},
	{operation: "subscribeBare", status: 204, path: "/v1/feeds/new/stream?closed=204", head: 200},
	{operation: "subscribeBare", status: 400, media: problemMedia, path: bare + "?control=live"},
	{operation: "subscribeBare", status: 410, media: problemMedia, path: "/v1/feeds/old/stream?lastEventID=3", head: 200},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: "/v1/feeds/old/stream?lastEventID=19", until: "id: 20"},
	{operation: "subscribeBare", status: 429, media: problemMedia, path: bare, on: "crowded", head: 200},
	{operation: "subscribeBare", status: 200, media: streamMedia, path: bare, header: "Accept: text/event-stream", on: "away", until: ":\n"},
}

// linesOf returns the same calls with lines instead of events.
func linesOf(calls []call) (all []call) {
	for _, c := range calls {
		c.header += "\n" + wantsLines
		if c.media == streamMedia {
			c.media = linesMedia
		}
		if id, ok := strings.CutPrefix(c.until, "id: "); ok {
			c.until = `"id":` + id[strings.LastIndex(id, "=")+1:] + ","
		}
		all = append(all, c)
	}
	return all
}

var turnedAway = []call{
	{operation: "subscribe", status: 429, media: problemMedia, path: events, header: wantsLines, on: "crowded", head: 200},
	{operation: "subscribe", status: 429, media: problemMedia, path: events + "?wait=1s", header: wantsPage, on: "crowded"},
	{operation: "subscribe", status: 503, media: problemMedia, path: events, header: wantsLines, on: "full", head: 200},
	{operation: "subscribe", status: 503, media: problemMedia, path: events, on: "stopping", head: 200},
	{operation: "subscribe", status: 200, media: streamMedia, path: events, header: "Accept: text/event-stream", on: "full"},
	{operation: "subscribe", status: 200, media: streamMedia, path: events, header: "Accept: text/event-stream", on: "away", until: ":\n"},
	{operation: "subscribeMany", status: 429, media: problemMedia, path: "/v1/events?feed=chat", header: wantsLines, on: "crowded", head: 200},
	{operation: "subscribeMany", status: 406, media: problemMedia, path: "/v1/events?feed=chat", header: wantsPage},
}

var feedCalls = []call{
	{operation: "feeds", status: 200, media: jsonMedia, path: "/v1/feeds?limit=2"},
	{operation: "feeds", status: 200, media: jsonMedia, path: "/v1/feeds?prefix=o&after=done"},
	{operation: "feeds", status: 400, media: problemMedia, path: "/v1/feeds?limit=x"},
	{operation: "feeds", status: 501, media: problemMedia, path: "/v1/feeds", on: "bare"},
	{operation: "feed", status: 200, media: jsonMedia, path: "/v1/feeds/chat"},
	{operation: "feed", status: 400, media: problemMedia, path: "/v1/feeds/.chat"},
	{operation: "feed", status: 404, media: problemMedia, path: "/v1/feeds/new"},
	{operation: "feed", status: 501, media: problemMedia, path: "/v1/feeds/chat", on: "bare"},
	{operation: "deleteFeed", status: 204, path: "/v1/feeds/gone"},
	{operation: "deleteFeed", status: 400, media: problemMedia, path: "/v1/feeds/gone?before=3"},
	{operation: "deleteFeed", status: 501, media: problemMedia, path: "/v1/feeds/gone", on: "bare"},
	{operation: "trim", status: 204, path: "/v1/feeds/old/events?before=12"},
	{operation: "trim", status: 400, media: problemMedia, path: "/v1/feeds/old/events"},
	{operation: "trim", status: 501, media: problemMedia, path: "/v1/feeds/old/events?before=12", on: "bare"},
}

const isLines = "Content-Type: application/x-ndjson"

var publishCalls = []call{
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/a/events", body: "hello"},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/a/events", header: "Content-Type: application/json\nEvent-Type: x\nIf-Match: \"1\"", body: `{"a":1}`},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/a/events?type=x", header: "Idempotency-Key: k", body: "hello"},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/a/events?type=x", header: "Idempotency-Key: k", body: "hello"},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/b/events?close=true", header: isLines, body: `{"data":"x"}` + "\n" + `{"type":"x","data":[1]}`},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/s/events?type=x", header: mediaSSE + "\nIdempotency-Key: k", body: "data: a\n\nevent: y\ndata: b"},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/s/events?stream=true&close=true", header: isLines + "\nIf-Match: \"2\"", body: `{"data":"x"}` + "\n" + `{"type":"x","data":[1]}`},
	{operation: "publish", status: 201, media: jsonMedia, path: "/v1/feeds/a/events", header: mediaSSE},
	{operation: "publish", status: 400, media: problemMedia, path: "/v1/feeds/a/events", header: mediaSSE, body: "data: a\n\ndata: \xff"},
	{operation: "publish", status: 409, media: problemMedia, path: "/v1/feeds/done/events", header: mediaSSE, body: "data: a\n\n"},
	{operation: "publish", status: 202, path: "/v1/feeds/a/events?ephemeral=true", body: "hello"},
	{operation: "publish", status: 400, media: problemMedia, path: "/v1/feeds/a/events", header: isLines, body: "{"},
	{operation: "publish", status: 408, media: problemMedia, path: "/v1/feeds/a/events", on: "slow"},
	{operation: "publish", status: 409, media: problemMedia, path: "/v1/feeds/done/events", body: "hello"},
	{operation: "publish", status: 412, media: problemMedia, path: "/v1/feeds/a/events", header: "If-Match: \"7\"", body: "hello"},
	{operation: "publish", status: 413, media: problemMedia, path: "/v1/feeds/a/events", body: strings.Repeat("x", 60_001)},
	{operation: "publish", status: 415, media: problemMedia, path: "/v1/feeds/a/events", header: "Content-Encoding: gzip", body: "hello"},
	{operation: "publish", status: 422, media: problemMedia, path: "/v1/feeds/a/events", header: "Idempotency-Key: k", body: "other"},
	{operation: "publish", status: 429, media: problemMedia, path: "/v1/feeds/a/events", body: "hello", on: "limited"},
	{operation: "publish", status: 503, media: problemMedia, path: "/v1/feeds/a/events", body: "hello", on: "lost"},
	{operation: "publishMany", status: 201, media: jsonMedia, path: batches, header: isLines + "\nIdempotency-Key: k", body: `{"feed":"m","data":"x"}` + "\n" + `{"feed":"c","data":1}`},
	{operation: "publishMany", status: 201, media: jsonMedia, path: batches, header: isLines + "\nIdempotency-Key: k", body: `{"feed":"m","data":"x"}` + "\n" + `{"feed":"c","data":1}`},
	{operation: "publishMany", status: 400, media: problemMedia, path: batches, header: isLines, body: `{"data":"x"}`},
	{operation: "publishMany", status: 408, media: problemMedia, path: batches, header: isLines, on: "slow"},
	{operation: "publishMany", status: 409, media: problemMedia, path: batches, header: isLines, body: `{"feed":"done","data":"x"}`},
	{operation: "publishMany", status: 413, media: problemMedia, path: batches, header: isLines, body: strings.Repeat(`{"feed":"m","data":"x"}`+"\n", 1001)},
	{operation: "publishMany", status: 415, media: problemMedia, path: batches, body: "x"},
	{operation: "publishMany", status: 422, media: problemMedia, path: batches, header: isLines + "\nIdempotency-Key: k", body: `{"feed":"m","data":"y"}`},
	{operation: "publishMany", status: 429, media: problemMedia, path: batches, header: isLines, body: `{"feed":"m","data":"x"}`, on: "limited"},
	{operation: "close", status: 204, path: "/v1/feeds/done/close"},
	{operation: "close", status: 204, path: "/v1/feeds/d/close", header: "If-Match: \"0\""},
	{operation: "close", status: 400, media: problemMedia, path: "/v1/feeds/d/close", header: "If-Match: 0"},
	{operation: "close", status: 412, media: problemMedia, path: "/v1/feeds/e/close", header: "If-Match: \"7\""},
}

var serverCalls = []call{
	{operation: "healthz", status: 200, media: jsonMedia, path: "/healthz", token: "none"},
	{operation: "readyz", status: 200, media: jsonMedia, path: "/readyz", token: "none"},
	{operation: "readyz", status: 503, media: jsonMedia, path: "/readyz", token: "none", on: "away"},
	{operation: "readyz", status: 503, media: jsonMedia, path: "/readyz", token: "none", on: "stopping"},
	{operation: "openapi", status: 200, media: "application/yaml", path: "/openapi.yaml", token: "none"},
	{operation: "openapi", status: 304, path: "/openapi.yaml", header: "If-None-Match: *", token: "none"},
}

// withVariants adds HEAD for every GET. It also repeats the first call of every
// operation without a token that covers it, and on nodes where something is wrong.
func withVariants(t *testing.T, operations []operation, calls []call) (all []call) {
	t.Helper()
	ids := map[string]string{}
	for _, op := range operations {
		ids[op.method+" "+op.path] = op.id
	}
	for _, op := range operations {
		first := true
		for _, c := range calls {
			if c.operation != op.id {
				continue
			}
			head := c
			head.operation = ids["HEAD "+op.path]
			if c.head != 0 {
				head.status, head.media = c.head, mediaOfHead(c)
			}
			both := []call{c}
			if op.method == http.MethodGet {
				both = append(both, head)
			}
			all = append(all, both...)
			if !first || !op.secured {
				continue
			}
			first = false
			for _, c := range both {
				all = append(all, spoilt(c)...)
			}
		}
		if first && op.secured && op.method != http.MethodHead {
			t.Errorf("%s is never called", op.id)
		}
	}
	return all
}

// mediaOfHead returns the media type of HEAD for a call whose GET has no stream.
func mediaOfHead(c call) string {
	if strings.Contains(c.header, wantsLines) && c.operation != "subscribeBare" {
		return linesMedia
	}
	return streamMedia
}

func spoilt(c call) (all []call) {
	for _, with := range []struct {
		on, token string
		status    int
	}{{"", "none", 401}, {"", "bad", 401}, {"", "powerless", 403}, {"failing", "", 500}, {"away", "", 503}, {"keyless", "", 503}} {
		if (c.operation == "subscribeManyHead" || c.operation == "subscribeBareHead") && (with.on == "failing" || with.on == "away") {
			continue // it does not look at the store
		}
		c := c
		c.on, c.token, c.status, c.media, c.until = with.on, with.token, with.status, problemMedia, ""
		all = append(all, c)
	}
	return all
}

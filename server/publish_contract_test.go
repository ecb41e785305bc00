package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// exchange is a POST and its expected answer.
type exchange struct {
	path   string
	header string // lines
	body   string

	status int
	says   string // is in the answer; for 201, is all of it except the time
	with   string // header lines of the answer; "Name:" for one that is not there
}

// post sends the request and compares the answer with x.
func (n *node) post(x exchange) {
	n.t.Helper()
	resp, body := n.exchange(x)
	// An ephemeral event does not wait long for the store to say that its feed is closed.
	for tries := 0; x.status == http.StatusConflict && resp.StatusCode == http.StatusAccepted && tries < 20; tries++ {
		resp, body = n.exchange(x)
	}
	if x.status >= 400 {
		wantProblem(n.t, resp, body, x.status, x.says)
	} else if resp.StatusCode != x.status || withoutTime(body) != x.says {
		n.t.Errorf("POST %s %s %.80q: %s %s, want %d %s", x.path, x.header, x.body, resp.Status, body, x.status, x.says)
	}
	for line := range strings.Lines(x.with) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if got := strings.Join(resp.Header.Values(name), ", "); got != strings.TrimSpace(value) {
			n.t.Errorf("POST %s %s %.80q: %s: %q, want %q", x.path, x.header, x.body, name, got, value)
		}
	}
}

func (n *node) exchange(x exchange) (*http.Response, string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.url+x.path, strings.NewReader(x.body))
	if err != nil {
		n.t.Fatal(err)
	}
	addHeader(r.Header, x.header)
	resp, body, err := roundTrip(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp, body
}

// roundTrip returns the answer and its whole body.
func roundTrip(r *http.Request) (*http.Response, string, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func addHeader(h http.Header, lines string) {
	for line := range strings.Lines(lines) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			h.Add(name, strings.TrimSpace(value))
		}
	}
}

func withoutTime(body string) string {
	if before, _, ok := strings.Cut(body, `,"time":`); ok {
		return before + "}"
	}
	return strings.TrimSpace(body)
}

// stored returns what the feed holds, as "id type data", with JSON marked.
func (n *node) stored(feedName string) (all []string) {
	n.t.Helper()
	page, err := n.store.Read(n.t.Context(), feedName, 0, feed.Limit{Events: 10_000, Bytes: 1 << 30})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range page.Events {
		form := "text"
		if e.JSON {
			form = "json"
		}
		all = append(all, fmt.Sprintf("%d %s %s %s", e.ID, e.Type, form, e.Data))
	}
	return all
}

const (
	batches = "/v1/events"
	ndjson  = "Content-Type: application/x-ndjson"
	key     = "Idempotency-Key: k1"
)

func published(id int) string { return fmt.Sprintf(`{"feed":"chat","id":%d}`, id) }

// publishContract lists the contract for publishing, one case for each sentence.
var publishContract = []struct {
	sentence  string
	exchanges []exchange
	stored    []string // in the feed chat
}{
	{"JSON must be valid, and is kept as is", []exchange{
		{events, "Content-Type: application/json", ` { "a" : 1.0 } `, 201, published(1), "ETag: \"1\"\nIdempotency-Replayed:"},
		{events, "Content-Type: application/json", `{`, 400, "JSON", ""},
	}, []string{`1  json  { "a" : 1.0 } `}},
	{"any other type is kept as text", []exchange{
		{events, "Content-Type: application/ld+json", `{`, 201, published(1), "Location: /v1/feeds/chat/events/1"},
	}, []string{`1  text {`}},
	{"the type is a header or in the query", []exchange{
		{events, "Event-Type: a", "x", 201, published(1), ""},
		{events + "?type=b", "", "x", 201, published(2), ""},
		{events, "Event-Type: a\nEvent-Type: b", "x", 400, "more than once", ""},
		{events, "Content-Type: text/plain\nContent-Type: application/json", "1", 400, "more than once", ""},
	}, []string{"1 a text x", "2 b text x"}},
	{"the same key appends nothing and answers as the first time", []exchange{
		{events + "?type=a", key, "x\r\n", 201, published(1), "Idempotency-Replayed:"},
		{events, "", "y", 201, published(2), ""},
		{events, key + "\nEvent-Type: a", "x\n", 201, published(1), "Idempotency-Replayed: true\nLocation: /v1/feeds/chat/events/1\nETag: \"1\""},
	}, []string{"1 a text x\n", "2  text y"}},
	{"with another body or type, 422", []exchange{
		{events, key, "1", 201, published(1), ""},
		{events, key, "2", 422, "Idempotency-Key", ""},
		{events + "?type=a", key, "1", 422, "Idempotency-Key", ""},
		{events, key + "\nContent-Type: application/json", "1", 422, "Idempotency-Key", ""},
		{events + "?close=true", key, "1", 422, "Idempotency-Key", ""},
		{events, key + "\n" + ndjson, `{"data":"2"}`, 422, "Idempotency-Key", ""},
	}, []string{"1  text 1"}},
	{"the same key on another feed is another", []exchange{
		{events, key, "x", 201, published(1), ""},
		{"/v1/feeds/news/events", key, "x", 201, `{"feed":"news","id":1}`, "Idempotency-Replayed:"},
	}, []string{"1  text x"}},
	{"a refused publish leaves no key", []exchange{
		{events, key + "\nIf-Match: \"7\"", "x", 412, "last event is 0", `ETag: "0"`},
		{events, key, "y", 201, published(1), "Idempotency-Replayed:"},
	}, []string{"1  text y"}},
	{"a key is 1 to 255 visible ASCII", []exchange{
		{events, "Idempotency-Key: !" + strings.Repeat("~", 254), "x", 201, published(1), ""},
		{events, "Idempotency-Key: " + strings.Repeat("a", 256), "x", 400, "255", ""},
		{events, "Idempotency-Key:", "x", 400, "255", ""},
		{events, "Idempotency-Key: a b", "x", 400, "character 2", ""},
		{events, "Idempotency-Key: é", "x", 400, "character 1", ""},
		{events, "Idempotency-Key: a\nIdempotency-Key: a", "x", 400, "more than once", ""},
		{batches, ndjson + "\nIdempotency-Key: a b", `{"feed":"chat","data":1}`, 400, "character 2", ""},
	}, []string{"1  text x"}},
	{"If-Match: only if it is the feed's last id", []exchange{
		{events, `If-Match: "0"`, "x", 201, published(1), `ETag: "1"`},
		{events, `If-Match: "0"`, "x", 412, "last event is 1", `ETag: "1"`},
		{events, `If-Match: "2"`, "x", 412, "last event is 1", `ETag: "1"`},
		{events, `If-Match: "1"`, "y", 201, published(2), `ETag: "2"`},
	}, []string{"1  text x", "2  text y"}},
	{"a key that is known decides before If-Match", []exchange{
		{events, key + "\nIf-Match: \"0\"", "x", 201, published(1), ""},
		{events, key + "\nIf-Match: \"0\"", "x", 201, published(1), "Idempotency-Replayed: true"},
	}, []string{"1  text x"}},
	{"If-Match malformed, 400", malformedIfMatch(), nil},
	{"close=true closes the feed with this event", []exchange{
		{events + "?close=false", "", "x", 201, published(1), ""},
		{events + "?close=true", key, "bye", 201, published(2), `ETag: "2"`},
		{events, "", "x", 409, "closed", ""},
		{events, ndjson, `{"data":1}`, 409, "closed", ""},
		{events + "?ephemeral=true", "", "x", 409, "closed", ""},
		{batches, ndjson, `{"feed":"news","data":1}` + "\n" + `{"feed":"chat","data":1}`, 409, "closed", ""},
		{"/v1/feeds/news/events", `If-Match: "0"`, "x", 201, `{"feed":"news","id":1}`, ""},
		{events + "?close=true", key, "bye", 201, published(2), "Idempotency-Replayed: true"},
	}, []string{"1  text x", "2  text bye"}},
	{"close is true or false", []exchange{
		{events + "?close", "", "x", 400, "true or false", ""},
		{events + "?close=1", "", "x", 400, "true or false", ""},
		{events + "?close=true&close=true", "", "x", 400, "once", ""},
		{events + "?ephemeral=yes", "", "x", 400, "true or false", ""},
	}, nil},
	{"close closes without an event, when closed already too", []exchange{
		{events, "", "x", 201, published(1), ""},
		{"/v1/feeds/chat/close", `If-Match: "0"`, "", 412, "last event is 1", `ETag: "1"`},
		{"/v1/feeds/chat/close", "", "", 204, "", ""},
		{"/v1/feeds/chat/close", "", "a body that nobody reads", 204, "", ""},
		{events, "", "x", 409, "closed", ""},
		{"/v1/feeds/.chat/close", "", "", 400, "character 1", ""},
	}, []string{"1  text x"}},
	{"closing a feed never written to makes it, closed", []exchange{
		{"/v1/feeds/chat/close", "", "", 204, "", ""},
		{events, `If-Match: "0"`, "x", 409, "closed", ""},
	}, nil},
	{"a batch is a line an event; a string is text, any other value JSON", []exchange{
		{events, ndjson, `{"data":"a\r\nb\u00e9"}` + "\r\n" + ` { "type" : "t" , "data" : { "b" : [ 1.0 ] } } ` + "\n" + `{"data":null,"feed":"chat"}`,
			201, `{"events":[` + published(1) + "," + published(2) + "," + published(3) + `]}`, "ETag: \"3\"\nLocation:"},
	}, []string{"1  text a\nbé", `2 t json { "b" : [ 1.0 ] }`, "3  json null"}},
	{"a batch for many feeds names them", []exchange{
		{batches, ndjson, `{"feed":"chat","data":"a"}` + "\n" + `{"feed":"news","data":"b"}` + "\n" + `{"feed":"chat","type":"t","data":1}` + "\n",
			201, `{"events":[` + published(1) + `,{"feed":"news","id":1},` + published(2) + `]}`, "ETag:"},
		{batches, ndjson, `{"data":"a"}`, 400, `line 1: the member "feed" is missing`, ""},
		{batches, "Content-Type: application/json", `{"feed":"chat","data":"a"}`, 415, "application/x-ndjson", ""},
		{batches, "", `{"feed":"chat","data":"a"}`, 415, "application/x-ndjson", ""},
	}, []string{"1  text a", "2 t json 1"}},
	{"all or nothing", []exchange{
		{events, ndjson, `{"data":"a"}` + "\n" + `{"data":"\u0000"}`, 400, "line 2: data must be UTF-8 without NUL", ""},
		{events, ndjson, `{"data":"a"}` + "\n" + `{"data":"b","type":"open"}`, 400, "line 2: event type", ""},
		{batches, ndjson, `{"feed":"chat","data":"a"}` + "\n\n" + `{"feed":"!","data":"b"}`, 400, "line 3: a feed name", ""},
		{events, ndjson, `{"data":"a"}` + "\n" + `{"data":"` + strings.Repeat("x", 60_001) + `"}`, 413, "60000", ""},
		{events, ndjson, "\n" + `{"data":"` + strings.Repeat(`\n`, 60_000/7+1) + `"}`, 413, "line 2", ""},
		{events, "If-Match: \"1\"\n" + ndjson, `{"data":"a"}`, 412, "last event is 0", `ETag: "0"`},
	}, nil},
	{"batch_events and batch_bytes are limits", []exchange{
		{events, ndjson, strings.Repeat(`{"data":1}`+"\n", 6), 413, "the batch has more than 5 events", ""},
		{events, ndjson, strings.Repeat("\n", 130_001), 413, "the batch has more than 130000 bytes", ""},
		{batches, ndjson, strings.Repeat("\n", 130_001), 413, "the batch has more than 130000 bytes", ""},
		{events, ndjson, strings.Repeat(`{"data":1}`+"\n\n", 5), 201, `{"events":[` + published(1) + "," + published(2) + "," + published(3) + "," + published(4) + "," + published(5) + `]}`, ""},
	}, []string{"1  json 1", "2  json 1", "3  json 1", "4  json 1", "5  json 1"}},
	{"a key covers the batch", []exchange{
		{events, ndjson + "\n" + key, `{"data":"a"}` + "\n" + `{"data":"b"}`, 201, `{"events":[` + published(1) + "," + published(2) + `]}`, ""},
		{events, ndjson + "\n" + key, "\n" + `{"data":"a"}` + "\n\n" + `{"data":"b"}`, 201, `{"events":[` + published(1) + "," + published(2) + `]}`, "Idempotency-Replayed: true\nETag: \"2\""},
		{events, ndjson + "\n" + key, `{"data":"a"}`, 422, "Idempotency-Key", ""},
	}, []string{"1  text a", "2  text b"}},
	{"on /v1/events keys are a space of their own", []exchange{
		{events, key, "a", 201, published(1), ""},
		{batches, ndjson + "\n" + key, `{"feed":"chat","data":"b"}`, 201, `{"events":[` + published(2) + `]}`, "Idempotency-Replayed:"},
		{batches, ndjson + "\n" + key, `{"feed":"chat","data":"b"}`, 201, `{"events":[` + published(2) + `]}`, "Idempotency-Replayed: true"},
		{batches, ndjson + "\n" + key, `{"feed":"news","data":"b"}`, 422, "Idempotency-Key", ""},
	}, []string{"1  text a", "2  text b"}},
	{"a batch for one feed can be conditional and close it", []exchange{
		{events + "?close=true", ndjson + "\nIf-Match: \"0\"", `{"data":"a"}`, 201, `{"events":[` + published(1) + `]}`, ""},
		{events, "", "x", 409, "closed", ""},
	}, []string{"1  text a"}},
	{"a batch for many cannot", []exchange{
		{batches + "?close=true", ndjson, `{"feed":"chat","data":"a"}`, 400, "one feed", ""},
		{batches, ndjson + "\nIf-Match: \"0\"", `{"feed":"chat","data":"a"}`, 400, "one feed", ""},
	}, nil},
	{"a line has its type, the request none", []exchange{
		{events + "?type=a", ndjson, `{"data":"a"}`, 400, "each line", ""},
		{batches, ndjson + "\nEvent-Type: a", `{"feed":"chat","data":"a"}`, 400, "each line", ""},
	}, nil},
	{"ephemeral=true is not stored", []exchange{
		{events + "?ephemeral=true", "", "x", 202, "", "ETag:\nLocation:"},
		{events + "?ephemeral=true", key, "x", 400, "Idempotency-Key", ""},
		{events + "?ephemeral=true", `If-Match: "0"`, "x", 400, "If-Match", ""},
		{events + "?ephemeral=true&close=true", "", "x", 400, "close", ""},
		{events + "?ephemeral=true", ndjson, `{"data":"x"}`, 400, "published alone", ""},
		{batches + "?ephemeral=true", ndjson, `{"feed":"chat","data":"x"}`, 400, "published alone", ""},
		{events + "?ephemeral=true", "", strings.Repeat("x", 60_001), 413, "60000", ""},
		{events + "?ephemeral=true", "Content-Type: application/json", "{", 400, "JSON", ""},
		{events + "?ephemeral=false", "", "y", 201, published(1), ""},
	}, []string{"1  text y"}},
}

func TestPublishContract(t *testing.T) { eachStore(t, testPublishContract) }

func testPublishContract(t *testing.T) {
	for _, test := range publishContract {
		t.Run(test.sentence, func(t *testing.T) {
			t.Parallel()
			n := startOn(t, newKeeper(t), server.Options{BatchEvents: 5, BatchBytes: 130_000})
			for _, x := range test.exchanges {
				n.post(x)
			}
			if diff := cmp.Diff(test.stored, n.stored("chat")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func malformedIfMatch() (all []exchange) {
	for _, value := range []string{"", "0", "*", `"`, `""`, `W/"0"`, `"0", "1"`, `"00"`, `"-1"`, `"+0"`, `" 0"`, `"0`, `0"`, `""0""`, `'0'`, `"0x0"`, `"9223372036854775808"`} {
		all = append(all, exchange{events, "If-Match: " + value, "x", 400, "If-Match", ""})
	}
	return append(all, exchange{events, "If-Match: \"0\"\nIf-Match: \"0\"", "x", 400, "more than once", ""})
}

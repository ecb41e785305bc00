package envelope_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

var at = time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC)

func TestAppend(t *testing.T) {
	for _, test := range []struct {
		name  string
		event feed.Event
		want  string
	}{
		{"text", feed.Event{Feed: "chat", ID: 1, Data: "hi", Time: at},
			`{"feed":"chat","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"hi"}`},
		{"JSON", feed.Event{Feed: "chat:42", ID: 42, Type: "message.edited", Data: `{ "a" : [1.0] }`, JSON: true, Time: at.Add(7 * time.Millisecond)},
			`{"feed":"chat:42","id":42,"type":"message.edited","time":"2026-01-31T09:30:00.007Z","data":{ "a" : [1.0] }}`},
		{"text that looks like JSON", feed.Event{Feed: "a", ID: 1, Data: `{"a":1}`, Time: at},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"{\"a\":1}"}`},
		{"a JSON string", feed.Event{Feed: "a", ID: 1, Data: `"hi"`, JSON: true, Time: at},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"hi"}`},
		{"JSON on several lines", feed.Event{Feed: "a", ID: 1, Data: "{\n\t\"a\": \"x\\ny\",\r\n\"b\": 2\n}\n", JSON: true, Time: at},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":{ ` + "\t" + `"a": "x\ny",  "b": 2 } }`},
		{"no data", feed.Event{Feed: "a", ID: 1, Time: at},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":""}`},
		{"an event that is not stored has no id", feed.Event{Feed: "a", Type: "typing", Data: "x", Time: at},
			`{"feed":"a","type":"typing","time":"2026-01-31T09:30:00.000Z","data":"x"}`},
		{"the largest id", feed.Event{Feed: "a", ID: feed.MaxID, Time: at},
			`{"feed":"a","id":9223372036854775807,"type":"message","time":"2026-01-31T09:30:00.000Z","data":""}`},
		{"characters", feed.Event{Feed: "a", ID: 1, Data: "<b>&'\"\\/\n\r\t\x00\x1f\x7f é 🚀 \u2028\u2029 \xff\xed\xa0\x80", Time: at},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.000Z","data":"<b>&'\"\\/\n\r\t\u0000\u001f` + "\x7f" + ` é 🚀 \u2028\u2029 \ufffd\ufffd\ufffd\ufffd"}`},
		{"a time of another zone, with more digits", feed.Event{Feed: "a", ID: 1, Time: at.Add(999_999 * time.Microsecond).In(time.FixedZone("", 7200))},
			`{"feed":"a","id":1,"type":"message","time":"2026-01-31T09:30:00.999Z","data":""}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff("before "+test.want, string(envelope.Append([]byte("before "), &test.event))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzAppend compares the encoding with encoding/json: the result is one valid line
// with the event's fields.
func FuzzAppend(f *testing.F) {
	f.Add("chat", "message.edited", "{\"text\":\"hi\"}", uint64(42), int64(1))
	f.Add("chat:42", "", "{\n\"a\":\r\n\"\\n\\u2028\"}", uint64(1), int64(-1))
	f.Add("a", "x", "[1e400, null, \"\u2028\"]", uint64(0), int64(253402300799999))
	f.Add("a", "", "\x00\x1f\x7f\u0085\u2028\u2029\uFFFD\uFEFF🚀\xff\xe2\x80", uint64(9), int64(0))
	f.Fuzz(func(t *testing.T, name, eventType, data string, id uint64, ms int64) {
		if ms < -62135596800000 || ms > 253402300799999 {
			return // years that RFC 3339 has
		}
		e := feed.Event{Feed: name, ID: feed.ID(id), Type: eventType, Data: data, Time: time.UnixMilli(ms)}
		e.JSON = utf8.ValidString(data) && json.Valid([]byte(data))
		got := envelope.Append(nil, &e)
		if bytes.ContainsAny(got, "\n\r") || !utf8.Valid(got) {
			t.Fatalf("not one line of UTF-8: %q", got)
		}
		var answer struct {
			Feed, Type string
			ID         *feed.ID
			Time       time.Time
			Data       json.RawMessage
		}
		decoder := json.NewDecoder(bytes.NewReader(got))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&answer); err != nil {
			t.Fatalf("%v in %q", err, got)
		}
		if eventType == "" {
			eventType = "message"
		}
		valid := func(s string) string { return string([]rune(s)) } // each bad byte becomes U+FFFD
		if answer.Feed != valid(name) || answer.Type != valid(eventType) || !answer.Time.Equal(e.Time) {
			t.Errorf("%+v became %s", e, got)
		}
		if id == 0 && answer.ID != nil || id != 0 && (answer.ID == nil || *answer.ID != feed.ID(id)) {
			t.Errorf("id %d became %s", id, got)
		}
		if e.JSON {
			var was, is bytes.Buffer
			if json.Compact(&was, []byte(data)) != nil || json.Compact(&is, answer.Data) != nil || was.String() != is.String() {
				t.Errorf("%q became %q", data, answer.Data)
			}
			return
		}
		var s string
		if err := json.Unmarshal(answer.Data, &s); err != nil || s != valid(data) {
			t.Errorf("%q became %q, %v", data, answer.Data, err)
		}
	})
}

func TestAppendAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 4096)
	for _, e := range []feed.Event{
		{Feed: "chat", ID: 1, Data: strings.Repeat("\"é\n", 100), Time: at},
		{Feed: "chat", ID: 1, Data: "{\n}", JSON: true, Time: at},
	} {
		if n := testing.AllocsPerRun(100, func() { envelope.Append(buf, &e) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, e := range map[string]feed.Event{
		"text": {Feed: "chat", ID: 123456, Data: strings.Repeat("x \"é\"\n", 20), Time: at},
		"json": {Feed: "chat", ID: 123456, Data: `{"text":"` + strings.Repeat("x", 120) + `"}`, JSON: true, Time: at},
	} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 512)
			b.ReportAllocs()
			for b.Loop() {
				buf = envelope.Append(buf[:0], &e)
			}
		})
	}
}

package sse_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/tmaxmax/go-sse"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

func TestBlocks(t *testing.T) {
	for _, test := range []struct {
		name  string
		event feed.Event
		want  string
	}{
		{"plain", feed.Event{ID: 1, Data: "hi"}, "data: hi\nid: 1\n\n"},
		{"with a type", feed.Event{ID: 42, Type: "message.edited", Data: "a\nb"}, "event: message.edited\ndata: a\ndata: b\nid: 42\n\n"},
		{"no data at all", feed.Event{ID: 2}, "data: \nid: 2\n\n"},
		{"data that looks like fields", feed.Event{ID: 3, Data: "id: 9\nevent: x\n\nretry: 1"}, "data: id: 9\ndata: event: x\ndata: \ndata: retry: 1\nid: 3\n\n"},
		{"spaces at the edges", feed.Event{ID: 4, Data: " a \n "}, "data:  a \ndata:  \nid: 4\n\n"},
		{"a CR that a store let in", feed.Event{ID: 5, Data: "a\rid: 9\r\nb"}, "data: a\ndata: id: 9\ndata: b\nid: 5\n\n"},
		{"the largest id", feed.Event{ID: feed.MaxID}, "data: \nid: 9223372036854775807\n\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(sse.Blocks.Encode(nil, &test.event))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestControl(t *testing.T) {
	c := sse.Control{Type: "feed.open", Data: `{"feed":"chat"}`, ID: "41", Retry: 2143 * time.Millisecond}
	want := "retry: 2143\nevent: feed.open\ndata: {\"feed\":\"chat\"}\nid: 41\n\n"
	if diff := cmp.Diff(want, string(c.Append(nil))); diff != "" {
		t.Error(diff)
	}
	c.Retry = 0
	want = strings.TrimPrefix(want, "retry: 2143\n")
	if diff := cmp.Diff(want, string(c.Append(nil))); diff != "" {
		t.Error(diff)
	}
}

// FuzzBlocks checks the encoding with a parser that others wrote: an event arrives
// unchanged, and so do its neighbours in the stream.
func FuzzBlocks(f *testing.F) {
	f.Add("message.edited", "first line\nsecond line", uint64(42))
	f.Add("", "", uint64(1))
	f.Add("", "\n\n", uint64(7))
	f.Add("x", "data: a\nid: 9\n: comment\nretry: 5", uint64(8))
	f.Add("", "\uFEFFbyte order mark", uint64(9))
	f.Add("", " leading, trailing ", uint64(10))
	f.Add("", "a\rb\r\nc", uint64(11))
	f.Fuzz(func(t *testing.T, eventType, data string, id uint64) {
		if feed.CheckType(eventType) != nil || strings.IndexByte(data, 0) >= 0 || len(data) > 20_000 {
			return
		}
		before, after := feed.Event{ID: 1, Data: "before"}, feed.Event{ID: 3, Type: "after", Data: "after"}
		event := feed.Event{ID: feed.ID(id), Type: eventType, Data: data}
		var stream []byte
		for _, e := range []*feed.Event{&before, &event, &after} {
			stream = append(sse.Blocks.Encode(stream, e), sse.KeepAlive...)
		}
		event.Data = strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n")

		var got []client.Event
		for e, err := range client.Read(bytes.NewReader(stream), &client.ReadConfig{MaxEventSize: 1 << 20}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		var want []client.Event
		for _, e := range []feed.Event{before, event, after} {
			want = append(want, client.Event{LastEventID: e.ID.String(), Type: e.Type, Data: e.Data})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkBlocks(b *testing.B) {
	e := feed.Event{ID: 123456, Type: "message", Data: strings.Repeat("x", 120)}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = sse.Blocks.Encode(buf[:0], &e)
	}
}

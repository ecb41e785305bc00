package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Nodes of all versions have to agree on where a feed is.
func TestShardsStay(t *testing.T) {
	k := newKeyspace("rejoin", "s", 16)
	for name, want := range map[string]string{
		"chat":         "rejoin:s:{11}:feed:chat",
		"news":         "rejoin:s:{6}:feed:news",
		"orders:eu~1@": "rejoin:s:{3}:feed:orders:eu~1@",
	} {
		if got := k.feed(k.shard(name), name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestEncoding(t *testing.T) {
	for _, e := range []feed.Event{
		{}, {Data: "x"}, {Type: "a:b"}, {JSON: true, Data: "{}"}, {JSON: true, Type: "j:"}, {Type: "j"},
		{Data: "two\nlines \u2028", Time: time.UnixMilli(latestTime)},
	} {
		if e.Time.IsZero() {
			e.Time = time.UnixMilli(0)
		}
		e.Time = e.Time.UTC()
		var got feed.Event
		if !decodeEvent(&got, []any{meta(&e), e.Data}) || got != e {
			t.Errorf("%+v became %q and then %+v", e, meta(&e), got)
		}
	}
	for _, fields := range [][]any{
		nil, {"0:"}, {"0:", "x", "1:", "y"}, {"0:", nil}, {nil, "x"}, {"", "x"}, {"0", "x"}, {":", "x"}, {"00:", "x"}, {"+1:", "x"},
		{"-1:", "x"}, {"0jj:", "x"}, {"j:", "x"}, {"253402300800000:", "x"}, {"0:feed.x", "x"}, {"0: ", "x"}, {"0:\n", "x"},
		{"0:", "\r"}, {"0:", "\x00"}, {"0:", "\xc3"},
	} {
		var e feed.Event
		if decodeEvent(&e, fields) {
			t.Errorf("%q was taken for %+v", fields, e)
		}
	}
}

// TestEncodedTrace: a trace beside the event is taken if it can be one, and never in the
// way of the event.
func TestEncodedTrace(t *testing.T) {
	for _, test := range []struct {
		more []any
		want string
		ok   bool
	}{
		{nil, "", true}, {[]any{traceField, "00-ab-cd-01"}, "00-ab-cd-01", true}, {[]any{traceField, nil}, "", true},
		{[]any{traceField, strings.Repeat("x", traceMost+1)}, "", true}, {[]any{"other", "x"}, "", false},
	} {
		var e feed.Event
		if ok := decodeEvent(&e, append([]any{"0:", "x"}, test.more...)); ok != test.ok || ok && (e.Trace != test.want || e.Data != "x") {
			t.Errorf("%q: %t, %+v", test.more, ok, e)
		}
	}
}

func TestRuns(t *testing.T) {
	for _, want := range []run{{1, 1, 0}, {1, 9, 0xffffffff}, {1<<63 - 1, 1<<63 - 1, 16}} {
		if got, ok := parseRun(want.String()); !ok || got != want {
			t.Errorf("%v became %s and then %v", want, want, got)
		}
	}
	for _, s := range []string{"", "1", "1-1", "0-1-0", "2-1-0", "1-1-", "1-1-x", "1-1-100000000", "01-1-0", "1-9223372036854775808-0", "1-1-0-0", "--", "-1-1-0"} {
		if r, ok := parseRun(s); ok {
			t.Errorf("%q was taken for %v", s, r)
		}
	}
}

// A sum differs when anything in the events does.
func TestSums(t *testing.T) {
	e := feed.Event{Type: "a", Data: "bc", Time: time.UnixMilli(5)}
	seen := make(map[uint32]feed.Event)
	for _, e := range []feed.Event{
		e,
		{Type: "ab", Data: "c", Time: e.Time},
		{Type: "", Data: "abc", Time: e.Time},
		{Type: "a", Data: "bc", Time: time.UnixMilli(6)},
		{Type: "a", Data: "bc", Time: e.Time, JSON: true},
		{Type: "a", Data: "bd", Time: e.Time},
	} {
		sum, _ := add(0, &e, nil)
		if other, ok := seen[sum]; ok {
			t.Errorf("%+v and %+v have the same sum", e, other)
		}
		seen[sum] = e
	}
}

// No reply makes the reader panic. It can write again every event that it accepts.
func FuzzDecode(f *testing.F) {
	f.Add("1700000000000j:a.b", "data", "1-2-3", "5-0")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, name, data, value, id string) {
		var e feed.Event
		if decodeEvent(&e, []any{name, data}) && (meta(&e) != name || e.Data != data) {
			t.Errorf("%q is read as %+v and written as %q", name, e, meta(&e))
		}
		if r, ok := parseRun(value); ok && r.first > r.last {
			t.Errorf("%q is read as %v", value, r)
		}
		if p, ok := parsePosition(id); ok && p.String() != id {
			t.Errorf("%q is read as %v", id, p)
		}
		entries := []any{[]any{id, []any{name, data}}, []any{id}, id, []any{id, nil}}
		for i := range entries {
			parseEntries(entries[i : i+1])
			parseStreams([]any{[]any{name, entries[i:]}, entries[i]}, func(string, []entry) {})
		}
	})
}

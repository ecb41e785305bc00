package feed

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"
)

func prepared(b Publication) (*publishCall, error) {
	call, p := &publishCall{}, &Publisher{keyWindow: time.Hour}
	p.limit.Store(100)
	return call, p.prepare(call, b)
}

func TestPrepare(t *testing.T) {
	const none = -1
	a, b := Draft{Feed: "a"}, Draft{Feed: "b"}
	bad := Draft{Feed: "a", Type: "feed.x"}
	large := Draft{Feed: "a", Data: strings.Repeat("x", 101)}
	for _, c := range []struct {
		name        string
		publication Publication
		want        error
		index       int // of the bad draft
	}{
		{"one draft", Publication{Drafts: []Draft{a}}, nil, none},
		{"several feeds", Publication{Drafts: []Draft{a, b}}, nil, none},
		{"several feeds and a key", Publication{Drafts: []Draft{a, b}, Key: "k"}, nil, none},
		{"one feed", Publication{Feed: "a", Drafts: []Draft{a, a}}, nil, none},
		{"a close", Publication{Feed: "a", Close: true}, nil, none},
		{"a close with a key", Publication{Feed: "a", Close: true, Key: "k"}, nil, none},
		{"a close with a last event", Publication{Feed: "a", Drafts: []Draft{a}, Close: true, IfLast: new(ID(0))}, nil, none},
		{"nothing", Publication{}, ErrInvalid, none},
		{"nothing but a feed", Publication{Feed: "a"}, ErrInvalid, none},
		{"nothing but a key", Publication{Feed: "a", Key: "k"}, ErrInvalid, none},
		{"nothing but a condition", Publication{Feed: "a", IfLast: new(ID(0))}, ErrInvalid, none},
		{"a close of no feed", Publication{Close: true}, ErrInvalid, none},
		{"a close of several feeds", Publication{Drafts: []Draft{a, b}, Close: true}, ErrInvalid, none},
		{"a close of one feed that is not named", Publication{Drafts: []Draft{a}, Close: true}, ErrInvalid, none},
		{"a condition on several feeds", Publication{Drafts: []Draft{a, b}, IfLast: new(ID(1))}, ErrInvalid, none},
		{"a bad name", Publication{Feed: "-", Close: true}, ErrInvalid, none},
		{"another feed", Publication{Feed: "a", Drafts: []Draft{b}}, ErrInvalid, none},
		{"another feed among several", Publication{Feed: "a", Drafts: []Draft{a, a, b}}, ErrInvalid, 2},
		{"a bad draft", Publication{Drafts: []Draft{bad}}, ErrInvalid, none},
		{"a bad draft among several", Publication{Drafts: []Draft{a, bad, bad}}, ErrInvalid, 1},
		{"a bad draft first", Publication{Drafts: []Draft{bad, a}}, ErrInvalid, 0},
		{"a large draft among several", Publication{Drafts: []Draft{a, a, a, large}}, ErrTooLarge, 3},
		{"a long key", Publication{Drafts: []Draft{a}, Key: strings.Repeat("k", 255)}, nil, none},
		{"a key too long", Publication{Drafts: []Draft{a}, Key: strings.Repeat("k", 256)}, ErrInvalid, none},
		{"a key with every visible character", Publication{Drafts: []Draft{a}, Key: "!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"}, nil, none},
		{"a key with a space", Publication{Drafts: []Draft{a}, Key: "a b"}, ErrInvalid, none},
		{"a key with a line break", Publication{Drafts: []Draft{a}, Key: "a\nb"}, ErrInvalid, none},
		{"a key with DEL", Publication{Drafts: []Draft{a}, Key: "a\x7f"}, ErrInvalid, none},
		{"a key that is not ASCII", Publication{Drafts: []Draft{a}, Key: "schlüssel"}, ErrInvalid, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			call, err := prepared(c.publication)
			if !errors.Is(err, c.want) || err == nil != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			index := none
			if e, ok := errors.AsType[*DraftError](err); ok {
				index = e.Index
			}
			if index != c.index {
				t.Errorf("blames draft %d, want %d: %v", index, c.index, err)
			}
			if err == nil && c.publication.Key != "" && (call.batches[0].Key.Window != time.Hour || call.batches[0].Key.Name != c.publication.Key) {
				t.Errorf("the key became %+v", call.batches[0].Key)
			}
		})
	}
}

// A publisher keeps a copy of a batch: the caller may change its own.
func TestPrepareCopiesTheDrafts(t *testing.T) {
	drafts := []Draft{{Feed: "a", Data: "1\r\n2", Type: "message"}}
	call, err := prepared(Publication{Drafts: drafts})
	if err != nil {
		t.Fatal(err)
	}
	if drafts[0].Data != "1\r\n2" || drafts[0].Type != "message" {
		t.Errorf("the caller's draft became %+v", drafts[0])
	}
	drafts[0].Data = "changed"
	if d := call.batches[0].Drafts[0]; d.Data != "1\n2" || d.Type != "" {
		t.Errorf("the batch has %+v", d)
	}
}

// Batches with the same key differ if they would store different events.
func TestFingerprint(t *testing.T) {
	draft := func(feed, kind, data string, json bool) Draft {
		return Draft{Feed: feed, Type: kind, Data: data, JSON: json}
	}
	batch := func(closes bool, drafts ...Draft) Publication {
		return Publication{Feed: drafts[0].Feed, Drafts: drafts, Close: closes}
	}
	several := func(drafts ...Draft) Publication { return Publication{Drafts: drafts} }
	type print struct {
		group, member int
		print         [32]byte
	}
	var prints []print
	for i, alike := range [][]Publication{
		{batch(false, draft("a", "", "1", false)), batch(false, draft("a", "message", "1", false)),
			{Feed: "a", Drafts: []Draft{draft("a", "", "1", false)}, IfLast: new(ID(7))}},
		{batch(true, draft("a", "", "1", false))},
		{batch(false, draft("a", "", "1", true))},
		{batch(false, draft("a", "note", "1", false))},
		{batch(false, draft("a", "n", "ote1", false))},
		{batch(false, draft("b", "", "1", false))},
		{batch(false, draft("a", "", "2", false))},
		{batch(false, draft("a", "", "", false))},
		{batch(false, draft("a", "", "1\n2", false)), batch(false, draft("a", "", "1\r\n2", false)), batch(false, draft("a", "", "1\r2", false))},
		{batch(false, draft("a", "", "1\n\n2", false)), batch(false, draft("a", "", "1\n\r2", false))},
		{batch(false, draft("a", "", "1", false), draft("a", "", "2", false))},
		{batch(false, draft("a", "", "2", false), draft("a", "", "1", false))},
		{batch(false, draft("a", "", "12", false), draft("a", "", "", false))},
		{batch(false, draft("a", "", "", false), draft("a", "", "12", false))},
		{batch(false, draft("a", "", "12", false))},
		{batch(false, draft("a", "", `1 "a" "" false 1:2`, false))},
		{several(draft("a", "", "1", false), draft("b", "", "2", false))},
		{several(draft("b", "", "1", false), draft("a", "", "2", false))},
		{{Feed: "a", Close: true}},
	} {
		for j, b := range alike {
			b.Key = "k"
			call, err := prepared(b)
			if err != nil {
				t.Fatal(err)
			}
			prints = append(prints, print{i, j, call.batches[0].Key.Fingerprint})
		}
	}
	for _, p := range prints {
		for _, q := range prints {
			if (p.print == q.print) != (p.group == q.group) {
				t.Errorf("batch %d of %d and %d of %d: equal fingerprints %t", p.member, p.group, q.member, q.group, p.print == q.print)
			}
		}
	}
}

// TestCommitLetsGo: a commit that hangs keeps only its own calls in memory. Calls
// that are withdrawn meanwhile are freed.
func TestCommitLetsGo(t *testing.T) {
	const waiting = 100
	var q queue
	add := func() {
		for range waiting {
			q.calls = append(q.calls, &publishCall{})
		}
	}
	add()
	taken := q.take(true)
	add() // moves the queue to a larger array
	var withdrawn []weak.Pointer[publishCall]
	for len(q.calls) > 0 {
		call := q.calls[0]
		withdrawn = append(withdrawn, weak.Make(call))
		q.remove(call)
	}
	runtime.GC()
	held := 0
	for _, w := range withdrawn {
		if w.Value() != nil {
			held++
		}
	}
	if len(taken) != 1 || len(withdrawn) != 2*waiting-1 || held > 0 {
		t.Errorf("a commit of %d holds %d of %d calls that were withdrawn", len(taken), held, len(withdrawn))
	}
	runtime.KeepAlive(taken)
}

// A call counts until its caller has its result and the commit is done with it, whichever
// is last.
func TestCallCounts(t *testing.T) {
	const size = 1000
	p := &Publisher{hub: &Hub{memory: newMemory(32 << 20)}, more: make(chan struct{}, 1), blocked: make(map[string]*queue)}
	for _, test := range []struct {
		name  string
		steps [2]func(*publishCall)
	}{
		{"its commit ends first", [2]func(*publishCall){func(c *publishCall) { p.finish([]*publishCall{c}) }, p.release}},
		{"its caller leaves first", [2]func(*publishCall){p.release, func(c *publishCall) { p.finish([]*publishCall{c}) }}},
		{"it is withdrawn", [2]func(*publishCall){func(c *publishCall) { p.withdraw(c) }, p.release}},
	} {
		t.Run(test.name, func(t *testing.T) {
			call := &publishCall{size: size, done: make(chan struct{})}
			if err := p.enqueue(call); err != nil {
				t.Fatal(err)
			}
			for i, want := range []int{size, 0} {
				test.steps[i](call)
				if held := p.hub.memory.Used(HoldPublishes); held != int64(want) || p.WaitingBytes() != want || p.Waiting() != want/size {
					t.Errorf("after step %d, %d bytes are held, and %d calls wait with %d; want %d bytes", i+1, held, p.Waiting(), p.WaitingBytes(), want)
				}
			}
		})
	}
}

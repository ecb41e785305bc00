package feed

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestLog() *log { return &log{feed: "a", cache: newCache(newMemory(DefaultMemory), nil)} }

// loaded returns a log of a feed with these bounds.
func loaded(first, last ID) *log {
	l := newTestLog()
	l.setBounds(Bounds{First: first, Last: last}, confirmed{})
	return l
}

func (l *log) take(events ...Event) logChange { return l.accept(events, time.Now()) }

func ids(d Delivery) (ids []ID) {
	for _, e := range d.Events() {
		ids = append(ids, e.ID)
	}
	return ids
}

// sound checks the invariants of a log.
func sound(t *testing.T, l *log) {
	t.Helper()
	at := l.base
	for _, s := range l.segments {
		if s.base != at {
			t.Fatalf("a segment begins after %d, want %d", s.base, at)
		}
		bytes := 0
		for _, e := range s.events {
			at++
			if e.ID != at {
				t.Fatalf("event %d stands where %d belongs", e.ID, at)
			}
			bytes += cost(&e)
		}
		if s.bytes != bytes {
			t.Fatalf("a segment counts %d bytes of %d", s.bytes, bytes)
		}
	}
	if at != l.tail || l.loaded && l.known < l.tail {
		t.Fatalf("events up to %d of %d, known %d", at, l.tail, l.known)
	}
}

func TestLogAccept(t *testing.T) {
	for _, c := range []struct {
		name string
		ids  []ID
		tail ID
		want logChange
	}{
		{"the next", []ID{11}, 11, logChange{grew: true, taken: 1}},
		{"the next three", []ID{11, 12, 13}, 13, logChange{grew: true, taken: 3}},
		{"one known", []ID{10}, 10, logChange{}},
		{"the next, again", []ID{11, 11}, 11, logChange{grew: true, taken: 1}},
		{"overlapping", []ID{9, 10, 11, 12}, 12, logChange{grew: true, taken: 2}},
		{"beyond a hole", []ID{12}, 10, logChange{hole: true}},
		{"beyond a hole, in part", []ID{11, 13}, 11, logChange{grew: true, hole: true, taken: 1}},
		{"out of order", []ID{12, 11}, 11, logChange{grew: true, hole: true, taken: 1}},
		{"none", []ID{0}, 10, logChange{}},
		{"the largest", []ID{1<<64 - 1}, 10, logChange{hole: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := loaded(1, 10)
			var events []Event
			for _, id := range c.ids {
				events = append(events, Event{Feed: "a", ID: id})
			}
			if got := l.take(events...); got != c.want || l.tail != c.tail {
				t.Errorf("got %+v, tail %d; want %+v, %d", got, l.tail, c.want, c.tail)
			}
			sound(t, l)
			if c.want.hole && l.take(events...).hole {
				t.Error("a second goroutine is to fill the hole")
			}
		})
	}
}

// Events that arrive before the log is loaded leave a hole.
func TestLogAcceptBeforeItIsLoaded(t *testing.T) {
	l := newTestLog()
	if got := l.take(stretch("a", 4, 5)...); got != (logChange{}) {
		t.Errorf("got %+v from a log that is not loaded", got)
	}
	if _, ok := l.confirmed(); ok {
		t.Error("an event loaded the log")
	}
	if got := l.setBounds(Bounds{First: 1, Last: 3}, confirmed{}); got != (logChange{hole: true}) {
		t.Errorf("got %+v, want a hole up to 5", got)
	}
	w := l.toFill()
	if grew, done := l.fill(w, Page{Bounds: Bounds{First: 1, Last: 5}, Events: stretch("a", 4, 5)}, time.Now()); !grew || !done || l.tail != 5 {
		t.Errorf("grew %t, done %t, tail %d", grew, done, l.tail)
	}
	sound(t, l)
}

func TestLogAfter(t *testing.T) {
	l := loaded(1, 10)
	l.take(stretch("a", 11, 20)...)
	l.noteLast(25)
	for _, c := range []struct {
		cursor ID
		view   view
		first  ID
	}{
		{0, viewBehind, 0}, {9, viewBehind, 0},
		{10, viewEvents, 11}, {15, viewEvents, 16}, {19, viewEvents, 20},
		{20, viewEnd, 0}, {25, viewEnd, 0},
		{26, viewAhead, 0}, {MaxID, viewAhead, 0},
	} {
		d, v := l.read(c.cursor)
		if v != c.view {
			t.Errorf("after %d: view %d, want %d", c.cursor, v, c.view)
		}
		if v == viewEvents && (d.Events()[0].ID != c.first || d.Events()[len(d.Events())-1].ID != 20) {
			t.Errorf("after %d: got %v", c.cursor, ids(d))
		}
	}
}

// Whatever the log drops, the rest has no hole. Subscribers that need dropped events
// read them from the store.
func TestLogShed(t *testing.T) {
	l := loaded(1, 0)
	const memory = 128 << 10
	l.cache.most = memory
	for id := ID(1); id <= 200; id++ {
		l.accept([]Event{{Feed: "a", ID: id, Data: strings.Repeat("x", 5000)}}, time.Now())
		sound(t, l)
		if got := held(l); got > memory+segmentBytes {
			t.Fatalf("the log holds %d bytes", got)
		}
	}
	if _, v := l.read(l.base - 1); v != viewBehind {
		t.Errorf("a dropped event has the view %d", v)
	}
	var got []ID
	for c := l.base; c < l.tail; {
		d, v := l.read(c)
		if v != viewEvents {
			t.Fatalf("after %d: view %d", c, v)
		}
		got = append(got, ids(d)...)
		c += ID(len(d.Events()))
	}
	if want := ids(newSegment(l.base, stretch("a", l.base+1, 200)).since(l.base)); !slices.Equal(got, want) {
		t.Errorf("the log returns %v", got)
	}
	// One event larger than all memory is kept for its subscribers.
	l.accept([]Event{{Feed: "a", ID: 201, Data: strings.Repeat("x", 2*memory)}}, time.Now())
	l.accept([]Event{{Feed: "a", ID: 202}}, time.Now())
	sound(t, l)
	if d, v := l.read(201); v != viewEvents || len(ids(d)) != 1 {
		t.Errorf("the newest event has the view %d", v)
	}
}

// held counts the bytes that a log holds.
func held(l *log) (n int) {
	for _, s := range l.segments {
		n += costs(s.events)
		for _, e := range s.encoded {
			n += cap(e.bytes) + 8*cap(e.ends)
		}
	}
	return n
}

// A log keeps events in every encoding that clients ask for, and counts the bytes.
func TestLogShedsWhatIsEncoded(t *testing.T) {
	l := loaded(1, 0)
	const memory = 512 << 10
	l.cache.most = memory
	most := 0
	for id := ID(1); id <= 1000; id++ {
		l.accept([]Event{{Feed: "a", ID: id, Data: strings.Repeat("x", 3000)}}, time.Now())
		most = max(most, held(l))
		d, _ := l.read(id - 1)
		for form := range byte(encodings) {
			d.Encoded(repeater(form))
		}
	}
	// The log may also hold its newest segment, and bytes encoded after the last
	// event.
	if limit := memory + (encodings+1)*4*segmentBytes; most > limit {
		t.Errorf("the log holds up to %d bytes, the limit is %d", most, limit)
	}
	if l.tail-l.base < 10 {
		t.Errorf("it holds no more than the events after %d, up to %d", l.base, l.tail)
	}
}

// repeater encodes an event as its data, between bytes of its own.
type repeater byte

func (r repeater) Encode(dst []byte, e *Event) []byte {
	return append(append(append(dst, byte(r)), e.Data...), byte(r))
}

func TestLogForget(t *testing.T) {
	per := (segmentBytes + cost(&Event{Data: "x"}) - 1) / cost(&Event{Data: "x"}) // events in a segment
	end := ID(per)
	for oldest, base := range map[ID]ID{0: 0, end - 1: 0, end: end, end + 1: end, 3*end + 9: 3 * end, 1200: 1200, 5000: 1200} {
		l := loaded(1, 0)
		l.take(stretch("a", 1, 1200)...)
		l.dropTrimmed(oldest)
		sound(t, l)
		if l.base != base {
			t.Errorf("without the events up to %d the log begins after %d, want %d", oldest, l.base, base)
		}
	}
}

func TestLogRest(t *testing.T) {
	l := loaded(1, 0)
	then := time.Now()
	l.accept(stretch("a", 1, 5), then)
	l.dropIfQuiet(then)
	if l.base != 0 {
		t.Error("a log was emptied that has just grown")
	}
	l.dropIfQuiet(then.Add(1))
	sound(t, l)
	if _, v := l.read(4); l.base != 5 || held(l) != 0 || v != viewBehind {
		t.Errorf("base %d, %d bytes, view %d", l.base, held(l), v)
	}
	if got := l.take(stretch("a", 6, 6)...); !got.grew {
		t.Error("an emptied log does not grow")
	}
	sound(t, l)
}

func TestLogFill(t *testing.T) {
	for _, c := range []struct {
		name       string
		told       ID
		page       Page
		tail       ID
		known      ID
		grew, done bool
	}{
		{"all", 13, Page{Bounds: Bounds{First: 1, Last: 13}, Events: stretch("a", 11, 13)}, 13, 13, true, true},
		{"more than was known", 12, Page{Bounds: Bounds{First: 1, Last: 14}, Events: stretch("a", 11, 14)}, 14, 14, true, true},
		{"a part", 20, Page{Bounds: Bounds{First: 1, Last: 20}, Events: stretch("a", 11, 15)}, 15, 20, true, false},
		{"less than the hint", 20, Page{Bounds: Bounds{First: 1, Last: 12}, Events: stretch("a", 11, 12)}, 12, 20, true, false},
		{"nothing", 20, Page{Bounds: Bounds{First: 1, Last: 10}, Events: nil}, 10, 10, true, true},
		{"the end of a store behind the log", 20, Page{Bounds: Bounds{First: 1, Last: 7}, Events: nil}, 10, 10, true, true},
		{"trimmed past the end", 20, Page{Bounds: Bounds{First: 15, Last: 20}, Events: stretch("a", 15, 20)}, 20, 20, true, true},
		{"all trimmed", 20, Page{Bounds: Bounds{First: 21, Last: 20}, Events: nil}, 20, 20, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := loaded(1, 8)
			l.take(stretch("a", 9, 10)...)
			if !l.noteLast(c.told).hole {
				t.Fatal("no hole")
			}
			grew, done := l.fill(l.toFill(), c.page, time.Now())
			if grew != c.grew || done != c.done || l.tail != c.tail || l.known != c.known || l.filling == done {
				t.Errorf("grew %t, done %t, tail %d, known %d, filling %t", grew, done, l.tail, l.known, l.filling)
			}
			sound(t, l)
		})
	}
}

// If events arrive while a page is read, the page must not lower the known end.
func TestLogFillWhileItGrows(t *testing.T) {
	l := loaded(1, 10)
	l.noteLast(12)
	w := l.toFill()
	l.take(stretch("a", 14, 14)...)
	if _, done := l.fill(w, Page{Bounds: Bounds{First: 1, Last: 10}, Events: nil}, time.Now()); done || l.known != 14 {
		t.Errorf("done %t, known %d, want 14 to be filled", done, l.known)
	}
	w = l.toFill()
	l.take(stretch("a", 11, 13)...)
	grew, done := l.fill(w, Page{Bounds: Bounds{First: 1, Last: 14}, Events: stretch("a", 11, 14)}, time.Now())
	if !grew || !done || l.tail != 14 {
		t.Errorf("grew %t, done %t, tail %d", grew, done, l.tail)
	}
	sound(t, l)
}

func TestLogLearn(t *testing.T) {
	l := loaded(1, 10)
	l.take(stretch("a", 11, 15)...)
	// Bounds that were read before the log grew are no rollback.
	if got := l.setBounds(Bounds{First: 1, Last: 12}, confirmed{tail: 12}); got != (logChange{}) || l.tail != 15 {
		t.Errorf("older bounds: got %+v, tail %d", got, l.tail)
	}
	if got := l.setBounds(Bounds{First: 3, Last: 15}, confirmed{tail: 15}); got != (logChange{}) || l.first != 3 {
		t.Errorf("got %+v, first %d", got, l.first)
	}
	if got := l.setBounds(Bounds{First: 1, Last: 17}, confirmed{tail: 15}); got != (logChange{hole: true}) || l.known != 17 || l.first != 3 {
		t.Errorf("got %+v, known %d, first %d", got, l.known, l.first)
	}
	if got := l.setBounds(Bounds{First: 1, Last: 14}, confirmed{tail: 15}); got != (logChange{grew: true}) || l.tail != 14 || l.known != 14 || l.first != 1 {
		t.Errorf("rolled back: got %+v, tail %d, known %d, first %d", got, l.tail, l.known, l.first)
	}
	sound(t, l)
	for c, want := range map[ID]view{13: viewBehind, 14: viewEnd, 15: viewAhead} {
		if _, v := l.read(c); v != want {
			t.Errorf("after the rollback %d has the view %d, want %d", c, v, want)
		}
	}
}

// The bounds that a log returns do not include hints.
func TestLogBounds(t *testing.T) {
	l := newTestLog()
	if _, _, ok := l.bounds(); ok {
		t.Error("a log that is not loaded has bounds")
	}
	l.setBounds(Bounds{First: 4, Last: 10}, confirmed{})
	if b, complete, ok := l.bounds(); b != (Bounds{First: 4, Last: 10}) || !complete || !ok {
		t.Errorf("got %v, complete %t, ok %t", b, complete, ok)
	}
	l.noteLast(99)
	if b, complete, _ := l.bounds(); b != (Bounds{First: 4, Last: 10}) || complete {
		t.Errorf("with a hint of 99: got %v, complete %t", b, complete)
	}
	l.setBounds(Bounds{First: 31, Last: 40}, confirmed{tail: 10}) // trimmed past the end of the log
	if b, complete, _ := l.bounds(); b != (Bounds{First: 31, Last: 30}) || complete {
		t.Errorf("trimmed: got %v, complete %t", b, complete)
	}
}

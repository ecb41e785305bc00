package feed

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"unsafe"
)

// counter encodes events and counts how often it does.
type counter struct{ calls *int }

func (c counter) Encode(dst []byte, e *Event) []byte {
	*c.calls++
	return fmt.Appendf(dst, "%d:%s;", e.ID, e.Data)
}

// other is an encoding that differs from counter only by its type.
type other struct{ counter }

func TestSegmentEncodesOnce(t *testing.T) {
	s := newSegment(10, stretch("a", 11, 14))
	calls := 0
	enc := counter{&calls}
	all := s.since(10).Encoded(enc)
	if want := "11:x;12:x;13:x;14:x;"; string(all) != want || calls != 4 {
		t.Fatalf("got %q in %d calls, want %q", all, calls, want)
	}
	part := s.since(12).Encoded(enc)
	if string(part) != "13:x;14:x;" || calls != 4 {
		t.Errorf("got %q in %d calls", part, calls)
	}
	if unsafe.SliceData(part) != unsafe.SliceData(all[10:]) {
		t.Error("two deliveries of the same events do not share their bytes")
	}
	if cap(part) != len(part) {
		t.Error("an append to the bytes would overwrite those of others")
	}
	s.since(10).Encoded(other{enc})
	s.since(10).Encoded(other{enc})
	if calls != 8 {
		t.Errorf("%d calls for two encodings of four events", calls)
	}
}

// A delivery stays what it was, however the segment grows, and is encoded up
// to its own end only.
func TestSegmentGrows(t *testing.T) {
	s := newSegment(0, nil)
	calls := 0
	enc := counter{&calls}
	var early []Delivery
	var earlyBytes [][]byte
	for id := ID(1); id <= 1000; id++ {
		s.add(stretch("a", id, id)[0])
		d := s.since(id - 1)
		early = append(early, d)
		if id%2 == 0 {
			earlyBytes = append(earlyBytes, d.Encoded(enc))
		}
	}
	for i, b := range earlyBytes {
		if want := fmt.Sprintf("%d:x;", 2*i+2); string(b) != want {
			t.Fatalf("bytes became %q, want %q", b, want)
		}
	}
	for i, d := range early {
		if want := fmt.Sprintf("%d:x;", i+1); !bytes.Equal(d.Encoded(enc), []byte(want)) || len(d.Events()) != 1 {
			t.Fatalf("delivery %d became %q", i+1, d.Encoded(enc))
		}
	}
	if calls != 1000 {
		t.Errorf("%d calls for 1000 events", calls)
	}
	if s.bytes != 1000*cost(&Event{Data: "x"}) {
		t.Errorf("the segment counts %d bytes", s.bytes)
	}
}

// Encoding a delivery does not read events that are being added. This test is for the
// race detector.
func TestSegmentEncodesWhileItGrows(t *testing.T) {
	s := newSegment(0, stretch("a", 1, 1))
	d := s.since(0)
	var both sync.WaitGroup
	both.Go(func() {
		for id := ID(2); id <= 1000; id++ {
			s.add(stretch("a", id, id)[0])
		}
	})
	both.Go(func() {
		for range 100 {
			calls := 0
			if got := string(d.Encoded(counter{&calls})); got != "1:x;" {
				t.Errorf("got %q", got)
			}
		}
	})
	both.Wait()
}

func TestEmptyDelivery(t *testing.T) {
	calls := 0
	for _, d := range []Delivery{{}, {Gap: &Gap{}}, newSegment(5, stretch("a", 6, 7)).since(7)} {
		if len(d.Events()) != 0 || d.Encoded(counter{&calls}) != nil {
			t.Errorf("%+v is not empty", d)
		}
	}
}

// filter is one of many encodings that a client can choose.
type filter struct{ n int }

func (f filter) Encode(dst []byte, e *Event) []byte {
	return fmt.Appendf(dst, "%d/%d;", f.n, e.ID)
}

// However many encodings clients ask for, a segment keeps a few. The one that nearly
// all clients ask for is among them, whenever it came.
func TestSegmentKeepsFewEncodings(t *testing.T) {
	s := newTestLog().beginSegment(0, stretch("a", 1, 100))
	calls := 0
	popular := counter{&calls}
	for n := range 10_000 {
		d, enc := s.since(ID(n%100)), filter{n}
		if got := d.Encoded(enc); !bytes.HasPrefix(got, enc.Encode(nil, &d.Events()[0])) {
			t.Fatalf("filter %d: got %q", n, got)
		}
		if n > 1000 {
			s.since(0).Encoded(popular)
		}
		if len(s.encoded) > encodings {
			t.Fatalf("%d encodings are kept", len(s.encoded))
		}
	}
	if calls > 500 {
		t.Errorf("the most popular encoding ran %d times for 100 events", calls)
	}
}

// An encoding that is not kept encodes no more than what is delivered.
func TestSegmentEncodesOnlyWhatIsDelivered(t *testing.T) {
	s := newTestLog().beginSegment(0, stretch("a", 1, 100))
	for n := range encodings {
		for range 1000 {
			s.since(0).Encoded(filter{n})
		}
	}
	calls := 0
	d := s.since(99)
	if got := string(d.Encoded(counter{&calls})); got != "100:x;" || calls != 1 {
		t.Errorf("got %q in %d calls", got, calls)
	}
	for _, bytes := range d.Each(counter{&calls}) {
		if string(bytes) != "100:x;" || calls != 1 {
			t.Errorf("got %q in %d calls", bytes, calls)
		}
	}
}

// Whether a segment keeps an encoding or not, every delivery gets its own bytes.
func TestSegmentEncodesEachAlike(t *testing.T) {
	s := newSegment(0, stretch("a", 1, 30))
	for i := range 3000 {
		enc, d := filter{(i * i) % 23}, s.since(ID((i*7)%30))
		var want, each []byte
		for _, e := range d.Events() {
			want = enc.Encode(want, &e)
		}
		for e, b := range d.Each(enc) {
			if !bytes.Equal(b, enc.Encode(nil, e)) {
				t.Fatalf("event %d: got %q", e.ID, b)
			}
			each = append(each, b...)
		}
		if got := d.Encoded(enc); !bytes.Equal(got, want) || !bytes.Equal(each, want) {
			t.Fatalf("got %q and %q, want %q", got, each, want)
		}
	}
}

// A filter shows some of the events: where those stand together, it shares their bytes,
// and elsewhere it copies them.
func TestSelect(t *testing.T) {
	s := newSegment(0, stretch("a", 1, 40))
	calls := 0
	enc := counter{&calls}
	for _, c := range []struct {
		name   string
		shows  func(id ID) bool
		size   int
		n      int
		shared bool
	}{
		{"all", func(ID) bool { return true }, 1 << 20, 40, true},
		{"none", func(ID) bool { return false }, 1 << 20, 40, true},
		{"one", func(id ID) bool { return id == 7 }, 1 << 20, 40, true},
		{"the middle", func(id ID) bool { return id > 10 && id < 20 }, 1 << 20, 40, true},
		{"every other", func(id ID) bool { return id%2 == 0 }, 1 << 20, 40, false},
		{"two stretches", func(id ID) bool { return id/10%2 == 1 }, 1 << 20, 40, false},
		{"as many as fit", func(id ID) bool { return id > 3 }, 10, 6, true},
		{"as many as fit, apart", func(id ID) bool { return id%3 == 0 }, 5, 6, false},
	} {
		d := s.since(0)
		all := d.Encoded(enc)
		before := bytes.Clone(all)
		got, n := d.Select(enc, c.size, func(e *Event) bool { return c.shows(e.ID) })
		var want []byte
		for _, e := range d.Events()[:n] {
			if c.shows(e.ID) {
				want = fmt.Appendf(want, "%d:x;", e.ID)
			}
		}
		if n != c.n || !bytes.Equal(got, want) {
			t.Errorf("%s: %d events are %q, want %q", c.name, n, got, want)
		}
		if at := bytes.Index(all, got); c.shared && len(got) > 0 && unsafe.SliceData(got) != unsafe.SliceData(all[at:]) {
			t.Errorf("%s: it has bytes of its own", c.name)
		}
		if _ = append(got, "!"...); !bytes.Equal(all, before) {
			t.Errorf("%s: an append to the bytes overwrites those of others", c.name)
		}
	}
	if calls != 40 {
		t.Errorf("%d calls for 40 events", calls)
	}
}

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
		t.Error("an append to the bytes would write into those of others")
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
	for id := uint64(1); id <= 1000; id++ {
		s.add(stretch("a", id, id)[0])
		d := s.since(Cursor(id - 1))
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

// Encoding what was handed out does not look at what is being added: for the
// race detector.
func TestSegmentEncodesWhileItGrows(t *testing.T) {
	s := newSegment(0, stretch("a", 1, 1))
	d := s.since(0)
	var both sync.WaitGroup
	both.Go(func() {
		for id := uint64(2); id <= 1000; id++ {
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

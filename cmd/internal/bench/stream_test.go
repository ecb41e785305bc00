package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const testMark = "rejoin-bench-test"

func testData(number uint64) string {
	e := event{feed: 2, number: number, due: time.Duration(number) * time.Second}
	return string(e.appendData(nil, testMark, 100))
}

// asChunks frames each text as a chunk.
func asChunks(texts ...string) string {
	var b strings.Builder
	for _, t := range texts {
		fmt.Fprintf(&b, "%x;extension=0\r\n%s\r\n", len(t), t)
	}
	return b.String() + "0\r\n\r\n"
}

// TestStream: a stream has the same contents, whatever the pieces in which it comes.
func TestStream(t *testing.T) {
	open := "retry: 2143\nevent: feed.open\ndata: {\"feed\":\"x\"}\nid: 0\n\n:\n"
	rejoin := open + "data: " + testData(1) + "\nid: 1\n\ndata: " + testData(2) + "\nid: 2\n\nevent: feed.cursor\ndata: {}\nid: 2\n\n"
	nchan := ": hi\n\nid: 1700000000:0\ndata: " + testData(1) + "\n\nid: 1700000000:1\r\ndata:" + testData(2) + "\r\n\r\n"
	both := []string{"2/1/1s/1", "2/2/2s/2"}
	for _, test := range []struct {
		name, stream string
		chunked      bool
		want         []string
		end          error
	}{
		{"as it is", rejoin, false, both, nil},
		{"in chunks", asChunks(rejoin[:60], rejoin[60:61], rejoin[61:]), true, both, errEnded},
		{"nchan's", nchan, false, []string{"2/1/1s/1700000000:0", "2/2/2s/1700000000:1"}, nil},
		{"data of another run", "data: hello\nid: 1\n\n", false, []string{"stray"}, nil},
		{"data with more behind it", "data: " + testData(1) + "\ndata: more\nid: 1\n\n", false, []string{"stray"}, nil},
		{"data that breaks off", "data: " + testMark + " 1 2\nid: 1\n\n", false, []string{"stray"}, nil},
		{"half a block", "data: " + testData(1) + "\nid: 1\n", false, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for piece := 1; piece <= len(test.stream); piece++ {
				var got []string
				s := stream{mark: testMark, chunked: test.chunked}
				s.deliver = func(e *event) {
					got = append(got, fmt.Sprintf("%d/%d/%v/%s", e.feed, e.number, e.due, e.id))
				}
				s.stray = func() { got = append(got, "stray") }
				var err error
				for part := range slices.Chunk([]byte(test.stream), piece) {
					if err = s.take(slices.Clone(part)); err != nil {
						break
					}
				}
				if !slices.Equal(got, test.want) || !errors.Is(err, test.end) {
					t.Fatalf("in pieces of %d bytes: %q, %v", piece, got, err)
				}
			}
		})
	}
}

func TestStreamRefuses(t *testing.T) {
	s := stream{chunked: true}
	if err := s.take([]byte("12x\r\n")); err == nil {
		t.Error("it takes x for a digit")
	}
	s = stream{}
	if err := s.take(make([]byte, 2<<20)); !errors.Is(err, errLongLine) {
		t.Errorf("a line without end: %v", err)
	}
}

// TestStreamAllocatesNothing: garbage from one delivery slows down the next ones.
func TestStreamAllocatesNothing(t *testing.T) {
	block := "data: " + testData(1) + "\nid: 1\n\n"
	text := []byte(fmt.Sprintf("%x\r\n%s\r\n", len(block), block))
	events := 0
	s := stream{mark: testMark, chunked: true, deliver: func(*event) { events++ }}
	allocated := testing.AllocsPerRun(100, func() {
		if err := errors.Join(s.take(text[:50]), s.take(text[50:])); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 0 || events != 101 {
		t.Errorf("%v allocations an event, of %d events", allocated, events)
	}
}

func BenchmarkStream(b *testing.B) {
	block := "data: " + testData(1) + "\nid: 1\n\n"
	text := []byte(fmt.Sprintf("%x\r\n%s\r\n", len(block), block))
	s := stream{mark: testMark, chunked: true, deliver: func(*event) {}}
	for b.Loop() {
		if err := s.take(text); err != nil {
			b.Fatal(err)
		}
	}
}

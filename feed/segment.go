package feed

import (
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// segment is a stretch of consecutive events of one feed, and what they look
// like on the wire. The log is made of segments, and a page read from a store
// becomes one, so that subscribers of either share the encoded bytes.
//
// Events are only ever added at the end. Whoever has seen n events may go on
// reading those n without a lock.
type segment struct {
	after  Cursor // the cursor before the first event
	events []Event
	bytes  int // what the events cost; like events, under the lock of the log

	mu      sync.Mutex
	encoded []encoded    // an entry for each encoding that was asked for
	wire    atomic.Int64 // bytes that those take
}

type encoded struct {
	encoding Encoding
	asked    int    // how often, compared with what was not kept
	first    int    // the index of its first event
	bytes    []byte // of the events from there on
	ends     []int  // where in bytes each event ends
}

func newSegment(after Cursor, events []Event) *segment {
	return &segment{after: after, events: events, bytes: costs(events)}
}

// cost is what an event takes in memory, roughly.
func cost(e *Event) int { return len(e.Data) + len(e.Type) + 96 }

func costs(events []Event) (sum int) {
	for i := range events {
		sum += cost(&events[i])
	}
	return sum
}

// add appends an event. The caller holds the lock of the log.
func (s *segment) add(e Event) {
	s.events = append(s.events, e)
	s.bytes += cost(&e)
}

// memory returns how many bytes the segment takes, with all that it is encoded as.
// The caller holds the lock of the log.
func (s *segment) memory() int { return s.bytes + int(s.wire.Load()) }

// since returns the events after c, which lies within the segment, as it is now.
func (s *segment) since(c Cursor) Delivery {
	n := len(s.events)
	return Delivery{segment: s, seen: s.events[:n:n], from: int(c - s.after)}
}

// encode returns bytes of which those of seen[from:] begin at start, and where in
// them each of these events ends; seen is the beginning of the segment's events.
// It encodes no event twice, unless there are more encodings than are kept.
func (s *segment) encode(encoding Encoding, seen []Event, from int) (bytes []byte, ends []int, start int) {
	s.mu.Lock()
	e := s.encodedAs(encoding, from)
	kept := e != nil
	if kept {
		defer s.mu.Unlock()
	} else {
		s.mu.Unlock()
		e = &encoded{encoding: encoding, first: from}
	}
	before := len(e.ends)
	if len(e.ends) == 0 {
		e.bytes = make([]byte, 0, costs(seen[e.first:])) // about what is there to be encoded
	}
	for n := e.first + len(e.ends); n < len(seen); n++ {
		e.bytes = encoding.Encode(e.bytes, &seen[n])
		e.ends = append(e.ends, len(e.bytes))
	}
	if kept && len(e.ends) > before {
		s.weigh()
	}
	if from > e.first {
		start = e.ends[from-e.first-1]
	}
	return e.bytes, e.ends[from-e.first : len(seen)-e.first], start
}

// weigh notes what the encoded bytes take. The caller holds mu.
func (s *segment) weigh() {
	wire := 0
	for i := range s.encoded {
		wire += cap(s.encoded[i].bytes) + cap(s.encoded[i].ends)*int(unsafe.Sizeof(0))
	}
	s.wire.Store(int64(wire))
}

// encodings is how many encodings a segment keeps: clients choose among them,
// and must not be able to fill the memory with them.
const encodings = 8

// encodedAs returns the entry for the encoding, from the index on at least, or
// nil if it is not kept. Those stay that are asked for most: one that is not kept
// takes something off all that are, and the place of one that has nothing left.
func (s *segment) encodedAs(encoding Encoding, from int) *encoded {
	free := -1
	for i := range s.encoded {
		e := &s.encoded[i]
		if e.encoding == encoding {
			e.asked++
			if from < e.first {
				*e = encoded{encoding: encoding, asked: e.asked, first: from}
			}
			return e
		}
		if e.asked == 0 {
			free = i
		}
	}
	switch {
	case len(s.encoded) < encodings:
		s.encoded = append(s.encoded, encoded{encoding: encoding, asked: 1})
		return &s.encoded[len(s.encoded)-1]
	case free >= 0:
		s.encoded[free] = encoded{encoding: encoding, asked: 1, first: from}
		return &s.encoded[free]
	}
	for i := range s.encoded {
		s.encoded[i].asked--
	}
	return nil
}

// Delivery is what a subscription hands out at once: a gap, or events, or
// nothing. It stays valid for as long as it is kept.
type Delivery struct {
	// Gap, if not nil, stands alone and comes before the events behind it.
	Gap *Gap
	// Closed, of a [Group], says that the feed is closed and was handed out whole.
	Closed bool
	// Ephemeral says that the events are not stored, have no id, and do not
	// move the cursor.
	Ephemeral bool

	segment *segment
	seen    []Event // the events of the segment up to the last of this delivery
	from    int     // where in seen this delivery begins
	newest  bool    // there was nothing behind it: who has it will be woken for more
}

// Events returns the events of the delivery: consecutive, oldest first. They
// are shared with other subscribers and not to be changed.
func (d Delivery) Events() []Event { return d.seen[d.from:] }

// Encoded returns the encoded events of the delivery, back to back. The bytes
// are shared with other subscribers and not to be changed.
func (d Delivery) Encoded(encoding Encoding) []byte {
	encoded, _ := d.Cut(encoding, math.MaxInt)
	return encoded
}

// Cut returns the first n events of the delivery, encoded: as many as have about
// so many bytes, and at least one, if there is any. The bytes are shared like those
// of Encoded.
func (d Delivery) Cut(encoding Encoding, size int) (encoded []byte, n int) {
	if d.from >= len(d.seen) {
		return nil, 0
	}
	bytes, ends, start := d.segment.encode(encoding, d.seen, d.from)
	if n = len(ends); ends[n-1]-start > size {
		n, _ = slices.BinarySearch(ends, start+size)
		n++
	}
	end := ends[n-1]
	return bytes[start:end:end], n
}

// After returns the delivery without its first n events.
func (d Delivery) After(n int) Delivery {
	d.from += n
	return d
}

// Each yields each event of the delivery with its encoded bytes, which are
// shared like those of Encoded.
func (d Delivery) Each(encoding Encoding) iter.Seq2[*Event, []byte] {
	return func(yield func(*Event, []byte) bool) {
		if d.from >= len(d.seen) {
			return
		}
		bytes, ends, start := d.segment.encode(encoding, d.seen, d.from)
		for i, end := range ends {
			if !yield(&d.seen[d.from+i], bytes[start:end:end]) {
				return
			}
			start = end
		}
	}
}

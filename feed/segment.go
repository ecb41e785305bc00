package feed

import (
	"iter"
	"sync"
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
	encoded []encoded // an entry for each encoding that was asked for
}

type encoded struct {
	encoding Encoding
	bytes    []byte
	ends     []int // where in bytes each event ends
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

// since returns the events after c, which lies within the segment, as it is now.
func (s *segment) since(c Cursor) Delivery {
	n := len(s.events)
	return Delivery{segment: s, seen: s.events[:n:n], from: int(c - s.after)}
}

// encode returns the bytes of seen[from:], where seen is the beginning of the
// segment's events. It encodes no event twice.
func (s *segment) encode(encoding Encoding, seen []Event, from int) []byte {
	bytes, ends := s.encodeEach(encoding, seen)
	start, end := 0, ends[len(seen)-1]
	if from > 0 {
		start = ends[from-1]
	}
	return bytes[start:end:end]
}

// encodeEach returns the bytes of seen, and where in them each event ends.
func (s *segment) encodeEach(encoding Encoding, seen []Event) (bytes []byte, ends []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.encodedAs(encoding)
	if len(e.ends) == 0 {
		e.bytes = make([]byte, 0, costs(seen)) // about what is there to be encoded
	}
	for n := len(e.ends); n < len(seen); n++ {
		e.bytes = encoding.Encode(e.bytes, &seen[n])
		e.ends = append(e.ends, len(e.bytes))
	}
	return e.bytes, e.ends
}

// encodings is how many encodings a segment keeps: clients choose among them,
// and must not be able to fill the memory with them.
const encodings = 8

func (s *segment) encodedAs(encoding Encoding) *encoded {
	for i := range s.encoded {
		if s.encoded[i].encoding == encoding {
			return &s.encoded[i]
		}
	}
	if len(s.encoded) == encodings {
		return &encoded{encoding: encoding} // it is made anew each time
	}
	s.encoded = append(s.encoded, encoded{encoding: encoding})
	return &s.encoded[len(s.encoded)-1]
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
}

// Events returns the events of the delivery: consecutive, oldest first. They
// are shared with other subscribers and not to be changed.
func (d Delivery) Events() []Event { return d.seen[d.from:] }

// Encoded returns the encoded events of the delivery, back to back. The bytes
// are shared with other subscribers and not to be changed.
func (d Delivery) Encoded(encoding Encoding) []byte {
	if d.from >= len(d.seen) {
		return nil
	}
	return d.segment.encode(encoding, d.seen, d.from)
}

// Each yields each event of the delivery with its encoded bytes, which are
// shared like those of Encoded.
func (d Delivery) Each(encoding Encoding) iter.Seq2[*Event, []byte] {
	return func(yield func(*Event, []byte) bool) {
		if d.from >= len(d.seen) {
			return
		}
		bytes, ends := d.segment.encodeEach(encoding, d.seen)
		for i := d.from; i < len(d.seen); i++ {
			start := 0
			if i > 0 {
				start = ends[i-1]
			}
			if !yield(&d.seen[i], bytes[start:ends[i]:ends[i]]) {
				return
			}
		}
	}
}

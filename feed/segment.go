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
	base   Cursor // the cursor before the first event
	events []Event
	bytes  int // what the events cost; like events, under the lock of the log

	log          *log     // nil for a page
	older, newer *segment // in the hub's cache, under its lock

	mu       sync.Mutex
	detached bool         // the log no longer has it: what is encoded from now on is not kept
	encoded  []encoded    // by encoding, the one that was asked for last first
	wire     atomic.Int64 // bytes that those take
}

type encoded struct {
	encoding Encoding
	first    int    // the index of its first event
	bytes    []byte // of the events from there on
	ends     []int  // where in bytes each event ends
}

func (e *encoded) size() int { return cap(e.bytes) + cap(e.ends)*int(unsafe.Sizeof(0)) }

func newSegment(after Cursor, events []Event) *segment {
	return &segment{base: after, events: events, bytes: costs(events)}
}

// cost is what an event takes in memory, roughly.
func cost(e *Event) int { return sizeOf(len(e.Data)) + len(e.Type) + 96 }

// sizeOf returns what a string of n bytes takes: large ones, whole pages.
func sizeOf(n int) int {
	const small, page = 32 << 10, 8 << 10
	if n <= small {
		return n
	}
	return (n + page - 1) / page * page
}

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

// end returns the id of the last event.
func (s *segment) end() Cursor { return s.base + Cursor(len(s.events)) }

// detach stops the segment from keeping what is encoded from now on, and returns
// how many bytes that takes which it has kept.
func (s *segment) detach() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = true
	return int(s.wire.Load())
}

// memory returns how many bytes the segment takes, with all that it is encoded as.
// The caller holds the lock of the log.
func (s *segment) memory() int { return s.bytes + int(s.wire.Load()) }

// since returns the events after c, which lies within the segment, as it is now.
func (s *segment) since(c Cursor) Delivery {
	n := len(s.events)
	return Delivery{segment: s, seen: s.events[:n:n], from: int(c - s.base)}
}

// encode returns bytes of which those of seen[from:] begin at start, and where in
// them each of these events ends; seen is the beginning of the segment's events.
// It encodes no event twice, unless there are more encodings than are kept.
func (s *segment) encode(encoding Encoding, seen []Event, from int) (bytes []byte, ends []int, start int) {
	s.mu.Lock()
	e, kept := s.encodedAs(encoding, from)
	if !kept {
		s.mu.Unlock()
	}
	before := e.size()
	if n := e.first + len(e.ends); n < len(seen) {
		e.encode(seen[n:])
	}
	bytes, ends = e.bytes, e.ends[from-e.first:len(seen)-e.first]
	if from > e.first {
		start = e.ends[from-e.first-1]
	}
	if kept {
		grown := s.account(e.size() - before)
		s.mu.Unlock()
		if grown {
			s.log.cache.shrink()
		}
	}
	return bytes, ends, start
}

// encode encodes the events that follow those that it has.
func (e *encoded) encode(events []Event) {
	// The events may take several times what they are in memory, and what is kept
	// is to take no more than they do.
	buffer := buffers.Get().(*[]byte)
	fresh := (*buffer)[:0]
	e.ends = slices.Grow(e.ends, len(events))
	for i := range events {
		fresh = e.encoding.Encode(fresh, &events[i])
		e.ends = append(e.ends, len(e.bytes)+len(fresh))
	}
	e.bytes = append(e.bytes, fresh...)
	if *buffer = fresh; cap(fresh) <= bufferBytes {
		buffers.Put(buffer)
	}
}

// buffers are what events are encoded in. Larger ones are not kept.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const bufferBytes = 1 << 20

// weigh counts n more bytes of what is encoded, and reports whether the log has to
// account for them. The caller holds mu.
func (s *segment) account(n int) bool {
	if n == 0 {
		return false
	}
	s.wire.Add(int64(n))
	if s.log == nil || s.detached {
		return false
	}
	s.log.cache.memory.hold(HoldLogs, n)
	return true
}

// encodings is how many encodings a segment of a log keeps. A page keeps one: few
// subscribers read it.
const encodings = 8

func (s *segment) maxEncodings() int {
	if s.log == nil {
		return 1
	}
	return encodings
}

// encodedAs returns the entry for the encoding, which begins with the event at the
// index from or before it, and whether the segment keeps the entry. When there is no
// room for another encoding, the least recently used one goes. The caller holds mu.
func (s *segment) encodedAs(encoding Encoding, from int) (e *encoded, kept bool) {
	i := slices.IndexFunc(s.encoded, func(e encoded) bool { return e.encoding == encoding })
	switch {
	case i >= 0 && s.encoded[i].first <= from:
	case i < 0 && s.detached:
		return &encoded{encoding: encoding, first: from}, false
	case i < 0 && len(s.encoded) < s.maxEncodings():
		i = len(s.encoded)
		s.encoded = append(s.encoded, encoded{encoding: encoding})
	default:
		if i < 0 {
			i = len(s.encoded) - 1
		}
		s.account(-s.encoded[i].size())
		s.encoded[i] = encoded{encoding: encoding, first: from}
	}
	if i > 0 {
		used := s.encoded[i]
		copy(s.encoded[1:i+1], s.encoded[:i])
		s.encoded[0] = used
	}
	return &s.encoded[0], true
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

// Select returns those of the first n events of the delivery that shows picks,
// encoded: as many as have about so many bytes. The bytes are shared like those of
// Encoded where the events stand together.
func (d Delivery) Select(encoding Encoding, size int, shows func(*Event) bool) (encoded []byte, n int) {
	if d.from >= len(d.seen) {
		return nil, 0
	}
	bytes, ends, start := d.segment.encode(encoding, d.seen, d.from)
	apart := false // there is an event among them that is not shown
	for n < len(ends) && len(encoded) < size {
		if end := ends[n]; shows(&d.seen[d.from+n]) {
			switch {
			case len(encoded) == 0:
				encoded = bytes[start:end:end]
			case apart:
				encoded = append(encoded, bytes[start:end]...) // a copy, as it has no room
			default:
				begin := start - len(encoded)
				encoded = bytes[begin:end:end]
			}
		} else if len(encoded) > 0 {
			apart = true
		}
		start = ends[n]
		n++
	}
	return encoded, n
}

// Skip returns the delivery without its first n events.
func (d Delivery) Skip(n int) Delivery {
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

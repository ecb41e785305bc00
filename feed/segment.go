package feed

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// segment is a stretch of consecutive events of one feed, with their encoded bytes.
// The log is made of segments, and a page read from a store becomes one, so that
// subscribers of either share the encoded bytes.
//
// Events are only ever added at the end. A reader that has seen n events may go on
// reading those n without a lock.
type segment struct {
	base   ID // the cursor before the first event
	events []Event
	bytes  int // what the events cost; like events, under the lock of the log

	log          *log     // nil for a page
	older, newer *segment // in the hub's cache, under its lock

	mu       sync.Mutex
	detached bool         // the log no longer has it, and it keeps no new encodings
	encoded  []encoded    // one for each encoding, the most recently used first
	wire     atomic.Int64 // bytes that encoded takes
}

type encoded struct {
	encoding Encoding
	first    int    // the index of its first event
	bytes    []byte // of the events from there on
	ends     []int  // where in bytes each event ends
}

func (e *encoded) size() int { return cap(e.bytes) + cap(e.ends)*int(unsafe.Sizeof(0)) }

func newSegment(after ID, events []Event) *segment {
	return &segment{base: after, events: events, bytes: costs(events)}
}

// cost is what an event takes in memory, roughly.
func cost(e *Event) int { return sizeOf(len(e.Data)) + len(e.Type) + 112 }

// sizeOf returns what a string of n bytes takes in memory: a large one takes whole pages.
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
func (s *segment) end() ID { return s.base + ID(len(s.events)) }

// detach stops the segment from keeping new encodings, and returns how many bytes those
// take that it has.
func (s *segment) detach() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = true
	return int(s.wire.Load())
}

// memory returns how many bytes the segment takes, with its encodings.
// The caller holds the lock of the log.
func (s *segment) memory() int { return s.bytes + int(s.wire.Load()) }

// since returns the events after c, which lies within the segment, as it is now.
func (s *segment) since(c ID) Delivery {
	n := len(s.events)
	return Delivery{segment: s, seen: s.events[:n:n], from: int(c - s.base)}
}

// encode returns encoded bytes, in which those of seen[from:] begin at start, and the
// offset at which each of these events ends. seen is the beginning of the segment's
// events. It encodes no event twice, unless there are more encodings than are kept.
func (s *segment) encode(encoding Encoding, seen []Event, from int) (bytes []byte, ends []int, start int) {
	s.mu.Lock()
	e, kept := s.encodedAs(encoding, from)
	if !kept {
		s.mu.Unlock()
	}
	before := e.size()
	if n := e.first + len(e.ends); n < len(seen) {
		e.encode(seen[n:])
		if s.log != nil {
			trace(s.log.cache.tracer, StageDeliver, seen[n:], time.Time{}, nil)
		}
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
	// Encoded events may be several times larger than the events. A buffer grows in
	// place of the bytes that are kept, which so take no more than they need.
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

// buffers holds buffers to encode events in, of up to bufferBytes.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const bufferBytes = 1 << 20

// account counts n more bytes of encoded events, and reports whether they count in the
// memory of the logs. The caller holds mu.
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

// encodings is how many encodings a segment of a log keeps. A page keeps one, as few
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

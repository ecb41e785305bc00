package feed

import (
	"iter"
	"math"
	"slices"
)

// Encoding turns events into the bytes that travel to subscribers. The log
// runs each encoding once an event, however many subscribers read it.
//
// An Encoding is used as a key: its dynamic type has to be comparable, and
// equal values have to encode alike.
type Encoding interface {
	// Encode appends the encoded event to dst and returns it. What it appends
	// can be concatenated with any other event's. Appending nothing leaves the
	// event out.
	Encode(dst []byte, e *Event) []byte
}

// Delivery is what one read of a subscription returns: a gap, or events, or
// nothing. It stays valid for as long as it is kept.
type Delivery struct {
	// Gap, if not nil, stands alone and comes before the events behind it.
	Gap *Gap
	// Closed reports that the subscription has reached the end of a closed feed. Only
	// a [Subscriber] sets it.
	Closed bool
	// Ephemeral reports that the events are not stored, have no id, and do not
	// move the cursor.
	Ephemeral bool

	segment *segment
	seen    []Event // the events of the segment up to the last of this delivery
	from    int     // where in seen this delivery begins
	newest  bool    // there was nothing behind it: the subscriber is woken for more
	stored  bool    // its events were read from the store for this subscription
}

// Events returns the events of the delivery: consecutive, oldest first. They
// are shared with other subscribers and not to be changed.
func (d Delivery) Events() []Event { return d.seen[d.from:] }

// FromStore reports that the events were read from the store, because the subscriber
// was further behind than the node's memory reaches.
func (d Delivery) FromStore() bool { return d.stored }

// Encoded returns the encoded events of the delivery, back to back. The bytes
// are shared with other subscribers and not to be changed.
func (d Delivery) Encoded(encoding Encoding) []byte {
	encoded, _ := d.Cut(encoding, math.MaxInt)
	return encoded
}

// Cut returns the first n events of the delivery, encoded: as many as make up about
// size bytes, and at least one, if there is any. The bytes are shared like those
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
// encoded: as many as make up about size bytes. The bytes are shared like those of
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

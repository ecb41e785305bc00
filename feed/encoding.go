package feed

// Encoding turns events into the bytes that travel to subscribers. The log
// runs each encoding once an event, however many subscribers read it.
//
// An Encoding is used as a key: its dynamic type has to be comparable, and
// equal values have to encode alike.
type Encoding interface {
	// Encode appends the encoded event to dst and returns it. What it appends
	// can be concatenated with any other event's. It may be nothing, which
	// leaves the event out.
	Encode(dst []byte, e *Event) []byte
}

package server

import (
	"slices"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// streamEncoder turns the deliveries of one subscriber into the bytes of its stream,
// whichever carrier writes them. It knows which cursors the client has been shown.
type streamEncoder struct {
	format   streamFormat
	encoding feed.Encoding
	types    filter
	control  controlFlags
	many     bool // the subscription is of several feeds
	live     bool // feed.live was sent
	chunked  bool // the encoder adds the chunked transfer coding

	subscriber *feed.Subscriber
	hidden     []bool  // per feed: its cursor has moved since the client was last shown it
	single     [1]bool // backs hidden for one feed
	piece      piece
	own        *[]byte // backs the last piece, if no other stream shares its bytes
	pending    *pending
}

// piece describes the bytes that deliver returned last, if they are stored events and
// can be encoded again.
type piece struct {
	from    feed.ID // the events follow this cursor
	of      int32   // index of the feed; -1 for any other bytes
	skipped int32   // bytes at the beginning that were written earlier
}

// pending is the rest of a delivery from which deliver took a piece. If the rest was
// taken back, it only has skip.
type pending struct {
	of       int // index of the feed
	delivery feed.Delivery
	skip     int // bytes of the next piece that were written earlier
}

// encode makes the encoder send what the subscriber reads. The encoder must not be
// copied after that.
func (e *streamEncoder) encode(request subscribeRequest, subscriber *feed.Subscriber) {
	e.format = request.format
	e.encoding = request.format.events(request)
	e.types = request.types
	e.control = request.control
	e.many = request.many
	e.subscriber = subscriber
	if e.hidden = e.single[:]; subscriber.Size() > 1 {
		e.hidden = make([]bool, subscriber.Size())
	}
}

// useChunks makes the encoder add the chunked transfer coding.
func (e *streamEncoder) useChunks() {
	e.chunked = true
	if !e.many {
		e.encoding = inChunks(e.encoding) // of many feeds, each block needs its cursor first
	}
}

// frame returns b, which belongs to this stream alone, as a chunk if the stream has
// chunks.
func (e *streamEncoder) frame(b []byte) []byte {
	if !e.chunked || len(b) == 0 {
		return b
	}
	return appendChunk(make([]byte, 0, chunkHead+len(b)+2), b)
}

// finalChunk appends to b what ends the stream cleanly.
func (e *streamEncoder) finalChunk(b []byte) []byte {
	if !e.chunked {
		return b // net/http writes it
	}
	return append(b, lastChunk...)
}

// cursor returns the cursor after the events of a feed that have become pieces. The
// subscription's own cursor is also past the pending ones.
func (e *streamEncoder) cursor(i int) feed.ID {
	if p := e.pending; p != nil && p.of == i {
		if events := p.delivery.Events(); len(events) > 0 {
			return events[0].ID - 1
		}
	}
	return e.subscriber.At(i).Cursor()
}

// hasHidden reports whether some feed's cursor has moved since the client was last
// shown it.
func (e *streamEncoder) hasHidden() bool {
	for _, hidden := range e.hidden {
		if hidden {
			return true
		}
	}
	return false
}

// appendCursor appends the cursor of the whole subscription.
func (e *streamEncoder) appendCursor(dst []byte) []byte {
	if !e.many {
		return e.cursor(0).Append(dst)
	}
	return e.appendCursors(dst, 0, len(e.hidden))
}

// appendCursors appends the cursors of the feeds from index from up to index to.
func (e *streamEncoder) appendCursors(dst []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, e.subscriber.At(i).Feed()...), '=')
		dst = e.cursor(i).Append(dst)
	}
	return dst
}

// showCursor returns the cursor for a block that shows it to the client.
func (e *streamEncoder) showCursor() string {
	clear(e.hidden)
	return string(e.appendCursor(nil))
}

// pieceBytes is about how large a piece becomes. The write timeout of a client covers
// one piece.
const pieceBytes = 32 << 10

// deliver turns the beginning of a feed's delivery into a piece: whole blocks, whose
// bytes may be shared and must not be changed. The rest becomes pending. The returned
// events are those that the piece covers, even if the client is shown none of them.
func (e *streamEncoder) deliver(i int, d feed.Delivery) (bytes []byte, events []feed.Event) {
	e.piece.of = -1
	switch {
	case d.Gap != nil:
		return e.frame(e.appendLive(e.gapEvent(i, *d.Gap))), nil
	case d.Closed:
		return e.frame(e.closedEvent(i)), nil
	case d.Ephemeral:
		return e.ephemeral(d), d.Events()
	}
	events = d.Events()
	e.piece = piece{from: events[0].ID - 1, of: int32(i)}
	var n int
	switch {
	case e.many:
		bytes, n = e.eventsOfMany(i, d)
	case e.types != "":
		bytes, n = d.Select(e.encoding, pieceBytes, e.types.shows)
	default:
		bytes, n = d.Cut(e.encoding, pieceBytes)
	}
	e.hidden[i] = !e.types.shows(&events[n-1])
	if e.pending = nil; n < len(events) {
		e.pending = &pending{of: i, delivery: d.Skip(n)}
	}
	return bytes, events[:n]
}

// blockFrame is about the size of everything around an event and its cursor.
const blockFrame = chunkHead + len("id: \n\n\r\n")

// eventsOfMany puts the cursor of the whole subscription after each event. It can be
// much longer than the event.
func (e *streamEncoder) eventsOfMany(i int, d feed.Delivery) (out []byte, n int) {
	// From one event to the next, only the number in the middle of the cursor changes.
	before := e.appendCursors(nil, 0, i)
	if i > 0 {
		before = append(before, ',')
	}
	before = append(append(before, e.subscriber.At(i).Feed()...), '=')
	after := e.appendCursors(nil, i+1, len(e.hidden))
	cursor := append(make([]byte, 0, len(before)+20+len(after)), before...)
	for event, encoded := range d.Each(e.encoding) {
		if len(out) >= pieceBytes {
			break
		}
		n++
		if !e.types.shows(event) {
			continue
		}
		clear(e.hidden)
		start := len(out)
		if out == nil {
			block := len(encoded) + cap(cursor) + blockFrame
			out = e.ownPiece(min(len(d.Events())*block, pieceBytes+block))
		}
		if e.chunked {
			out = append(out, make([]byte, chunkHead)...)
		}
		cursor = append(event.ID.Append(cursor[:len(before)]), after...)
		out = e.format.appendID(append(out, encoded...), cursor)
		if e.chunked {
			out = endChunk(out, start)
		}
	}
	if out != nil {
		*e.own = out
	}
	return out, n
}

// ownPieces holds buffers of up to ownPieceBytes for pieces that no other stream
// shares.
var ownPieces = sync.Pool{New: func() any { return new([]byte) }}

const ownPieceBytes = 4 * pieceBytes

// ownPiece returns an empty buffer with room for size bytes.
func (e *streamEncoder) ownPiece(size int) []byte {
	if e.own == nil {
		e.own = ownPieces.Get().(*[]byte)
	}
	return slices.Grow((*e.own)[:0], size)
}

// recyclePiece lets other streams use the buffer of a piece that nobody reads any more.
func (e *streamEncoder) recyclePiece() {
	if e.own != nil && cap(*e.own) <= ownPieceBytes {
		ownPieces.Put(e.own)
	}
	e.own = nil
}

func (e *streamEncoder) ephemeral(d feed.Delivery) []byte {
	if !e.types.shows(&d.Events()[0]) {
		return nil
	}
	if e.many {
		return d.Encoded(e.format.ephemeral(e.chunked))
	}
	return d.Encoded(e.encoding)
}

// release gives back what the subscriber can read again: pending events and pages of
// the store.
func (e *streamEncoder) release() {
	if e.pending != nil && e.pending.skip == 0 {
		i := e.pending.of
		e.subscriber.Unread(i, e.cursor(i))
		e.pending = nil
	}
	e.subscriber.Abandon()
}

// takeBack gives back the last piece, of which only the first written bytes were
// written, so that the rest of it comes next. It reports false if the piece cannot be
// encoded again.
func (e *streamEncoder) takeBack(written int) bool {
	if e.piece.of < 0 {
		return false
	}
	i := int(e.piece.of)
	e.subscriber.Unread(i, e.piece.from)
	if e.pending = nil; int(e.piece.skipped)+written > 0 {
		e.pending = &pending{of: i, skip: int(e.piece.skipped) + written}
	}
	e.subscriber.Abandon()
	return true
}

package server

import (
	"time"

	"github.com/rejoin/rejoin/feed"
)

// streamEncoder is what one stream says, whatever carries it: it turns what the
// subscriptions deliver into bytes, and keeps account of where that leaves the
// client.
type streamEncoder struct {
	form     streamFormat
	encoding feed.Encoding
	types    filter
	control  controlFlags
	many     bool
	live     bool // the history is through
	chunked  bool // the bytes are chunks: whoever carries them adds no framing

	subscriber *feed.Subscriber
	places     []position  // of the subscriptions, in their order
	only       [1]position // which is all there is of one subscription
	piece      piece
	pending    *pending
}

// piece is what deliver has returned, if that is of events: the bytes of those
// after a cursor, which can be made once more.
type piece struct {
	from    feed.Cursor
	of      int32 // the subscription; -1 if it is anything else
	skipped int32 // bytes at the beginning, which were written before
}

// position is where a feed stands.
type position struct {
	at     feed.Cursor
	hidden bool // it has moved since a cursor was last shown
}

// pending is what is left of one of the subscriptions' deliveries: the events that have
// yet to become a piece, or nothing but a cursor, if the pending was taken back.
type pending struct {
	of       int
	delivery feed.Delivery
	skip     int // bytes of what comes next that are written already
}

// begin has the session say what the group has. It is not to be copied any more.
func (s *streamEncoder) begin(request subscribeRequest, group *feed.Subscriber) {
	s.form = request.format
	s.encoding = request.format.events(request)
	s.types = request.types
	s.control = request.control
	s.many = request.many
	s.subscriber = group
	if s.places = s.only[:]; group.Size() > 1 {
		s.places = make([]position, group.Size())
	}
	for i := range s.places {
		s.places[i].at = group.At(i).Cursor()
	}
}

// chunk has the session make chunks from here on.
func (s *streamEncoder) chunk() {
	s.chunked = true
	if !s.many {
		s.encoding = inChunks(s.encoding) // of many feeds, the cursor has to come first
	}
}

// frame returns bytes that are this session's own as they are to be written.
func (s *streamEncoder) frame(b []byte) []byte {
	if !s.chunked || len(b) == 0 {
		return b
	}
	return appendChunk(make([]byte, 0, chunkHead+len(b)+2), b)
}

// end returns what ends the stream cleanly, if net/http does not see to it.
func (s *streamEncoder) end(b []byte) []byte {
	if !s.chunked {
		return b
	}
	return append(b, lastChunk...)
}

// hides says whether a feed has moved since a cursor was last shown.
func (s *streamEncoder) hides() bool {
	for i := range s.places {
		if s.places[i].hidden {
			return true
		}
	}
	return false
}

// shown notes that the client has been shown where all feeds stand.
func (s *streamEncoder) shown() {
	for i := range s.places {
		s.places[i].hidden = false
	}
}

// appendCursor appends the cursor of the whole subscription.
func (s *streamEncoder) appendCursor(dst []byte) []byte {
	if !s.many {
		return s.places[0].at.Append(dst)
	}
	return s.appendCursors(dst, 0, len(s.places))
}

// appendCursors appends the cursors of some of the feeds.
func (s *streamEncoder) appendCursors(dst []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, s.subscriber.At(i).Feed()...), '=')
		dst = s.places[i].at.Append(dst)
	}
	return dst
}

// showCursor returns the cursor for a block that shows it to the client.
func (s *streamEncoder) showCursor() string {
	s.shown()
	return string(s.appendCursor(nil))
}

// opened is the place of one feed in feed.open.
type opened struct {
	Feed   string `json:"feed"`
	Cursor string `json:"cursor"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
}

// open greets the client: it says where the stream starts, and when to come
// back, which is about retry and to no two clients the same.
func (s *streamEncoder) open(retry time.Duration) []byte {
	all := make([]opened, len(s.places))
	for i := range all {
		sub := s.subscriber.At(i)
		b := sub.Bounds()
		all[i] = opened{sub.Feed(), s.places[i].at.String(), b.First, b.Last}
	}
	c := controlEvent{kind: "feed.open", cursor: s.showCursor(), retry: jitter(retry, 0.5)}
	if s.many {
		c.data = struct {
			Feeds []opened `json:"feeds"`
		}{all}
	} else {
		c.feed, c.data = all[0].Feed, all[0]
	}
	return s.frame(s.appendLive(s.form.appendControl(nil, c)))
}

// pieceBytes is about how large a piece becomes. A reader has the time for one
// write to take it.
const pieceBytes = 32 << 10

// deliver turns the beginning of a delivery of one of the subscriptions into a
// piece: bytes of whole blocks, which may be shared, and are not to be changed.
// What remains of the delivery is rest. The events are those that the piece is
// of, of which the client may be shown none.
func (s *streamEncoder) deliver(i int, d feed.Delivery) (bytes []byte, events []feed.Event) {
	s.piece.of = -1
	switch {
	case d.Gap != nil:
		return s.frame(s.appendLive(s.gap(i, *d.Gap))), nil
	case d.Closed:
		return s.frame(s.closed(i)), nil
	case d.Ephemeral:
		return s.ephemeral(d), d.Events()
	}
	s.piece = piece{from: s.places[i].at, of: int32(i)}
	var n int
	switch {
	case s.many:
		bytes, n = s.eventsOfMany(i, d)
	case s.types != "":
		bytes, n = d.Select(s.encoding, pieceBytes, s.types.shows)
	default:
		bytes, n = d.Cut(s.encoding, pieceBytes)
	}
	events = d.Events()
	newest := &events[n-1]
	s.places[i].at = feed.Cursor(newest.ID)
	s.places[i].hidden = !s.types.shows(newest)
	if s.pending = nil; n < len(events) {
		s.pending = &pending{of: i, delivery: d.Skip(n)}
	}
	return bytes, events[:n]
}

// blockFrame is about what surrounds an event and its cursor.
const blockFrame = chunkHead + len("id: \n\n\r\n")

// eventsOfMany puts the cursor of the whole subscription behind each event. That
// makes much of small events.
func (s *streamEncoder) eventsOfMany(i int, d feed.Delivery) (out []byte, n int) {
	// Of the cursor, nothing changes but the number in the middle.
	before := s.appendCursors(nil, 0, i)
	if i > 0 {
		before = append(before, ',')
	}
	before = append(append(before, s.subscriber.At(i).Feed()...), '=')
	after := s.appendCursors(nil, i+1, len(s.places))
	cursor := append(make([]byte, 0, len(before)+20+len(after)), before...)
	for e, encoded := range d.Each(s.encoding) {
		if len(out) >= pieceBytes {
			break
		}
		n++
		if !s.types.shows(e) {
			continue
		}
		s.shown()
		start := len(out)
		if out == nil {
			block := len(encoded) + cap(cursor) + blockFrame
			out = make([]byte, 0, min(len(d.Events())*block, pieceBytes+block))
		}
		if s.chunked {
			out = append(out, make([]byte, chunkHead)...)
		}
		cursor = append(feed.Cursor(e.ID).Append(cursor[:len(before)]), after...)
		out = s.form.appendID(append(out, encoded...), cursor)
		if s.chunked {
			out = endChunk(out, start)
		}
	}
	return out, n
}

func (s *streamEncoder) ephemeral(d feed.Delivery) []byte {
	if !s.types.shows(&d.Events()[0]) {
		return nil
	}
	if s.many {
		return d.Encoded(s.form.ephemeral(s.chunked))
	}
	return d.Encoded(s.encoding)
}

// unread takes back what is left of a delivery: it can be had again.
func (s *streamEncoder) unread() {
	if s.pending != nil && s.pending.skip == 0 {
		s.subscriber.Unread(s.pending.of, s.places[s.pending.of].at)
		s.pending = nil
	}
	s.subscriber.Abandon()
}

// unwritten takes back the last piece, of which only so many bytes were written, and
// reports whether it can: then the rest of it is what comes next.
func (s *streamEncoder) unwritten(written int) bool {
	if s.piece.of < 0 {
		return false
	}
	i := int(s.piece.of)
	s.subscriber.Unread(i, s.piece.from)
	s.places[i].at = s.piece.from
	if s.pending = nil; int(s.piece.skipped)+written > 0 {
		s.pending = &pending{of: i, skip: int(s.piece.skipped) + written}
	}
	s.subscriber.Abandon()
	return true
}

func (s *streamEncoder) gap(i int, g feed.Gap) []byte {
	s.places[i].at = g.Cursor()
	return s.form.appendControl(nil, controlEvent{kind: "feed.gap", feed: s.subscriber.At(i).Feed(), cursor: s.showCursor(), data: struct {
		Feed    string         `json:"feed"`
		After   string         `json:"after"`
		Resumes uint64         `json:"resumes"`
		Reason  feed.GapReason `json:"reason"`
	}{s.subscriber.At(i).Feed(), g.After.String(), g.Resumes, g.Reason}})
}

func (s *streamEncoder) closed(i int) []byte {
	return s.form.appendControl(nil, controlEvent{kind: "feed.closed", feed: s.subscriber.At(i).Feed(), cursor: s.showCursor(), data: struct {
		Feed string `json:"feed"`
		Last uint64 `json:"last"`
	}{s.subscriber.At(i).Feed(), uint64(s.places[i].at)}})
}

// becomesLive says whether the client wants to know that the history is through,
// which it is.
func (s *streamEncoder) becomesLive() bool {
	if s.live || !s.control.live {
		return false
	}
	for i := range s.places {
		if sub := s.subscriber.At(i); sub.Gap() != nil || uint64(s.places[i].at) < sub.Bounds().Last {
			return false
		}
	}
	return true
}

// appendLive says that the history is through, once.
func (s *streamEncoder) appendLive(dst []byte) []byte {
	if !s.becomesLive() {
		return dst
	}
	s.live = true
	c := controlEvent{kind: "feed.live"}
	if !s.many {
		c.feed = s.subscriber.At(0).Feed()
	}
	c.data = struct {
		Feed   string `json:"feed,omitempty"`
		Cursor string `json:"cursor"`
	}{c.feed, string(s.appendCursor(nil))}
	return s.form.appendControl(dst, c)
}

// tick keeps the connection alive. The client learns of a cursor that has moved
// without an event shown.
func (s *streamEncoder) tick() []byte {
	out := s.cursors(0)
	switch {
	case s.control.heartbeat:
		out = s.form.appendControl(out, heartbeat)
	case out == nil:
		out = s.form.keepAlive()
	}
	return s.frame(out)
}

var heartbeat = controlEvent{kind: "feed.heartbeat", data: struct{}{}}

// farewell tells the client where it stands and when to come back.
func (s *streamEncoder) farewell(retry time.Duration) []byte {
	s.places[0].hidden = true
	return s.frame(s.cursors(retry))
}

// cursors shows where each feed stands whose cursor has moved unseen. The last
// of the blocks says when to come back, unless retry is 0.
func (s *streamEncoder) cursors(retry time.Duration) (out []byte) {
	last := -1
	for i := range s.places {
		if s.places[i].hidden {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	cursor := string(s.appendCursor(nil))
	for i := range s.places {
		if !s.places[i].hidden {
			continue
		}
		feed := s.subscriber.At(i).Feed()
		c := controlEvent{kind: "feed.cursor", feed: feed, cursor: cursor, data: struct {
			Feed   string `json:"feed"`
			Cursor string `json:"cursor"`
		}{feed, s.places[i].at.String()}}
		if i == last {
			c.retry = jitter(retry, 0.5)
		}
		out = s.form.appendControl(out, c)
	}
	s.shown()
	return out
}

// expired says that the token's time is up, behind the cursor.
func (s *streamEncoder) expired() []byte {
	return s.end(s.frame(s.form.appendControl(s.cursors(0), expired)))
}

var expired = controlEvent{kind: "feed.expired", data: struct {
	Reason string `json:"reason"`
}{"token"}}

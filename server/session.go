package server

import (
	"iter"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// session is what one stream says, whatever carries it: it turns what the
// subscriptions deliver into bytes, and keeps account of where that leaves the
// client.
type session struct {
	request  subscribeRequest
	encoding feed.Encoding
	retry    time.Duration

	subs   []*feed.Subscription
	at     []feed.Cursor // where each feed stands
	hidden []bool        // that has moved since a cursor was last shown
	live   bool          // the history is through
}

func newSession(request subscribeRequest, retry time.Duration, subs []*feed.Subscription) *session {
	s := &session{
		request:  request,
		encoding: request.types.over(request.form.events(request)),
		retry:    retry,
		subs:     subs,
		at:       make([]feed.Cursor, len(subs)),
		hidden:   make([]bool, len(subs)),
	}
	for i, sub := range subs {
		s.at[i] = sub.Cursor()
	}
	return s
}

// appendCursor appends the cursor of the whole subscription.
func (s *session) appendCursor(dst []byte) []byte {
	if !s.request.many {
		return s.at[0].Append(dst)
	}
	for i, sub := range s.subs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, sub.Feed()...), '=')
		dst = s.at[i].Append(dst)
	}
	return dst
}

// showCursor returns the cursor for a block that shows it to the client.
func (s *session) showCursor() string {
	clear(s.hidden)
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
// back, to no two clients the same.
func (s *session) open() []byte {
	all := make([]opened, len(s.subs))
	for i, sub := range s.subs {
		b := sub.Bounds()
		all[i] = opened{sub.Feed(), s.at[i].String(), b.First, b.Last}
	}
	c := control{kind: "feed.open", cursor: s.showCursor(), retry: jitter(s.retry, 0.5)}
	if s.request.many {
		c.data = struct {
			Feeds []opened `json:"feeds"`
		}{all}
	} else {
		c.feed, c.data = all[0].Feed, all[0]
	}
	return s.appendLive(s.request.form.appendControl(nil, c))
}

// deliver turns a delivery of one of the subscriptions into bytes, of whole
// blocks, in pieces that are written one by one: where each ends the session can
// end as well. They may be shared, and are not to be changed.
func (s *session) deliver(i int, d feed.Delivery) iter.Seq[[]byte] {
	if s.request.many && len(d.Events()) > 0 && !d.Ephemeral {
		return s.eventsOfMany(i, d)
	}
	return func(yield func([]byte) bool) { yield(s.atOnce(i, d)) }
}

func (s *session) atOnce(i int, d feed.Delivery) []byte {
	switch {
	case d.Gap != nil:
		return s.appendLive(s.gap(i, *d.Gap))
	case d.Closed:
		return s.closed(i)
	case d.Ephemeral:
		return s.ephemeral(d)
	}
	events := d.Events()
	newest := &events[len(events)-1]
	s.at[i] = feed.Cursor(newest.ID)
	s.hidden[i] = !s.request.types.shows(newest)
	encoded := d.Encoded(s.encoding)
	if s.live || !s.request.control.live {
		return encoded
	}
	return s.appendLive(append([]byte(nil), encoded...))
}

// committed returns when the oldest event of the delivery was, if that is after
// the stream began: history is not late, however old.
func (s *session) committed(i int, d feed.Delivery) (at time.Time, ok bool) {
	events := d.Events()
	if len(events) == 0 || d.Ephemeral || events[0].ID <= s.subs[i].Bounds().Last {
		return time.Time{}, false
	}
	return events[0].Time, true
}

// pieceBytes is how large a piece of a delivery becomes, but for its last event.
// A reader has the time for one write to take it.
const pieceBytes = 32 << 10

// eventsOfMany puts the cursor of the whole subscription behind each event. That
// makes much of small events.
func (s *session) eventsOfMany(i int, d feed.Delivery) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var cursor, out []byte
		for e, encoded := range d.Each(s.encoding) {
			if len(out) >= pieceBytes {
				if !yield(out) {
					return
				}
				out = out[:0]
			}
			s.at[i] = feed.Cursor(e.ID)
			if len(encoded) == 0 {
				s.hidden[i] = true
				continue
			}
			clear(s.hidden)
			cursor = s.appendCursor(cursor[:0])
			out = s.request.form.appendID(append(out, encoded...), cursor)
		}
		yield(s.appendLive(out))
	}
}

func (s *session) ephemeral(d feed.Delivery) []byte {
	encoded := d.Encoded(s.encoding)
	if len(encoded) == 0 || !s.request.many {
		return encoded
	}
	return s.request.form.appendID(append([]byte(nil), encoded...), nil)
}

func (s *session) gap(i int, g feed.Gap) []byte {
	s.at[i] = g.Cursor()
	return s.request.form.appendControl(nil, control{kind: "feed.gap", feed: s.subs[i].Feed(), cursor: s.showCursor(), data: struct {
		Feed    string         `json:"feed"`
		After   string         `json:"after"`
		Resumes uint64         `json:"resumes"`
		Reason  feed.GapReason `json:"reason"`
	}{s.subs[i].Feed(), g.After.String(), g.Resumes, g.Reason}})
}

func (s *session) closed(i int) []byte {
	return s.request.form.appendControl(nil, control{kind: "feed.closed", feed: s.subs[i].Feed(), cursor: s.showCursor(), data: struct {
		Feed string `json:"feed"`
		Last uint64 `json:"last"`
	}{s.subs[i].Feed(), uint64(s.at[i])}})
}

// appendLive says that the history is through, once, if the client wants to
// know.
func (s *session) appendLive(dst []byte) []byte {
	if s.live || !s.request.control.live {
		return dst
	}
	for i, sub := range s.subs {
		if sub.Gap() != nil || uint64(s.at[i]) < sub.Bounds().Last {
			return dst
		}
	}
	s.live = true
	c := control{kind: "feed.live"}
	if !s.request.many {
		c.feed = s.subs[0].Feed()
	}
	c.data = struct {
		Feed   string `json:"feed,omitempty"`
		Cursor string `json:"cursor"`
	}{c.feed, string(s.appendCursor(nil))}
	return s.request.form.appendControl(dst, c)
}

// tick keeps the connection alive. The client learns of a cursor that has moved
// without an event shown.
func (s *session) tick() []byte {
	out := s.cursors(false)
	if s.request.control.heartbeat {
		return s.request.form.appendControl(out, heartbeat)
	}
	if out == nil {
		return s.request.form.keepAlive()
	}
	return out
}

var heartbeat = control{kind: "feed.heartbeat", data: struct{}{}}

// farewell tells the client where it stands and when to come back.
func (s *session) farewell() []byte {
	s.hidden[0] = true
	return s.cursors(true)
}

// cursors shows where each feed stands whose cursor has moved unseen. The last
// of the blocks says when to come back, if it is the end.
func (s *session) cursors(end bool) (out []byte) {
	last := -1
	for i, hidden := range s.hidden {
		if hidden {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	cursor := string(s.appendCursor(nil))
	for i, sub := range s.subs {
		if !s.hidden[i] {
			continue
		}
		c := control{kind: "feed.cursor", feed: sub.Feed(), cursor: cursor, data: struct {
			Feed   string `json:"feed"`
			Cursor string `json:"cursor"`
		}{sub.Feed(), s.at[i].String()}}
		if end && i == last {
			c.retry = jitter(s.retry, 0.5)
		}
		out = s.request.form.appendControl(out, c)
	}
	clear(s.hidden)
	return out
}

// expired says that the token's time is up, behind the cursor.
func (s *session) expired() []byte { return s.request.form.appendControl(s.cursors(false), expired) }

var expired = control{kind: "feed.expired", data: struct {
	Reason string `json:"reason"`
}{"token"}}

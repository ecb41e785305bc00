package server

import (
	"errors"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// openEvent returns the first block of a stream: the bounds and the cursor of each
// feed, and the time after which to reconnect, which is about retry and differs for
// each client.
func (e *streamEncoder) openEvent(retry time.Duration) []byte {
	c := controlEvent{kind: "feed.open", cursor: e.showCursor(), retry: jitter(retry, 0.5)}
	var data []byte
	if e.many {
		data = append(data, `{"feeds":[`...)
		for i := range e.hidden {
			if i > 0 {
				data = append(data, ',')
			}
			data = e.appendOpened(data, i)
		}
		data = append(data, "]}"...)
	} else {
		c.feed = e.subscriber.At(0).Feed()
		data = e.appendOpened(make([]byte, 0, 128), 0)
	}
	c.data = encodedJSON(data)
	return e.frame(e.appendLive(e.format.appendControl(nil, c)))
}

// appendOpened appends the bounds and the cursor of a feed, whose name needs no escapes.
func (e *streamEncoder) appendOpened(dst []byte, i int) []byte {
	sub := e.subscriber.At(i)
	b := sub.Bounds()
	dst = append(append(dst, `{"feed":"`...), sub.Feed()...)
	dst = e.cursor(i).Append(append(dst, `","cursor":"`...))
	dst = b.First.Append(append(dst, `","first":`...))
	dst = b.Last.Append(append(dst, `,"last":`...))
	return append(dst, '}')
}

func (e *streamEncoder) gapEvent(i int, g feed.Gap) []byte {
	name := e.subscriber.At(i).Feed()
	return e.format.appendControl(nil, controlEvent{kind: "feed.gap", feed: name, cursor: e.showCursor(), data: struct {
		Feed    string         `json:"feed"`
		After   string         `json:"after"`
		Resumes feed.ID        `json:"resumes"`
		Reason  feed.GapReason `json:"reason"`
	}{name, g.After.String(), g.Resumes, g.Reason}})
}

func (e *streamEncoder) closedEvent(i int) []byte {
	if e.format == (bareFormat{}) {
		return e.cursorEvents(0) // so that a client that comes back has it
	}
	name := e.subscriber.At(i).Feed()
	return e.format.appendControl(nil, controlEvent{kind: "feed.closed", feed: name, cursor: e.showCursor(), data: struct {
		Feed string  `json:"feed"`
		Last feed.ID `json:"last"`
	}{name, e.cursor(i)}})
}

// becomesLive reports whether the history has just ended, and the client asked for
// feed.live.
func (e *streamEncoder) becomesLive() bool {
	if e.live || !e.control.live {
		return false
	}
	for i := range e.hidden {
		if sub := e.subscriber.At(i); sub.Gap() != nil || e.cursor(i) < sub.Bounds().Last {
			return false
		}
	}
	return true
}

// appendLive appends feed.live once, where the history ends.
func (e *streamEncoder) appendLive(dst []byte) []byte {
	if !e.becomesLive() {
		return dst
	}
	e.live = true
	c := controlEvent{kind: "feed.live"}
	if !e.many {
		c.feed = e.subscriber.At(0).Feed()
	}
	c.data = struct {
		Feed   string `json:"feed,omitempty"`
		Cursor string `json:"cursor"`
	}{c.feed, string(e.appendCursor(nil))}
	return e.format.appendControl(dst, c)
}

// heartbeatBlock returns bytes that keep the connection alive, and the cursors that have
// moved without an event shown.
func (e *streamEncoder) heartbeatBlock() []byte {
	out := e.cursorEvents(0)
	switch {
	case e.control.heartbeat:
		out = e.format.appendControl(out, heartbeatEvent)
	case out == nil:
		out = e.format.keepAlive()
	}
	return e.frame(out)
}

var heartbeatEvent = controlEvent{kind: "feed.heartbeat", data: struct{}{}}

// farewell returns the cursor, and the time after which to reconnect.
func (e *streamEncoder) farewell(retry time.Duration) []byte {
	e.hidden[0] = true
	return e.frame(e.cursorEvents(retry))
}

// cursorEvents returns feed.cursor for each feed whose cursor is hidden. The last of
// them has the time after which to reconnect, unless retry is 0.
func (e *streamEncoder) cursorEvents(retry time.Duration) (out []byte) {
	last := -1
	for i, hidden := range e.hidden {
		if hidden {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	cursor := string(e.appendCursor(nil))
	for i, hidden := range e.hidden {
		if !hidden {
			continue
		}
		feed := e.subscriber.At(i).Feed()
		c := controlEvent{kind: "feed.cursor", feed: feed, cursor: cursor, data: struct {
			Feed   string `json:"feed"`
			Cursor string `json:"cursor"`
		}{feed, e.cursor(i).String()}}
		if i == last {
			c.retry = jitter(retry, 0.5)
		}
		out = e.format.appendControl(out, c)
	}
	clear(e.hidden)
	return out
}

// expiredEvent returns the last bytes of a stream that its client may no longer read.
func (e *streamEncoder) expiredEvent(why error) []byte {
	return e.finalChunk(e.frame(e.format.appendControl(e.cursorEvents(0), expired(why))))
}

// expired returns the event feed.expired for errExpired or errRevoked.
func expired(why error) controlEvent {
	reason := "token"
	if errors.Is(why, errRevoked) {
		reason = "revoked"
	}
	return controlEvent{kind: "feed.expired", data: struct {
		Reason string `json:"reason"`
	}{reason}}
}

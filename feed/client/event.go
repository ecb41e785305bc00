package client

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Kind tells events of a feed and control events apart. A control event of a later
// server has its type as its kind; it can be passed over.
type Kind string

const (
	KindEvent     Kind = "event"          // a stored event
	KindEphemeral Kind = "ephemeral"      // an event that is not stored, and has no id
	KindOpen      Kind = "feed.open"      // a connection is open; Cursor is its beginning
	KindLive      Kind = "feed.live"      // the history is through
	KindGap       Kind = "feed.gap"       // events are missing: see Event.Gap
	KindCursor    Kind = "feed.cursor"    // Cursor has moved over events that Types left out
	KindClosed    Kind = "feed.closed"    // all of a feed has come; ID is its last event
	KindHeartbeat Kind = "feed.heartbeat" // a keep-alive
	KindExpired   Kind = "feed.expired"   // the token's time is up
)

// Event is an event of a feed, or news about the feeds themselves.
type Event struct {
	Kind Kind
	Feed string    // empty where it is about all of several feeds
	ID   feed.ID   // 0 for what is not stored
	Type string    // of an event; empty for none
	Data string    // as it was published; of a control event, the JSON that the server sent
	Time time.Time // of the commit; zero without an envelope
	Gap  feed.Gap  // of a KindGap

	// Cursor is the subscription's behind this event. Subscription.Cursor takes
	// it to go on from here.
	Cursor string
	// Positions is the cursor feed by feed, in the order of Subscription.Feeds;
	// nil for an event that leaves the cursor where it is.
	Positions []feed.ID
	// Raw is the data of the block: the envelope, if there is one.
	Raw string
}

// isControl reports whether a block is about feeds instead of in one.
func (b block) isControl() bool { return strings.HasPrefix(b.kind, "feed.") }

// String describes the block in errors.
func (b block) String() string {
	switch {
	case b.isControl():
		return b.kind
	case b.hasID:
		return "event " + b.id
	}
	return "an event without id"
}

// decode makes an event of a block that makes sense by itself.
func (s *Stream) decode(b block) (e Event, err error) {
	if !s.opened && Kind(b.kind) != KindOpen {
		return Event{}, violation("%v came before feed.open", b)
	}
	e = Event{Kind: Kind(b.kind), Data: b.data, Raw: b.data}
	if len(s.feeds) == 1 {
		e.Feed = s.feeds[0]
	}
	switch e.Kind {
	case KindOpen, KindCursor:
		e.Positions, err = s.positions(b)
	case KindGap:
		err = s.gap(b, &e)
	case KindClosed:
		err = s.closed(b, &e)
	default:
		if !b.isControl() {
			err = s.event(b, &e)
		}
	}
	return e, err
}

// positions reads the id of a block, which places every feed.
func (s *Stream) positions(b block) ([]feed.ID, error) {
	at, err := parseCursor(s.feeds, b.id)
	if err != nil {
		return nil, violation("%v without a usable id: %w", b, err)
	}
	if i := slices.Index(at, absent); i >= 0 {
		return nil, violation("%v has the id %.200q, without %s", b, b.id, s.feeds[i])
	}
	return at, nil
}

// gap reads which events are missing.
func (s *Stream) gap(b block, e *Event) (err error) {
	var gap struct {
		Feed    string
		After   feed.ID `json:",string"`
		Resumes feed.ID
		Reason  feed.GapReason
	}
	if err := json.Unmarshal([]byte(b.data), &gap); err != nil {
		return violation("%v cannot be read: %w", b, err)
	}
	about, err := s.about(b, gap.Feed)
	if err != nil {
		return err
	}
	if e.Positions, err = s.positions(b); err != nil {
		return err
	}
	if gap.Resumes == 0 || e.Positions[about] != gap.Resumes-1 {
		return violation("%v %.200s has the id %.200q", b, b.data, b.id)
	}
	e.Feed, e.Gap = gap.Feed, feed.Gap{After: gap.After, Resumes: gap.Resumes, Reason: gap.Reason}
	return nil
}

// closed reads which feed has come to its end.
func (s *Stream) closed(b block, e *Event) (err error) {
	var end struct {
		Feed string
		Last feed.ID
	}
	if err := json.Unmarshal([]byte(b.data), &end); err != nil {
		return violation("%v cannot be read: %w", b, err)
	}
	about, err := s.about(b, end.Feed)
	if err != nil {
		return err
	}
	if e.Positions, err = s.positions(b); err != nil {
		return err
	}
	if e.Positions[about] != end.Last {
		return violation("%v %.200s has the id %.200q", b, b.data, b.id)
	}
	e.Feed, e.ID = end.Feed, end.Last
	return nil
}

// about returns the index of the feed that a block names.
func (s *Stream) about(b block, name string) (int, error) {
	i := slices.Index(s.feeds, name)
	if i < 0 {
		return 0, violation("%v is about %.100q, which is not followed", b, name)
	}
	return i, nil
}

// UnmarshalJSON reads an event from its envelope, as pages of history and single
// events have it. Cursor and Positions stay empty.
func (e *Event) UnmarshalJSON(envelope []byte) error {
	var whole struct {
		Feed string
		ID   feed.ID
		Type string
		Time time.Time
		Data json.RawMessage
	}
	if err := json.Unmarshal(envelope, &whole); err != nil || whole.Data == nil {
		return violation("an event is not in an envelope: %.200s", envelope)
	}
	*e = Event{Kind: KindEvent, Feed: whole.Feed, ID: whole.ID, Type: whole.Type, Time: whole.Time, Data: string(whole.Data), Raw: string(envelope)}
	if e.ID == 0 {
		e.Kind = KindEphemeral
	}
	if e.Type == "message" {
		e.Type = "" // what envelopes call it
	}
	var text string // as against any other JSON
	if whole.Data[0] == '"' && json.Unmarshal(whole.Data, &text) == nil {
		e.Data = text
	}
	return nil
}

// event reads an event, stored or not.
func (s *Stream) event(b block, e *Event) (err error) {
	about := 0
	if e.Type = b.kind; e.Type == "message" {
		e.Type = ""
	}
	if s.enveloped {
		if e.UnmarshalJSON([]byte(b.data)) != nil {
			return violation("%v is not in an envelope: %.200s", b, b.data)
		}
		if about, err = s.about(b, e.Feed); err != nil {
			return err
		}
	}
	id := e.ID // that the event itself names
	if !b.hasID {
		if id != 0 {
			return violation("event %d of %s leaves the cursor where it is", id, e.Feed)
		}
		e.Kind = KindEphemeral
		return nil
	}
	if e.Positions, err = s.positions(b); err != nil {
		return err
	}
	e.Kind, e.ID = KindEvent, e.Positions[about]
	if s.enveloped && (id == 0 || id != e.ID) {
		return violation("an event of %s has the cursor %.200q and the envelope %.200s", e.Feed, b.id, b.data)
	}
	return nil
}

// String returns the kind with the feed and the id that it is about.
func (e Event) String() string {
	if e.ID == 0 {
		return strings.TrimSpace(fmt.Sprintf("%s %s", e.Kind, e.Feed))
	}
	return fmt.Sprintf("%s %s %d", e.Kind, e.Feed, e.ID)
}

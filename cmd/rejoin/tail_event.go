package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/rejoin/rejoin/feed"
)

// envelope is what is read of the data of a block where that says everything
// about its event.
type envelope struct {
	Feed string          `json:"feed"`
	ID   *feed.Cursor    `json:"id"`
	Data json.RawMessage `json:"data"`
}

// event takes an event and prints it. The cursor moves after that, not before.
func (t *tailer) event(b streamBlock) error {
	which, data := 0, b.data
	var id *feed.Cursor // that the event itself names
	inEnvelope := t.at.many || t.json
	if inEnvelope {
		var e envelope
		if err := json.Unmarshal([]byte(b.data), &e); err != nil || e.Data == nil {
			return broken("%s is not in an envelope: %.200s", describe(b), b.data)
		}
		if which = t.at.index(e.Feed); which < 0 {
			return broken("%s is of %.100q, which is not followed", describe(b), e.Feed)
		}
		id, data = e.ID, dataOf(e.Data)
	}
	f := &t.at.all[which]
	if !b.hasID {
		if id != nil {
			return broken("event %d of %s leaves the cursor where it is", *id, f.feed)
		}
		return t.print(f.feed, data, b.data) // it is not stored
	}
	at, err := t.cursors(b)
	if err != nil {
		return err
	}
	next := at[which]
	switch {
	case inEnvelope && (id == nil || *id != next):
		return broken("an event of %s has the cursor %q and the envelope %.200s", f.feed, b.id, b.data)
	case f.closed:
		return broken("event %d of %s came after the feed was closed", next, f.feed)
	case next <= f.cursor:
		return broken("event %d of %s came again after event %d", next, f.feed, f.cursor)
	case next > f.cursor+1 && t.types == "":
		return broken("event %d of %s came after event %d, without those between them", next, f.feed, f.cursor)
	}
	if err := t.advance(b, at, which); err != nil {
		return err
	}
	if err := t.print(f.feed, data, b.data); err != nil {
		return err
	}
	f.cursor = next
	return nil
}

// dataOf returns the data of an envelope as lines show it.
func dataOf(data json.RawMessage) string {
	var s string
	if data[0] == '"' && json.Unmarshal(data, &s) == nil {
		return s
	}
	return string(data)
}

// print writes one event: its data, or the whole of it, which the server has
// put on one line.
func (t *tailer) print(name, data, whole string) error {
	var lines []byte
	switch {
	case t.json:
		lines = append(append(lines, whole...), '\n')
	case t.at.many:
		for line := range bytes.SplitSeq([]byte(data), []byte("\n")) {
			lines = append(append(append(append(lines, name...), '\t'), line...), '\n')
		}
	default:
		lines = append(append(lines, data...), '\n')
	}
	if _, err := t.out.Write(lines); err != nil {
		return fmt.Errorf("%w: %w", errNoWrite, err)
	}
	return nil
}

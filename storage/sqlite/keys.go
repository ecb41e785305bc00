package sqlite

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// recall decides on a batch whose key is known.
func (tx *appending) recall(b feed.Batch) (r feed.Result, known bool, err error) {
	space, err := tx.space(b)
	if err != nil || space == 0 && b.Feed != "" {
		return feed.Result{}, false, err
	}
	var print, starts []byte
	err = tx.w.getKey.each(func(row []driver.Value) bool {
		print, starts = row[0].([]byte), row[1].([]byte)
		known = tx.now-row[2].(int64) < b.Key.Window.Milliseconds()
		return true
	}, space, b.Key.Name)
	switch {
	case err != nil:
		return feed.Result{}, false, fmt.Errorf("get key: %w", err)
	case !known:
		return feed.Result{}, false, nil
	case string(print) != string(b.Key.Fingerprint[:]):
		return feed.Result{Err: feed.ErrKeyReused}, true, nil
	}
	events, err := repeat(b.Drafts, starts)
	if err != nil {
		return feed.Result{Err: unavailable(err)}, true, nil
	}
	return feed.Result{Events: events, Replayed: true}, true, nil
}

// remember stores the key of a batch, in place of one that is too old.
func (tx *appending) remember(b feed.Batch, events []feed.Event) error {
	space, err := tx.space(b)
	if err != nil {
		return err
	}
	if err := tx.w.setKey.exec(space, b.Key.Name, b.Key.Fingerprint[:], startsOf(events), tx.now); err != nil {
		return fmt.Errorf("set key: %w", err)
	}
	return nil
}

// space returns the id of the feed whose keys the batch uses, which is 0 for
// batches without a feed, and for a feed that does not exist.
func (tx *appending) space(b feed.Batch) (int64, error) {
	if b.Feed == "" {
		return 0, nil
	}
	f, err := tx.feed(b.Feed)
	if err != nil {
		return 0, err
	}
	return f.id, nil
}

// startsOf returns all of a batch's events that its drafts do not tell: for each
// feed, in the order of its first draft, the id that the batch began with there,
// and the time.
func startsOf(events []feed.Event) []byte {
	starts := make([]byte, 0, 2*binary.MaxVarintLen64)
	seen := make(map[string]bool)
	for _, e := range events {
		if seen[e.Feed] {
			continue
		}
		seen[e.Feed] = true
		starts = binary.AppendUvarint(starts, e.ID)
		starts = binary.AppendVarint(starts, e.Time.UnixMilli())
	}
	return starts
}

// repeat returns the events that the drafts have become.
func repeat(drafts []feed.Draft, starts []byte) ([]feed.Event, error) {
	type start struct {
		next uint64
		time time.Time
	}
	feeds := make(map[string]*start)
	events := make([]feed.Event, len(drafts))
	for i, d := range drafts {
		f := feeds[d.Feed]
		if f == nil {
			id, n := binary.Uvarint(starts)
			at, m := binary.Varint(starts[max(n, 0):])
			if n <= 0 || m <= 0 {
				return nil, errors.New("the key is damaged: it lacks a feed of its batch")
			}
			f = &start{id, time.UnixMilli(at).UTC()}
			feeds[d.Feed] = f
			starts = starts[n+m:]
		}
		events[i] = feed.Event{Feed: d.Feed, ID: f.next, Type: d.Type, Data: d.Data, JSON: d.JSON, Time: f.time}
		f.next++
	}
	return events, nil
}

package feed

import (
	"fmt"
	"time"
)

// What an append does with its batches is decided here, once for all stores. A
// store loads the rows and keys that the batches name, calls [PlanAppend], and
// writes what the plan lists, all in one transaction.

// AppendInput is what a store has loaded for an append. No other transaction may
// change any of it until this one ends.
type AppendInput struct {
	// Now is the time of the append in Unix milliseconds.
	Now int64
	// Feeds holds the row of each feed that a batch or a draft names. A feed that
	// does not exist yet has the zero row. A feed without a row is held by another
	// transaction, and its batches are refused with [ErrBusy].
	Feeds map[string]*FeedRow
	// Keys holds for each batch what the store remembers of its key, even if that
	// has expired: nil for nothing. Without any, Keys may be nil.
	Keys []*KeyRow
	// HeldKeys names the keys that another transaction holds. Their batches are
	// refused with [ErrBusy], unless the key is known.
	HeldKeys map[KeyName]bool
}

// FeedRow is a feed's row in a store. PlanAppend changes it to what it is once
// the plan has been written, so a store may keep it for the next append.
type FeedRow struct {
	ID      int64 // the store's own number for the feed; 0 if it has no row yet
	Last    ID
	Updated int64 // when the feed last grew or was closed, in Unix milliseconds
	Closed  bool

	change int // its place in AppendPlan.Feeds, from 1; 0 if unchanged
}

// KeyName names an idempotency key. Feed is empty for the keys of batches
// without a feed.
type KeyName struct{ Feed, Name string }

// KeyRow is what a store remembers of a batch with a key: with the drafts, which
// come again when the key is repeated, it is enough to restore the events.
type KeyRow struct {
	Fingerprint [32]byte
	Starts      []BatchStart // one for each feed, in the order of its first draft
	Time        int64        // when it was stored, in Unix milliseconds
}

// BatchStart is the first id that a batch got in a feed, and the time of all its
// events there.
type BatchStart struct {
	ID   ID
	Time int64 // Unix milliseconds
}

// AppendPlan is what a store has to write, and the results to return once that
// is committed. If Feeds and Keys are empty, there is nothing to commit.
type AppendPlan struct {
	Results []Result // one for each batch
	Events  []PlannedEvent
	Feeds   []FeedChange
	Keys    map[KeyName]*KeyRow // they replace expired keys of the same name
}

// PlannedEvent is an event to insert, and the row of its feed.
type PlannedEvent struct {
	Feed  *FeedRow
	Event *Event
}

// FeedChange is a row to update, or to insert if its ID is 0.
type FeedChange struct {
	Name   string
	Row    *FeedRow
	Bytes  int64 // the size of the added events' data
	Closes bool  // the feed was open before
}

// PlanAppend decides on the batches in order; each sees what those before it do.
// It does no I/O.
func PlanAppend(batches []Batch, in AppendInput) AppendPlan {
	drafts := 0
	for _, b := range batches {
		drafts += len(b.Drafts)
	}
	p := planner{in: in}
	p.Results = make([]Result, len(batches))
	p.Events = make([]PlannedEvent, 0, drafts)
	for i, b := range batches {
		var known *KeyRow
		if b.Key != nil && in.Keys != nil {
			known = in.Keys[i]
		}
		if i > 0 {
			var err error
			if b, err = b.Behind(p.Results[i-1]); err != nil {
				p.Results[i] = Result{Err: err}
				continue
			}
		}
		p.Results[i] = p.decide(b, known)
	}
	for _, c := range p.Feeds {
		c.Row.change = 0
	}
	return p.AppendPlan
}

// planner is a plan in the making.
type planner struct {
	AppendPlan
	in   AppendInput
	rows []*FeedRow // of the batch at hand, one for each draft
}

// decide follows the order that [Batch] promises: a known key, a closed feed,
// IfLast.
func (p *planner) decide(b Batch, known *KeyRow) Result {
	if r, ok := p.replay(b, known); ok {
		return r
	}
	if err := p.admit(b); err != nil {
		return Result{Err: err}
	}
	events := p.number(b.Drafts)
	if b.Close {
		p.close(b.Feed)
	}
	if b.Key != nil {
		p.remember(b, events)
	}
	return Result{Events: events}
}

// replay returns the result of a batch whose key is known; ok is false if it is
// not. It does not need the feed's row: nothing changes a key before it expires.
func (p *planner) replay(b Batch, known *KeyRow) (r Result, ok bool) {
	if b.Key == nil {
		return Result{}, false
	}
	if k := p.Keys[KeyName{b.Feed, b.Key.Name}]; k != nil {
		known = k // of a batch of this append
	}
	if known == nil || p.in.Now-known.Time >= b.Key.Window.Milliseconds() {
		return Result{}, false
	}
	if known.Fingerprint != b.Key.Fingerprint {
		return Result{Err: ErrKeyReused}, true
	}
	events, err := known.events(b.Drafts)
	if err != nil {
		return Result{Err: err}, true
	}
	return Result{Events: events, Replayed: true}, true
}

// admit returns why the batch cannot be stored, nil if it can, and leaves the
// rows of its drafts in p.rows.
func (p *planner) admit(b Batch) error {
	if b.Key != nil && p.in.HeldKeys[KeyName{b.Feed, b.Key.Name}] {
		return fmt.Errorf("%w: another transaction holds the key", ErrBusy)
	}
	own := p.in.Feeds[b.Feed]
	if own == nil && b.Feed != "" {
		return fmt.Errorf("%w: another transaction holds %s", ErrBusy, b.Feed)
	}
	p.rows = p.rows[:0]
	for i, d := range b.Drafts {
		var row *FeedRow
		if i > 0 && d.Feed == b.Drafts[i-1].Feed {
			row = p.rows[i-1]
		} else if row = p.in.Feeds[d.Feed]; row == nil {
			return fmt.Errorf("%w: another transaction holds %s", ErrBusy, d.Feed)
		}
		p.rows = append(p.rows, row)
	}
	for i, row := range p.rows {
		if row.Closed {
			return fmt.Errorf("%w: %s", ErrClosed, b.Drafts[i].Feed)
		}
	}
	if b.IfLast != nil && own.Last != *b.IfLast {
		return &LastError{Last: own.Last}
	}
	return nil
}

// number gives the events of admitted drafts their ids and times. A feed's time
// never goes back, even if the clock does.
func (p *planner) number(drafts []Draft) []Event {
	events := make([]Event, len(drafts))
	for i, d := range drafts {
		row := p.rows[i]
		row.Last++
		row.Updated = max(row.Updated, p.in.Now)
		p.change(d.Feed, row).Bytes += int64(len(d.Data))
		events[i] = storedEvent(d, row.Last, row.Updated)
		p.Events = append(p.Events, PlannedEvent{row, &events[i]})
	}
	return events
}

// close closes the feed, unless it is closed. A feed without events takes its
// time from the close.
func (p *planner) close(name string) {
	row := p.in.Feeds[name]
	if row.Closed {
		return
	}
	row.Closed = true
	if row.Last == 0 {
		row.Updated = max(row.Updated, p.in.Now)
	}
	p.change(name, row).Closes = true
}

// change returns the entry of the row in the plan.
func (p *planner) change(name string, row *FeedRow) *FeedChange {
	if row.change == 0 {
		p.Feeds = append(p.Feeds, FeedChange{Name: name, Row: row})
		row.change = len(p.Feeds)
	}
	return &p.Feeds[row.change-1]
}

// remember adds the key of a batch that has become these events.
func (p *planner) remember(b Batch, events []Event) {
	k := &KeyRow{Fingerprint: b.Key.Fingerprint, Time: p.in.Now}
	var places feedPlaces
	for i, e := range events {
		if i > 0 && e.Feed == events[i-1].Feed {
			continue
		}
		if places.of(e.Feed) == len(k.Starts) {
			k.Starts = append(k.Starts, BatchStart{e.ID, e.Time.UnixMilli()})
		}
	}
	if p.Keys == nil {
		p.Keys = make(map[KeyName]*KeyRow, len(p.Results))
	}
	p.Keys[KeyName{b.Feed, b.Key.Name}] = k
}

// events restores the events of the batch from its drafts.
func (k *KeyRow) events(drafts []Draft) ([]Event, error) {
	events := make([]Event, len(drafts))
	next := append(make([]BatchStart, 0, 4), k.Starts...)
	var places feedPlaces
	place := 0
	for i, d := range drafts {
		if i == 0 || d.Feed != drafts[i-1].Feed {
			place = places.of(d.Feed)
		}
		if place >= len(next) {
			return nil, fmt.Errorf("%w: the stored key is damaged: it lacks a feed of its batch", ErrUnavailable)
		}
		events[i] = storedEvent(d, next[place].ID, next[place].Time)
		next[place].ID++
	}
	return events, nil
}

// feedPlaces numbers the feeds of a batch, from 0, in the order in which it is
// first asked for them. Most batches have one.
type feedPlaces struct {
	first  string
	others map[string]int
}

func (p *feedPlaces) of(name string) int {
	if p.first == "" || p.first == name {
		p.first = name
		return 0
	}
	place, ok := p.others[name]
	if !ok {
		if p.others == nil {
			p.others = make(map[string]int)
		}
		place = 1 + len(p.others)
		p.others[name] = place
	}
	return place
}

func storedEvent(d Draft, id ID, ms int64) Event {
	return Event{Feed: d.Feed, ID: id, Type: d.Type, Data: d.Data, JSON: d.JSON, Time: time.UnixMilli(ms).UTC()}
}

package feed

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

// planNow is when the appends of these tests happen.
const planNow = 5000

func planKey(fingerprint byte) *Key {
	return &Key{Name: "k", Fingerprint: [32]byte{fingerprint}, Window: time.Second}
}

// planned returns an event that is stored at a time in milliseconds.
func planned(name string, id ID, data string, ms int64) Event {
	return Event{Feed: name, ID: id, Data: data, Time: time.UnixMilli(ms).UTC()}
}

// planFeeds returns the feeds of each case: open has 3 events, later has an event
// from a clock that is ahead of ours, and shut is closed. The feed held has no row,
// because another transaction holds it.
func planFeeds() map[string]*FeedRow {
	return map[string]*FeedRow{
		"new":   {},
		"open":  {ID: 1, Last: 3, Updated: 4000},
		"later": {ID: 2, Last: 1, Updated: 9000},
		"shut":  {ID: 3, Last: 2, Updated: 4000, Closed: true},
	}
}

// planCase has some batches and the plan that PlanAppend must make of them.
type planCase struct {
	name     string
	batches  []Batch
	keys     []*KeyRow
	heldKeys map[KeyName]bool
	results  []Result
	changes  map[string]FeedChange // without names and rows
	lasts    map[string]ID         // of the feeds that change
	newKeys  map[KeyName]*KeyRow
}

// The drafts and the batch of the cases.
var (
	toOpen, toNew  = Draft{Feed: "open", Data: "a"}, Draft{Feed: "new", Data: "bb"}
	toShut, toHeld = Draft{Feed: "shut"}, Draft{Feed: "held"}
	keyedBatch     = Batch{Feed: "open", Drafts: []Draft{toOpen}, Key: planKey(1)}
	keyedRow       = map[KeyName]*KeyRow{{"open", "k"}: {Fingerprint: [32]byte{1}, Starts: []BatchStart{{4, planNow}}, Time: planNow}}
)

func oneBatch(b Batch) []Batch { return []Batch{b} }

func storedAs(events ...Event) Result { return Result{Events: events} }

func replayedAs(events ...Event) Result { return Result{Events: events, Replayed: true} }

func refusedWith(err error) Result { return Result{Err: err} }

func knownKey(time int64, starts ...BatchStart) []*KeyRow {
	return []*KeyRow{{Fingerprint: [32]byte{1}, Starts: starts, Time: time}}
}

var planCases = []planCase{
	{
		name: "one event", batches: oneBatch(Batch{Drafts: []Draft{toOpen}}),
		results: []Result{storedAs(planned("open", 4, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}}, lasts: map[string]ID{"open": 4},
	},
	{
		name: "several feeds", batches: oneBatch(Batch{Drafts: []Draft{toOpen, toNew, toOpen}}),
		results: []Result{storedAs(planned("open", 4, "a", planNow), planned("new", 1, "bb", planNow), planned("open", 5, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 2}, "new": {Bytes: 2}}, lasts: map[string]ID{"open": 5, "new": 1},
	},
	{
		name: "a clock that has gone back", batches: oneBatch(Batch{Drafts: []Draft{{Feed: "later"}}}),
		results: []Result{storedAs(planned("later", 2, "", 9000))},
		changes: map[string]FeedChange{"later": {}}, lasts: map[string]ID{"later": 2},
	},
	{
		name: "a closed feed refuses the whole batch", batches: oneBatch(Batch{Drafts: []Draft{toOpen, toShut}}),
		results: []Result{refusedWith(ErrClosed)},
	},
	{
		name: "a held feed refuses the whole batch", batches: []Batch{{Drafts: []Draft{toOpen, toHeld}}, {Drafts: []Draft{toOpen}}},
		results: []Result{refusedWith(ErrBusy), storedAs(planned("open", 4, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}}, lasts: map[string]ID{"open": 4},
	},
	{
		name: "held comes before closed", batches: oneBatch(Batch{Drafts: []Draft{toShut, toHeld}}),
		results: []Result{refusedWith(ErrBusy)},
	},
	{
		name: "a held feed is not closed", batches: oneBatch(Batch{Feed: "held", Close: true}),
		results: []Result{refusedWith(ErrBusy)},
	},
	{
		name: "the expected last event", batches: oneBatch(Batch{Feed: "open", Drafts: []Draft{toOpen}, IfLast: new(ID(3))}),
		results: []Result{storedAs(planned("open", 4, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}}, lasts: map[string]ID{"open": 4},
	},
	{
		name: "another last event", batches: oneBatch(Batch{Feed: "open", Drafts: []Draft{toOpen}, IfLast: new(ID(2))}),
		results: []Result{refusedWith(&LastError{Last: 3})},
	},
	{
		name: "closed comes before the last event", batches: oneBatch(Batch{Feed: "shut", Drafts: []Draft{toShut}, IfLast: new(ID(9))}),
		results: []Result{refusedWith(ErrClosed)},
	},
	{
		name: "a batch sees those before it",
		batches: []Batch{
			{Feed: "open", Drafts: []Draft{toOpen}, Close: true, IfLast: new(ID(3))},
			{Drafts: []Draft{toOpen}},
			{Feed: "open", Close: true, IfLast: new(ID(3))},
			{Feed: "open", Close: true, IfLast: new(ID(4))},
		},
		results: []Result{storedAs(planned("open", 4, "a", planNow)), refusedWith(ErrClosed), refusedWith(&LastError{Last: 4}), storedAs()},
		changes: map[string]FeedChange{"open": {Bytes: 1, Closes: true}}, lasts: map[string]ID{"open": 4},
	},
	{
		name: "a close alone", batches: []Batch{{Feed: "new", Close: true}, {Feed: "later", Close: true}},
		results: []Result{storedAs(), storedAs()},
		changes: map[string]FeedChange{"new": {Closes: true}, "later": {Closes: true}}, lasts: map[string]ID{"new": 0, "later": 1},
	},
	{
		name: "a close of a closed feed", batches: oneBatch(Batch{Feed: "shut", Close: true}),
		results: []Result{storedAs()},
	},
	{
		name: "a new key", batches: oneBatch(Batch{Drafts: []Draft{toNew, toOpen, toNew}, Key: planKey(1)}),
		results: []Result{storedAs(planned("new", 1, "bb", planNow), planned("open", 4, "a", planNow), planned("new", 2, "bb", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}, "new": {Bytes: 4}}, lasts: map[string]ID{"open": 4, "new": 2},
		newKeys: map[KeyName]*KeyRow{{"", "k"}: {Fingerprint: [32]byte{1}, Starts: []BatchStart{{1, planNow}, {4, planNow}}, Time: planNow}},
	},
	{
		name: "a key of this append", batches: []Batch{keyedBatch, keyedBatch},
		results: []Result{storedAs(planned("open", 4, "a", planNow)), replayedAs(planned("open", 4, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}}, lasts: map[string]ID{"open": 4},
		newKeys: keyedRow,
	},
	{
		name: "a key of a refused batch is not kept", batches: oneBatch(Batch{Feed: "open", Drafts: []Draft{toOpen}, IfLast: new(ID(9)), Key: planKey(1)}),
		results: []Result{refusedWith(&LastError{Last: 3})},
	},
	{
		name: "a known key", batches: oneBatch(keyedBatch), keys: knownKey(planNow-999, BatchStart{2, 4001}),
		results: []Result{replayedAs(planned("open", 2, "a", 4001))},
	},
	{
		name: "a known key of several feeds", batches: oneBatch(Batch{Drafts: []Draft{toNew, toOpen, toNew}, Key: planKey(1)}),
		keys:    knownKey(planNow, BatchStart{7, 4001}, BatchStart{2, 4002}),
		results: []Result{replayedAs(planned("new", 7, "bb", 4001), planned("open", 2, "a", 4002), planned("new", 8, "bb", 4001))},
	},
	{
		name: "a known key of a close", batches: oneBatch(Batch{Feed: "open", Close: true, Key: planKey(1)}), keys: knownKey(planNow),
		results: []Result{replayedAs()},
	},
	{
		name: "a known key comes before all else", batches: oneBatch(Batch{Feed: "held", Drafts: []Draft{toHeld, toShut}, IfLast: new(ID(9)), Key: planKey(1)}),
		keys:     []*KeyRow{{Fingerprint: [32]byte{2}, Time: planNow}},
		heldKeys: map[KeyName]bool{{"held", "k"}: true},
		results:  []Result{refusedWith(ErrKeyReused)},
	},
	{
		name: "the same key in two feeds", batches: []Batch{keyedBatch, {Feed: "new", Drafts: []Draft{toNew}, Key: planKey(2)}}, keys: []*KeyRow{knownKey(planNow, BatchStart{2, 4001})[0], nil},
		results: []Result{replayedAs(planned("open", 2, "a", 4001)), storedAs(planned("new", 1, "bb", planNow))},
		changes: map[string]FeedChange{"new": {Bytes: 2}}, lasts: map[string]ID{"new": 1},
		newKeys: map[KeyName]*KeyRow{{"new", "k"}: {Fingerprint: [32]byte{2}, Starts: []BatchStart{{1, planNow}}, Time: planNow}},
	},
	{
		name: "an expired key", batches: oneBatch(keyedBatch), keys: knownKey(planNow-1000, BatchStart{2, 4001}),
		results: []Result{storedAs(planned("open", 4, "a", planNow))},
		changes: map[string]FeedChange{"open": {Bytes: 1}}, lasts: map[string]ID{"open": 4},
		newKeys: keyedRow,
	},
	{
		name: "a held key", batches: oneBatch(keyedBatch), heldKeys: map[KeyName]bool{{"open", "k"}: true},
		results: []Result{refusedWith(ErrBusy)},
	},
	{
		name: "a damaged key", batches: oneBatch(keyedBatch), keys: knownKey(planNow),
		results: []Result{refusedWith(ErrUnavailable)},
	},
}

func TestPlanAppend(t *testing.T) {
	for _, c := range planCases {
		t.Run(c.name, func(t *testing.T) {
			feeds := planFeeds()
			p := PlanAppend(c.batches, AppendInput{Now: planNow, Feeds: feeds, Keys: c.keys, HeldKeys: c.heldKeys})
			for i, got := range p.Results {
				checkResult(t, i, got, c.results[i])
			}
			if len(p.Feeds) != len(c.changes) {
				t.Errorf("got %d changed feeds, want %d", len(p.Feeds), len(c.changes))
			}
			for _, got := range p.Feeds {
				want := c.changes[got.Name]
				want.Name, want.Row = got.Name, feeds[got.Name]
				if got != want || got.Row.Last != c.lasts[got.Name] {
					t.Errorf("got the change %+v of %+v, want %+v behind %d", got, got.Row, want, c.lasts[got.Name])
				}
				if changed := planFeeds()[got.Name].Closed || got.Closes; got.Row.Closed != changed {
					t.Errorf("%s: closed is %t, want %t", got.Name, got.Row.Closed, changed)
				}
			}
			if len(p.Keys) != len(c.newKeys) || len(p.Keys) > 0 && !reflect.DeepEqual(p.Keys, c.newKeys) {
				t.Errorf("got the keys %v, want %v", p.Keys, c.newKeys)
			}
			checkPlannedEvents(t, p, feeds)
		})
	}
}

func checkResult(t *testing.T, i int, got, want Result) {
	t.Helper()
	if got.Replayed != want.Replayed || len(got.Events) != len(want.Events) || len(want.Events) > 0 && !reflect.DeepEqual(got.Events, want.Events) {
		t.Errorf("batch %d: got %+v, want %+v", i, got, want)
	}
	if last, ok := want.Err.(*LastError); ok {
		if got, ok := got.Err.(*LastError); !ok || *got != *last {
			t.Errorf("batch %d: got %v, want %v", i, got, last)
		}
	} else if !errors.Is(got.Err, want.Err) {
		t.Errorf("batch %d: got %v, want %v", i, got.Err, want.Err)
	}
}

// checkPlannedEvents demands that the plan inserts the events of its results, except
// those that are stored already.
func checkPlannedEvents(t *testing.T, p AppendPlan, feeds map[string]*FeedRow) {
	t.Helper()
	var want []PlannedEvent
	for _, r := range p.Results {
		for i := range r.Events {
			if !r.Replayed {
				want = append(want, PlannedEvent{feeds[r.Events[i].Feed], &r.Events[i]})
			}
		}
	}
	if len(p.Events) != len(want) {
		t.Fatalf("got %d events to insert, want %d", len(p.Events), len(want))
	}
	for i := range want {
		if p.Events[i] != want[i] {
			t.Errorf("event %d to insert: got %+v, want %+v", i, p.Events[i].Event, want[i].Event)
		}
	}
}

// PlanAppend updates the rows, so that a caller may keep them for the next append. A
// close sets only the time of a feed without events.
func TestPlanAppendAgain(t *testing.T) {
	feeds := planFeeds()
	for i, now := range []int64{planNow, planNow + 1} {
		p := PlanAppend([]Batch{{Drafts: []Draft{{Feed: "open", Data: "abc"}}}}, AppendInput{Now: now, Feeds: feeds})
		want := FeedChange{Name: "open", Row: feeds["open"], Bytes: 3}
		if len(p.Feeds) != 1 || p.Feeds[0] != want || feeds["open"].Last != ID(4+i) || feeds["open"].Updated != now {
			t.Errorf("append %d: got %+v of %+v", i, p.Feeds, feeds["open"])
		}
	}
	PlanAppend([]Batch{{Feed: "new", Close: true}, {Feed: "open", Close: true}}, AppendInput{Now: 8000, Feeds: feeds})
	if got := feeds["new"].Updated; got != 8000 {
		t.Errorf("a feed without events, closed at 8000, is of %d", got)
	}
	if got := feeds["open"].Updated; got != planNow+1 {
		t.Errorf("a feed with events, closed at 8000, is of %d, want %d", got, planNow+1)
	}
}

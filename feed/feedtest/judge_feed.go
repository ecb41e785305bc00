package feedtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/rejoin/rejoin/feed"
)

// truth is what is known of a feed when everything was compared: which bytes
// each id stands for, and since when.
type truth struct {
	*sent
	first, last feed.ID
	allowed     feed.ID // events before it may have been trimmed
	acks        map[feed.ID]*intent
	trimmed     map[feed.ID]Sum // seen by clients, not held, never acknowledged
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// judgeFeed compares what was published with what was acknowledged and with
// what is held.
func (j *judge) judgeFeed(s *sent) *truth {
	t := &truth{sent: s, acks: make(map[feed.ID]*intent), trimmed: make(map[feed.ID]Sum), allowed: 1}
	for _, trim := range s.trims {
		t.allowed = max(t.allowed, trim.Before)
	}
	for _, key := range sortedKeys(s.keys) {
		j.judgeAnswers(t, s.keys[key])
	}
	if s.held == nil {
		j.find(Finding{Kind: Unread, Feed: s.name, Detail: "nobody looked what it holds in the end"})
		t.last = ^feed.ID(0)
		return t
	}
	t.first, t.last = s.held.first, s.held.last
	if j.Retention {
		t.allowed = max(t.allowed, t.first)
	}
	j.judgeBounds(t)
	for i, sum := range s.held.sums {
		j.judgeHeld(t, t.first+feed.ID(i), sum)
	}
	for _, id := range sortedKeys(t.acks) {
		j.judgeAcknowledged(t, id, t.acks[id])
	}
	j.judgeClosing(t)
	return t
}

func (j *judge) judgeAnswers(t *truth, e *intent) {
	if len(e.ids) == 0 {
		j.report.Unknown++
		return
	}
	j.report.Acknowledged++
	if len(e.ids) > 1 {
		j.find(Finding{Kind: KeyTwice, Feed: t.name, ID: e.ids[1], Detail: fmt.Sprintf("the key %s was acknowledged with the ids %d", e.key, e.ids)})
	}
	for _, id := range e.ids {
		if other := t.acks[id]; other != nil {
			j.find(Finding{Kind: IDTwice, Feed: t.name, ID: id, Detail: fmt.Sprintf("the id %d was acknowledged for the keys %s and %s", id, other.key, e.key)})
		}
		t.acks[id] = e
	}
}

func (j *judge) judgeBounds(t *truth) {
	h := t.held
	switch {
	case h.wrong != 0:
		j.find(Finding{Kind: Hole, Feed: t.name, ID: h.wrong, Detail: fmt.Sprintf("the store has event %d where another belongs", h.wrong)})
	case h.first == 0 || h.first > h.last+1 || h.first+feed.ID(len(h.sums)) != h.last+1:
		j.find(Finding{Kind: Hole, Feed: t.name, ID: h.first, Detail: fmt.Sprintf("the store has %d events from %d to %d", len(h.sums), h.first, h.last)})
	}
	for _, trim := range t.trims {
		if !trim.Gone.IsZero() && h.first < min(trim.Before, h.last+1) {
			j.find(Finding{Kind: Resurrected, Feed: t.name, ID: h.first, Detail: fmt.Sprintf("the events before %d were trimmed, and the store has %d", trim.Before, h.first)})
			return
		}
	}
}

// judgeHeld looks at an event of the store.
func (j *judge) judgeHeld(t *truth, id feed.ID, sum Sum) {
	e := t.sums[sum]
	if e == nil {
		if t.elsewhere[sum] {
			j.find(Finding{Kind: OtherStore, Feed: t.name, ID: id, Detail: fmt.Sprintf("the store's event %d was published to another", id)})
		} else if acked := t.acks[id]; acked == nil { // else it is said of the acknowledged one
			j.find(Finding{Kind: Foreign, Feed: t.name, ID: id, Detail: fmt.Sprintf("the store's event %d was published by nobody", id)})
		}
		return
	}
	j.judgePlace(t, e, id)
}

// judgePlace holds an event to one id.
func (j *judge) judgePlace(t *truth, e *intent, id feed.ID) {
	switch {
	case e.place == id:
		return
	case e.place != 0 && len(e.ids) == 0:
		j.find(Finding{Kind: StoredTwice, Feed: t.name, ID: id, Detail: fmt.Sprintf("what was sent with the key %s, and never acknowledged, is there as %d and as %d", e.key, e.place, id)})
	case e.place != 0:
		j.find(Finding{Kind: KeyTwice, Feed: t.name, ID: id, Detail: fmt.Sprintf("what was sent with the key %s is there as %d and as %d", e.key, e.place, id)})
	case len(e.ids) == 0 && !e.unknown:
		j.find(Finding{Kind: RefusedStored, Feed: t.name, ID: id, Detail: fmt.Sprintf("every attempt with the key %s was refused, and it is there as %d", e.key, id)})
	}
	e.place = id
}

// judgeAcknowledged looks for an acknowledged event in the store.
func (j *judge) judgeAcknowledged(t *truth, id feed.ID, e *intent) {
	held, ok := t.heldAt(id)
	switch {
	case ok && held != e.sum:
		j.find(Finding{Kind: WrongBytes, Feed: t.name, ID: id, Detail: fmt.Sprintf("event %d, acknowledged for the key %s, has other bytes in the store", id, e.key)})
	case !ok && id >= t.allowed:
		j.find(Finding{Kind: LostAcknowledged, Feed: t.name, ID: id, Detail: fmt.Sprintf("event %d was acknowledged, and the store has %d to %d", id, t.first, t.last)})
	}
}

func (t *truth) heldAt(id feed.ID) (Sum, bool) {
	if t.held == nil || id < t.first || id-t.first >= feed.ID(len(t.held.sums)) {
		return 0, false
	}
	return t.held.sums[id-t.first], true
}

package feedtest

import (
	"fmt"

	"github.com/rejoin/rejoin/feed"
)

// member is an event of a batch.
type member struct {
	feed  string
	event *intent
}

// judgeBatch demands that all events of a batch are stored or none, and those of
// a feed in the order of the batch.
func (j *judge) judgeBatch(key string, members []member) {
	var stored, missing *member
	newest := make(map[string]feed.ID)
	for i := range members {
		m := &members[i]
		at := m.event.place
		if len(m.event.ids) > 0 {
			at = m.event.ids[0]
		}
		t := j.truths[m.feed]
		switch {
		case at != 0 && at <= newest[m.feed]:
			j.find(Finding{Kind: TornBatch, Feed: m.feed, ID: at, Detail: fmt.Sprintf("%s of the batch %s is event %d, and the one before it is %d", m.event.key, key, at, newest[m.feed])})
		case at != 0:
			stored, newest[m.feed] = m, at
		case t.held != nil && t.allowed <= 1: // else it may have been trimmed before anybody saw it
			missing = m
		}
	}
	if stored != nil && missing != nil {
		j.find(Finding{Kind: TornBatch, Feed: missing.feed, Detail: fmt.Sprintf("of the batch %s, %s is stored in %s, and %s is not", key, stored.event.key, stored.feed, missing.event.key)})
	}
}

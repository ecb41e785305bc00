package feedtest

import (
	"encoding/binary"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Looked notes that the client was shown an event that is not the next for it, as
// by a page that goes backwards.
func (l *DeliveryLog) Looked(feed string, id feed.ID, sum Sum, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(looked, at)
	i := l.feed(feed)
	l.tail = binary.AppendVarint(l.tail, int64(id-l.ids[i]))
	l.ids[i] = id
	l.tail = binary.LittleEndian.AppendUint64(l.tail, uint64(sum))
}

// LookedBelow notes that the client was shown nothing before an id, and asked.
func (l *DeliveryLog) LookedBelow(feed string, id feed.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(lookedBelow, at)
	l.feed(feed)
	l.id(id)
}

// lookedBelow judges that nothing is kept before an id.
func (c *clientJudge) lookedBelow(r *reader, e entry) {
	if gone := c.gone(r, e.at); e.id > gone {
		c.find(Skipped, r, gone, "nothing came of what is before event %d, and only the events before %d were gone", e.id, gone)
	}
}

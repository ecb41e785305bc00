package feed

import "sync/atomic"

// DefaultMemory is the budget of a node, see [HubOptions].
const DefaultMemory = 256 << 20

// Holder is a part of a node that holds bytes on behalf of clients.
type Holder int

// The holders. Each has a share of the budget that no other can use up.
const (
	HoldPublishes Holder = iota // events that are being received, or wait to be committed
	HoldLogs                    // the newest events of each feed, in every form that they are sent in
	HoldPages                   // pages of history on their way to clients
	HoldReplays                 // pages read from the store for subscribers
	HoldStreams                 // what streams hold beyond a fixed size, such as bytes that a client does not read
	HoldBus                     // what is waiting to be sent to other nodes
	holders
)

// String returns the holder's name in metrics.
func (h Holder) String() string {
	return [holders]string{"publishes", "logs", "pages", "replays", "streams", "bus"}[h]
}

// Holders returns all holders.
func Holders() []Holder {
	return []Holder{HoldPublishes, HoldLogs, HoldPages, HoldReplays, HoldStreams, HoldBus}
}

// shares are the parts of the budget, in 32nds. The rest is for bytes that are not
// counted: the spare room of buffers, and data on its way from one part to the next.
var shares = [holders]int64{8, 9, 2, 2, 2, 1}

// Memory is the budget of a node for the bytes that it holds on behalf of clients.
// Every part that grows with what clients do takes its bytes from it. It counts what the
// Go heap holds, roughly, and is safe for concurrent use.
type Memory struct {
	whole  atomic.Int64
	limits [holders]atomic.Int64
	used   [holders]atomic.Int64
}

func newMemory(limit int) *Memory {
	m := &Memory{}
	m.setLimit(limit)
	return m
}

// setLimit sets the whole budget. A holder that now has more than its share gets no
// more until it has given enough back.
func (m *Memory) setLimit(limit int) {
	m.whole.Store(int64(limit))
	for h, share := range shares {
		m.limits[h].Store(int64(limit) * share / 32)
	}
}

// Take reports whether the holder may hold n more bytes, and counts them if so.
// The caller returns them with Give.
func (m *Memory) Take(h Holder, n int) bool {
	if m.used[h].Add(int64(n)) > m.limits[h].Load() {
		m.used[h].Add(-int64(n))
		return false
	}
	return true
}

// Has reports whether the holder may hold n more bytes now, without counting them.
func (m *Memory) Has(h Holder, n int) bool { return m.used[h].Load()+int64(n) <= m.Limit(h) }

// Give gives n bytes back.
func (m *Memory) Give(h Holder, n int) { m.used[h].Add(-int64(n)) }

// hold counts n bytes that are there already. The holder makes room afterwards.
func (m *Memory) hold(h Holder, n int) { m.used[h].Add(int64(n)) }

// over reports whether the holder has more than its share.
func (m *Memory) over(h Holder) bool { return m.used[h].Load() > m.Limit(h) }

// Used returns how many bytes the holder has.
func (m *Memory) Used(h Holder) int64 { return m.used[h].Load() }

// Total returns how many bytes all holders have, and the whole budget.
func (m *Memory) Total() (used, limit int64) {
	for h := range m.used {
		used += m.used[h].Load()
	}
	return used, m.whole.Load()
}

// Limit returns how many bytes the holder may have.
func (m *Memory) Limit(h Holder) int64 { return m.limits[h].Load() }

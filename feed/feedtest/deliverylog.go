package feedtest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// DeliveryLog holds what one client received, over all of its connections, in
// order. Its methods are safe for concurrent use where their order does not matter.
type DeliveryLog struct {
	name    string
	slow    bool
	left    bool
	apart   string        // what is said of those whose delays are judged with its own
	bound   time.Duration // of these, where nothing is broken; 0 for that of all others
	opens   int
	types   map[string]bool // that it asks for; nil for all
	run     *Recording
	mu      sync.Mutex
	feeds   []string
	index   map[string]int
	ids     []feed.ID // the last one written, by feed
	clock   int64     // the time written last
	chunks  [][]byte
	tail    []byte
	reached []feed.ID // by feed: the id that it is at, for those who wait for it
}

// Client adds a client. One that is slow reads when it pleases: its delays are
// its own.
func (r *Recording) Client(name string, slow bool) *DeliveryLog {
	l := &DeliveryLog{name: name, slow: slow, run: r, index: make(map[string]int)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients = append(r.clients, l)
	return l
}

// The records of a log. Each begins with the time, in µs since the one before.
const (
	connected = iota
	asked     // feed, cursor
	opened    // feed, cursor
	delivered // feed, id less the one before, sum
	gapped    // feed, after, resumes, 1 for trimmed
	cut
	broken      // length, text
	passed      // feed, cursor
	closed      // feed, last
	turnedAway  // because all is closed
	hinted      // feed, sum
	looked      // feed, id less the one before, sum
	lookedBelow // feed, id
)

const (
	logChunk  = 64 << 10
	logRecord = 64 // no record but broken takes more
)

func (l *DeliveryLog) begin(kind byte, at time.Time) {
	if len(l.tail)+logRecord > cap(l.tail) {
		if len(l.tail) > 0 {
			l.chunks = append(l.chunks, l.tail)
		}
		l.tail = make([]byte, 0, logChunk)
	}
	now := l.run.since(at)
	l.tail = append(l.tail, kind)
	l.tail = binary.AppendVarint(l.tail, now-l.clock)
	l.clock = now
}

func (l *DeliveryLog) number(n uint64) { l.tail = binary.AppendUvarint(l.tail, n) }

func (l *DeliveryLog) id(id feed.ID) { l.number(uint64(id)) }

func (l *DeliveryLog) feed(name string) int {
	i, ok := l.index[name]
	if !ok {
		i = len(l.feeds)
		l.index[name] = i
		l.feeds, l.ids, l.reached = append(l.feeds, name), append(l.ids, 0), append(l.reached, 0)
	}
	l.number(uint64(i))
	return i
}

// Connects notes that the client is about to connect. With which cursors follows
// by Asks; a feed without one starts where the server likes.
func (l *DeliveryLog) Connects(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(connected, at)
}

// Asks notes that the client asks for a feed from a cursor.
func (l *DeliveryLog) Asks(feed string, cursor feed.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(asked, at)
	l.feed(feed)
	l.id(cursor)
}

// Opened notes that the stream starts a feed from a cursor.
func (l *DeliveryLog) Opened(feed string, cursor feed.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(opened, at)
	i := l.feed(feed)
	l.id(cursor)
	l.reached[i] = cursor
	l.opens++
}

// Delivered notes that an event came.
func (l *DeliveryLog) Delivered(feed string, id feed.ID, sum Sum, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(delivered, at)
	i := l.feed(feed)
	l.tail = binary.AppendVarint(l.tail, int64(id-l.ids[i]))
	l.tail = binary.LittleEndian.AppendUint64(l.tail, uint64(sum))
	l.ids[i], l.reached[i] = id, id
}

// Gap notes that the client received a gap.
func (l *DeliveryLog) Gap(name string, g feed.Gap, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(gapped, at)
	i := l.feed(name)
	l.id(g.After)
	l.id(g.Resumes)
	trimmed := uint64(0)
	if g.Reason == feed.Trimmed {
		trimmed = 1
	}
	l.number(trimmed)
	l.reached[i] = g.Resumes - 1
}

// Cut notes that the connection has ended.
func (l *DeliveryLog) Cut(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(cut, at)
}

// Broke notes that the server sent what it must not, in words.
func (l *DeliveryLog) Broke(what string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(broken, at)
	l.number(uint64(len(what)))
	l.tail = append(l.tail, what...)
}

// Leave notes that the client need not have everything in the end.
func (l *DeliveryLog) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
}

// Apart notes that the client's delays are judged together with those of the
// clients of the same name, and apart from all others: what is slow on feeds where
// little happens must not hide behind what happens a lot. Those that no fault
// overlaps count with all others, unless they have a bound of their own.
func (l *DeliveryLog) Apart(from string, bound time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apart, l.bound = from, bound
}

// Opens returns how often a stream of the client has opened a feed.
func (l *DeliveryLog) Opens() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opens
}

// Reached returns the id that the client has got to in a feed.
func (l *DeliveryLog) Reached(feed string) feed.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.index[feed]; ok {
		return l.reached[i]
	}
	return 0
}

// Feeds returns the feeds that the client has asked for.
func (l *DeliveryLog) Feeds() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.feeds[:len(l.feeds):len(l.feeds)]
}

// entry is a record, read back.
type entry struct {
	kind   byte
	at     int64
	feed   int
	id     feed.ID // or the cursor, or what a gap comes after
	resume feed.ID
	trim   bool
	sum    Sum
	text   string
}

// entries calls each with every record, in order.
func (l *DeliveryLog) entries(each func(entry)) {
	ids := make([]feed.ID, len(l.feeds))
	clock := int64(0)
	for _, chunk := range append(l.chunks[:len(l.chunks):len(l.chunks)], l.tail) {
		for r := (logReader{chunk}); len(r.rest) > 0; {
			e := entry{kind: r.rest[0]}
			r.rest = r.rest[1:]
			clock += r.signed()
			e.at = clock
			r.body(&e, ids)
			each(e)
		}
	}
}

type logReader struct{ rest []byte }

func (r *logReader) body(e *entry, ids []feed.ID) {
	switch e.kind {
	case asked, opened, passed, closed, lookedBelow:
		e.feed, e.id = int(r.number()), feed.ID(r.number())
	case hinted:
		e.feed, e.sum = int(r.number()), r.sum()
	case delivered, looked:
		e.feed = int(r.number())
		ids[e.feed] += feed.ID(r.signed())
		e.id, e.sum = ids[e.feed], r.sum()
	case gapped:
		e.feed, e.id, e.resume, e.trim = int(r.number()), feed.ID(r.number()), feed.ID(r.number()), r.number() == 1
	case broken:
		n := r.number()
		e.text = string(r.rest[:n])
		r.rest = r.rest[n:]
	}
}

func (r *logReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.rest = r.rest[size:]
	return n
}

func (r *logReader) sum() Sum {
	n := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return Sum(n)
}

func (r *logReader) signed() int64 {
	n, size := binary.Varint(r.rest)
	r.rest = r.rest[size:]
	return n
}

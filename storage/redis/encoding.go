package redis

import (
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// An event is an entry with one field. The name of the field is the event's time, JSON
// mark and type, as in "1700000000000j:chat.sent"; its value is the data. An event with a
// trace has that in a second field.

const (
	traceField = "trace"
	traceMost  = 64 // bytes that are taken from an entry
)

// meta returns the name of the field.
func meta(e *feed.Event) string {
	var buf [128]byte
	b := strconv.AppendInt(buf[:0], e.Time.UnixMilli(), 10)
	if e.JSON {
		b = append(b, 'j')
	}
	b = append(b, ':')
	b = append(b, e.Type...)
	return string(b)
}

const latestTime = 253402300799999 // the last one that RFC 3339 can express

// decodeEvent fills in e from an entry's fields. It accepts nothing that would break
// the framing of a stream to a browser, even if the entry was written by hand.
func decodeEvent(e *feed.Event, fields []any) bool {
	if len(fields) == 4 && fields[2] == traceField {
		if e.Trace, _ = fields[3].(string); len(e.Trace) > traceMost {
			e.Trace = ""
		}
		fields = fields[:2]
	}
	if len(fields) != 2 {
		return false
	}
	meta, _ := fields[0].(string)
	data, ok := fields[1].(string)
	stamp, kind, colon := strings.Cut(meta, ":")
	stamp, e.JSON = strings.CutSuffix(stamp, "j")
	ms, canonical := decimal(stamp)
	if !ok || !colon || !canonical || ms > latestTime || feed.CheckType(kind) != nil {
		return false
	}
	if strings.IndexByte(data, 0) >= 0 || strings.IndexByte(data, '\r') >= 0 || !utf8.ValidString(data) {
		return false
	}
	e.Type, e.Data, e.Time = kind, data, time.UnixMilli(int64(ms)).UTC()
	return true
}

// decimal reads a number as strconv writes it.
func decimal(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && (s[0] != '0' || len(s) == 1) && s[0] != '+'
}

// position is the id of an entry.
type position struct{ ms, seq uint64 }

// positionOf returns the id of an event's entry in its feed's stream.
func positionOf(id feed.ID) position { return position{ms: uint64(id)} }

func (p position) String() string {
	var buf [41]byte
	b := strconv.AppendUint(buf[:0], p.ms, 10)
	b = append(b, '-')
	return string(strconv.AppendUint(b, p.seq, 10))
}

func (p position) before(q position) bool {
	return p.ms < q.ms || p.ms == q.ms && p.seq < q.seq
}

func parsePosition(s string) (p position, ok bool) {
	ms, seq, found := strings.Cut(s, "-")
	var good bool
	p.ms, ok = decimal(ms)
	p.seq, good = decimal(seq)
	return p, ok && good && found
}

// run is a range of a feed's ids that one flush told.
type run struct {
	first, last feed.ID
	sum         uint32 // the checksum of the events: see add
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// add adds one event to a checksum. The id is not part of it: the run has it.
func add(sum uint32, e *feed.Event, scratch []byte) (uint32, []byte) {
	b := strconv.AppendInt(scratch[:0], e.Time.UnixMilli(), 10)
	b = strconv.AppendBool(b, e.JSON)
	b = strconv.AppendInt(b, int64(len(e.Data)), 10)
	b = append(append(b, ':'), e.Type...)
	sum = crc32.Update(sum, castagnoli, b)
	b = append(b[:0], e.Data...)
	return crc32.Update(sum, castagnoli, b), b
}

// A wake entry has one field for each run: its name is the feed's, its value is the run,
// as in "41-43-9f86d081".

func (r run) String() string {
	var buf [50]byte
	b := r.first.Append(buf[:0])
	b = append(b, '-')
	b = r.last.Append(b)
	b = append(b, '-')
	return string(strconv.AppendUint(b, uint64(r.sum), 16))
}

func parseRun(s string) (r run, ok bool) {
	first, rest, _ := strings.Cut(s, "-")
	last, sum, _ := strings.Cut(rest, "-")
	from, ok := decimal(first)
	to, good := decimal(last)
	n, err := strconv.ParseUint(sum, 16, 32)
	return run{feed.ID(from), feed.ID(to), uint32(n)}, ok && good && err == nil && 0 < from && from <= to && to <= math.MaxInt64
}

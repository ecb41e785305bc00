// Package sse writes Server-Sent Events, as the HTML Living Standard defines
// them (section 9.2.6, "Interpreting an event stream"), in the layout that the
// clients in use read best: the id last in its block, because some move their
// cursor as soon as they have read that line, and a cut in mid-event would
// then lose the event.
package sse

import (
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

// The encodings of a feed's events as blocks of an event stream: with the data
// as it was published, in envelopes, and in envelopes without the end of the
// block, which AppendEnd appends for each subscriber.
var (
	Blocks     feed.Encoding = blocks{}
	Envelopes  feed.Encoding = envelopes{}
	Unfinished feed.Encoding = unfinished{}
)

type (
	blocks     struct{}
	envelopes  struct{}
	unfinished struct{}
)

func (blocks) Encode(dst []byte, e *feed.Event) []byte {
	dst = appendType(dst, e)
	return appendEventEnd(appendData(dst, e.Data), e)
}

func (envelopes) Encode(dst []byte, e *feed.Event) []byte {
	return appendEventEnd(unfinished{}.Encode(dst, e), e)
}

func (unfinished) Encode(dst []byte, e *feed.Event) []byte {
	dst = append(appendType(dst, e), "data: "...)
	return append(envelope.Append(dst, e), '\n')
}

func appendType(dst []byte, e *feed.Event) []byte {
	if e.Type == "" {
		return dst
	}
	return appendField(dst, "event: ", e.Type)
}

// appendEventEnd ends the block of an event. One that is not stored has no id,
// and leaves the client's cursor where it is.
func appendEventEnd(dst []byte, e *feed.Event) []byte {
	if e.ID == 0 {
		return append(dst, '\n')
	}
	var id [20]byte
	return AppendEnd(dst, strconv.AppendUint(id[:0], e.ID, 10))
}

// AppendEnd ends a block with the cursor that it leaves the client at, or
// without one if that is empty.
func AppendEnd(dst []byte, cursor []byte) []byte {
	if len(cursor) > 0 {
		dst = append(dst, "id: "...)
		dst = append(append(dst, cursor...), '\n')
	}
	return append(dst, '\n')
}

// KeepAlive is a comment that shows both ends that the connection lives. No
// empty line follows: some clients would take it for the end of a block.
const KeepAlive = ":\n"

// Control is a block that the server itself has to say something with.
type Control struct {
	Type  string // begins with "feed."
	Data  string // JSON on one line
	ID    string // the cursor of the subscription from here on; empty to leave it
	Retry time.Duration
}

// Append appends the block to dst. A Retry of 0 is left out.
func (c Control) Append(dst []byte) []byte {
	if c.Retry > 0 {
		dst = AppendRetry(dst, c.Retry)
	}
	dst = appendField(dst, "event: ", c.Type)
	dst = appendData(dst, c.Data)
	return AppendEnd(dst, []byte(c.ID))
}

// AppendRetry appends the line that tells a client how long to wait, in whole
// milliseconds, before it connects again.
func AppendRetry(dst []byte, d time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, d.Milliseconds(), 10)
	return append(dst, '\n')
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, '\n')
}

// appendData appends a data line for every line of data. Published data has
// LF alone; a store that others write to might hold a CR, and a client would
// read what follows it as a field of its own.
func appendData(dst []byte, data string) []byte {
	if strings.IndexByte(data, '\r') >= 0 {
		data = strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n")
	}
	for {
		line, rest, more := strings.Cut(data, "\n")
		dst = appendField(dst, "data: ", line)
		if !more {
			return dst
		}
		data = rest
	}
}

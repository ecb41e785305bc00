// Package sse writes Server-Sent Events, as the HTML Living Standard defines them
// (section 9.2.6, "Interpreting an event stream"). The id comes last in its block: some
// clients move their cursor as soon as they have read that line, and would lose the
// event if the connection broke in the middle of it.
package sse

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

// The encodings of a feed's events as blocks of an event stream: Blocks has the published
// data, Envelopes has envelopes, and Unfinished has envelopes without the end of the
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

// appendEventEnd ends the block of an event. An event that is not stored has no id, so
// the client's cursor does not move.
func appendEventEnd(dst []byte, e *feed.Event) []byte {
	if e.ID == 0 {
		return append(dst, '\n')
	}
	var id [20]byte
	return AppendEnd(dst, e.ID.Append(id[:0]))
}

// AppendEnd ends a block with the client's cursor after it. An empty cursor is omitted.
func AppendEnd(dst []byte, cursor []byte) []byte {
	if len(cursor) > 0 {
		dst = append(dst, "id: "...)
		dst = append(append(dst, cursor...), '\n')
	}
	return append(dst, '\n')
}

// KeepAlive is a comment that keeps the connection alive. No empty line follows, because
// some clients would take it for the end of a block.
const KeepAlive = ":\n"

// Control is an event of the server itself.
type Control struct {
	Type  string // begins with "feed."
	Data  string // JSON on one line
	ID    string // the subscription's cursor after the event; empty to leave it unchanged
	Retry time.Duration
}

// Append appends the block to dst. It omits a Retry of 0.
func (c Control) Append(dst []byte) []byte {
	const around = len("retry: 1000000\nevent: \ndata: \nid: \n\n")
	dst = slices.Grow(dst, around+len(c.Type)+len(c.Data)+len(c.ID))
	if c.Retry > 0 {
		dst = AppendRetry(dst, c.Retry)
	}
	dst = appendField(dst, "event: ", c.Type)
	dst = appendData(dst, c.Data)
	return AppendEnd(dst, []byte(c.ID))
}

// AppendRetry appends the line with the time after which the client reconnects, in
// milliseconds.
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

// appendData appends a data line for every line of data. The publisher leaves no CR in
// data, but other programs may write to the store, and a client would take the text
// after a CR for another field.
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

package server

import (
	"encoding/json"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
	"github.com/rejoin/rejoin/server/sse"
)

// controlEvent is what the server itself has to say in a stream.
type controlEvent struct {
	kind   string // begins with "feed."
	feed   string // that it is about; empty if it is about all
	data   any
	cursor string        // of the whole subscription from here on; empty to leave it
	retry  time.Duration // how long to wait before coming back; 0 to say nothing
}

// streamFormat is how a stream looks on the wire.
type streamFormat interface {
	contentType() []string // the field's values, not to be changed
	// events returns the encoding of a feed's events. Of a stream of many
	// feeds, appendID has to follow each of them that has an id.
	events(r subscribeRequest) feed.Encoding
	appendID(dst []byte, cursor []byte) []byte
	// ephemeral returns the encoding of the ephemeral events of many feeds, which
	// nothing follows.
	ephemeral(inChunks bool) feed.Encoding
	appendControl(dst []byte, c controlEvent) []byte
	keepAlive() []byte
}

// sseFormat is the form of Server-Sent Events.
type sseFormat struct{}

func (sseFormat) contentType() []string { return eventStreamType }

var eventStreamType = []string{"text/event-stream; charset=utf-8"}

func (sseFormat) events(r subscribeRequest) feed.Encoding {
	switch {
	case r.many:
		return sse.Unfinished
	case r.envelope:
		return sse.Envelopes
	}
	return sse.Blocks
}

func (sseFormat) appendID(dst []byte, cursor []byte) []byte { return sse.AppendEnd(dst, cursor) }

func (sseFormat) ephemeral(inChunks bool) feed.Encoding {
	if inChunks {
		return chunkedEnvelopes
	}
	return sse.Envelopes
}

func (sseFormat) appendControl(dst []byte, c controlEvent) []byte {
	return sse.Control{Type: c.kind, Data: string(marshal(c.data)), ID: c.cursor, Retry: c.retry}.Append(dst)
}

func (sseFormat) keepAlive() []byte { return keepAliveComment }

var keepAliveComment = []byte(sse.KeepAlive)

// ndjsonFormat is the form of lines of JSON, an envelope or a control event each.
type ndjsonFormat struct{}

func (ndjsonFormat) contentType() []string { return lineStreamType }

var lineStreamType = []string{"application/x-ndjson; charset=utf-8"}

func (ndjsonFormat) events(subscribeRequest) feed.Encoding { return envelopeLines{} }

func (ndjsonFormat) appendID(dst []byte, _ []byte) []byte { return dst }

func (ndjsonFormat) ephemeral(inChunks bool) feed.Encoding {
	if inChunks {
		return chunkedLines
	}
	return envelopeLines{}
}

func (ndjsonFormat) appendControl(dst []byte, c controlEvent) []byte {
	return append(append(dst, marshal(struct {
		Feed   string `json:"feed,omitempty"`
		Type   string `json:"type"`
		Cursor string `json:"cursor,omitempty"`
		Data   any    `json:"data"`
	}{c.feed, c.kind, c.cursor, c.data})...), '\n')
}

func (ndjsonFormat) keepAlive() []byte { return emptyLine }

var emptyLine = []byte("\n")

// envelopeLines is the encoding of events as lines of JSON.
type envelopeLines struct{}

func (envelopeLines) Encode(dst []byte, e *feed.Event) []byte {
	return append(envelope.Append(dst, e), '\n')
}

// marshal encodes a plain struct of our own.
func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

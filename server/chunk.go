package server

import (
	"strconv"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// The chunked transfer coding (RFC 9112, section 7.1), for streams that net/http
// does not carry.

// chunkHead is as long as the head of a chunk becomes: an event, or a piece, has
// fewer than 16^6 bytes by far.
const chunkHead = 6 + len("\r\n")

// lastChunk says that all has been said.
const lastChunk = "0\r\n\r\n"

// chunked is an encoding whose events are a chunk each, so that subscribers share
// the framing, too.
type chunked struct{ encoding feed.Encoding }

func inChunks(e feed.Encoding) feed.Encoding {
	switch e {
	case sse.Blocks:
		return chunkedBlocks
	case sse.Envelopes:
		return chunkedEnvelopes
	case envelopeLines{}:
		return chunkedLines
	}
	return chunked{e}
}

// All streams of a kind share one of these.
var (
	chunkedBlocks    feed.Encoding = chunked{sse.Blocks}
	chunkedEnvelopes feed.Encoding = chunked{sse.Envelopes}
	chunkedLines     feed.Encoding = chunked{envelopeLines{}}
)

// Encode implements [feed.Encoding].
func (c chunked) Encode(dst []byte, e *feed.Event) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, chunkHead)...)
	dst = c.encoding.Encode(dst, e)
	return endChunk(dst, start)
}

// appendChunk appends b as a chunk; none if it is empty, which would be the last
// chunk.
func appendChunk(dst, b []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, chunkHead)...)
	return endChunk(append(dst, b...), start)
}

// endChunk makes a chunk of what was appended to dst since start, where there is
// room for a head.
func endChunk(dst []byte, start int) []byte {
	content := dst[start+chunkHead:]
	if len(content) == 0 {
		return dst[:start]
	}
	head := strconv.AppendUint(dst[start:start], uint64(len(content)), 16)
	head = append(head, "\r\n"...)
	n := copy(dst[start+len(head):], content)
	return append(dst[:start+len(head)+n], "\r\n"...)
}

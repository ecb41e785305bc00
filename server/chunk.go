package server

import (
	"strconv"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// The chunked transfer coding (RFC 9112, section 7.1), for streams that the engine
// writes.

// chunkHead is the longest head of a chunk: pieces and events have far fewer than 16^6
// bytes.
const chunkHead = 6 + len("\r\n")

// lastChunk ends a response.
const lastChunk = "0\r\n\r\n"

// chunked encodes each event as a chunk, so that subscribers share the framing, too.
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

// Shared by all streams.
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

// appendChunk appends b as a chunk. It appends nothing for an empty b, which would make
// the last chunk.
func appendChunk(dst, b []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, chunkHead)...)
	return endChunk(append(dst, b...), start)
}

// endChunk makes a chunk of the bytes appended to dst after start, where the caller has
// left room for a head.
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

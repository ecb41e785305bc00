package h2

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/http2"
)

func appendHead(dst []byte, length int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	dst = append(dst, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(dst, id)
}

// appendData appends b as DATA frames, of which the last ends the stream if end.
func appendData(dst []byte, id uint32, b []byte, end bool) []byte {
	dst = slices.Grow(dst, len(b)+frameHead)
	for {
		part := b[:min(len(b), frameBytes)]
		b = b[len(part):]
		var flags http2.Flags
		if end && len(b) == 0 {
			flags = http2.FlagDataEndStream
		}
		dst = append(appendHead(dst, len(part), http2.FrameData, flags, id), part...)
		if len(b) == 0 {
			return dst
		}
	}
}

func appendReset(dst []byte, id uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendHead(dst, 4, http2.FrameRSTStream, 0, id), uint32(code))
}

func appendGoAway(dst []byte, last uint32, code http2.ErrCode) []byte {
	dst = binary.BigEndian.AppendUint32(appendHead(dst, 8, http2.FrameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendPing(dst []byte, ack bool, data [8]byte) []byte {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	return append(appendHead(dst, 8, http2.FramePing, flags, 0), data[:]...)
}

func appendWindowUpdate(dst []byte, id uint32, n int32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(dst, 4, http2.FrameWindowUpdate, 0, id), uint32(n))
}

// frames returns a block as frames.
func frames(id uint32, block []byte, end bool) []byte {
	kind, out := http2.FrameHeaders, make([]byte, 0, len(block)+frameHead)
	var flags http2.Flags
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		part := block[:min(len(block), frameBytes)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		out = append(appendHead(out, len(part), kind, flags, id), part...)
		if len(block) == 0 {
			return out
		}
		kind, flags = http2.FrameContinuation, 0
	}
}

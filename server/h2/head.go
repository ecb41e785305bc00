package h2

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// encodeHead returns the HEADERS frame of an answer, and those that continue it. With
// the status 0, they are trailers.
//
// The fields are neither compressed nor put into the client's table, which costs the
// server less than it saves: a stream has one head.
func encodeHead(id uint32, status int, header http.Header, end bool) []byte {
	b := make([]byte, frameHead, 320)
	b = append(b, noTable)
	if status != 0 {
		b = appendStatus(b, status)
	}
	for name, values := range header {
		encoded, known := encodedNames[name]
		if !known {
			if name = strings.ToLower(name); connectionOnly(name) {
				continue
			}
			encoded = encodeName(name)
		}
		for _, value := range values {
			b = appendText(append(b, encoded...), lineBreaks.Replace(value))
		}
	}
	if status >= http.StatusOK && header["Date"] == nil {
		b = append(append(b, encodedNames["Date"]...), byte(len(http.TimeFormat)))
		b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	}
	block := b[frameHead:]
	if len(block) > frameBytes {
		return frames(id, block, end)
	}
	flags := http2.FlagHeadersEndHeaders
	if end {
		flags |= http2.FlagHeadersEndStream
	}
	appendHead(b[:0], len(block), http2.FrameHeaders, flags, id)
	return b
}

// noTable empties the client's table (RFC 7541, section 6.3). A client may have asked for
// a smaller table, and then waits for this before its next head.
const noTable = 0x20

// appendStatus appends the field :status (RFC 7541, appendix A).
func appendStatus(b []byte, status int) []byte {
	const ofStatus = 8
	for i, known := range []int{200, 204, 206, 304, 400, 404, 500} {
		if status == known {
			return append(b, 0x80|byte(ofStatus+i))
		}
	}
	return appendText(append(b, ofStatus), strconv.Itoa(status))
}

// appendText appends a text without Huffman coding (RFC 7541, section 5.2).
func appendText(b []byte, text string) []byte {
	const most = 1<<7 - 1
	if len(text) < most {
		b = append(b, byte(len(text)))
	} else {
		b = binary.AppendUvarint(append(b, most), uint64(len(text)-most))
	}
	return append(b, text...)
}

// encodeName returns the beginning of a field that is not put into the table (RFC 7541,
// section 6.2.2).
func encodeName(lower string) string { return string(appendText([]byte{0}, lower)) }

// encodedNames holds the beginnings of most fields, by their names.
var encodedNames = func() map[string]string {
	names := make(map[string]string)
	for _, name := range []string{
		"Access-Control-Allow-Credentials", "Access-Control-Expose-Headers", "X-Accel-Buffering", "X-Content-Type-Options", "X-Request-Id",
	} {
		names[name] = encodeName(strings.ToLower(name))
	}
	for name, index := range map[string]byte{
		"Access-Control-Allow-Origin": 20, "Cache-Control": 24, "Content-Length": 28, "Content-Type": 31,
		"Date": 33, "Etag": 34, "Link": 45, "Location": 46, "Retry-After": 53, "Vary": 59,
	} {
		const most = 1<<4 - 1
		names[name] = string([]byte{most, index - most})
	}
	return names
}()

// lineBreaks keeps the value of a field on its line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// connectionOnly reports whether a field, whose name is in lower case, is about an
// HTTP/1.1 connection. HTTP/2 has none of them.
func connectionOnly(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

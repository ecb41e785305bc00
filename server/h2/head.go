package h2

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// headEncoder encodes heads that leave no trace in the client's table.
type headEncoder struct {
	block bytes.Buffer
	hpack *hpack.Encoder
}

var headEncoders = sync.Pool{New: func() any {
	e := &headEncoder{}
	e.hpack = hpack.NewEncoder(&e.block)
	e.hpack.SetMaxDynamicTableSize(0)
	return e
}}

// encodeHead returns the HEADERS frame of an answer, and those that continue it. With
// the status 0, they are trailers.
func encodeHead(id uint32, status int, header http.Header, end bool) []byte {
	e := headEncoders.Get().(*headEncoder)
	defer headEncoders.Put(e)
	e.block.Reset()
	if status != 0 {
		e.field(":status", strconv.Itoa(status))
	}
	for name, values := range header {
		if name = lower(name); connectionOnly(name) {
			continue
		}
		for _, value := range values {
			e.field(name, lineBreaks.Replace(value))
		}
	}
	return frames(id, e.block.Bytes(), end)
}

func (e *headEncoder) field(name, value string) {
	_ = e.hpack.WriteField(hpack.HeaderField{Name: name, Value: value}) // a buffer takes everything
}

// lineBreaks keeps the value of a field on its line, as net/http does.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// lower returns the name of a field as HTTP/2 wants it. Most are in the table.
func lower(name string) string {
	if known, ok := lowerNames[name]; ok {
		return known
	}
	return strings.ToLower(name)
}

var lowerNames = func() map[string]string {
	names := make(map[string]string)
	for _, name := range []string{
		"Access-Control-Allow-Credentials", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
		"Cache-Control", "Content-Length", "Content-Type", "Date", "Etag", "Link", "Location", "Retry-After",
		"Vary", "X-Accel-Buffering", "X-Content-Type-Options", "X-Request-Id",
	} {
		names[name] = strings.ToLower(name)
	}
	return names
}()

// connectionOnly reports whether a field, whose name is in lower case, is about an
// HTTP/1.1 connection. HTTP/2 has none of them.
func connectionOnly(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

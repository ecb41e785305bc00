package h2

import (
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// readHead is the head of a request, or the trailers behind its body. It is valid until
// the next one is read.
type readHead struct {
	id         uint32
	ends       bool   // the request ends with it
	dependsOn  uint32 // a stream; 0 for none
	pseudo     pseudoFields
	fields     []hpack.HeaderField // the others
	room       int                 // bytes of fields that may follow
	incomplete bool                // there were more fields than that
	malformed  bool
}

// pseudoFields are the fields whose names begin with a colon.
type pseudoFields struct{ method, scheme, path, authority string }

// readHead reads a head that begins with frame. All of it is in the parser's input.
func (p *parser) readHead(c *Conn, frame *http2.HeadersFrame) (*readHead, error) {
	h := &p.head
	clear(h.fields) // they would stay in memory
	*h = readHead{id: frame.StreamID, ends: frame.StreamEnded(), fields: h.fields[:0], room: c.server.options.HeadBytes}
	if frame.HasPriority() {
		h.dependsOn = frame.Priority.StreamDep
	}
	c.decoder.SetEmitFunc(p.emit)
	defer c.decoder.SetEmitFunc(ignoreField)
	c.decoder.SetEmitEnabled(true)
	fragment, ended := frame.HeaderBlockFragment(), frame.HeadersEnded()
	for {
		if _, err := c.decoder.Write(fragment); err != nil {
			return nil, http2.ConnectionError(http2.ErrCodeCompression)
		}
		if ended {
			break
		}
		next, err := p.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		if h.malformed || h.incomplete {
			return nil, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm) // no client has so much to say
		}
		more := next.(*http2.ContinuationFrame) // as the framer has checked
		fragment, ended = more.HeaderBlockFragment(), more.HeadersEnded()
	}
	if err := c.decoder.Close(); err != nil {
		return nil, http2.ConnectionError(http2.ErrCodeCompression)
	}
	if h.malformed {
		return nil, http2.StreamError{StreamID: h.id, Code: http2.ErrCodeProtocol}
	}
	return h, nil
}

func ignoreField(hpack.HeaderField) {}

// add adds a field, unless the head is malformed or too large.
func (h *readHead) add(f hpack.HeaderField) {
	if h.malformed || h.incomplete {
		return
	}
	if h.room -= int(f.Size()); h.room < 0 {
		h.incomplete = true
		return
	}
	switch {
	case !httpguts.ValidHeaderFieldValue(f.Value):
		h.malformed = true
	case strings.HasPrefix(f.Name, ":"):
		h.malformed = len(h.fields) > 0 || !h.pseudo.set(f)
	case !validName(f.Name):
		h.malformed = true
	default:
		h.fields = append(h.fields, f)
	}
}

// validName reports whether a field may have this name, which HTTP/2 has in lower case.
func validName(name string) bool {
	return httpguts.ValidHeaderFieldName(name) && strings.ToLower(name) == name
}

// set sets a field. It reports false if a request has no such field, or has it already, or
// if it is empty where it must not be.
func (p *pseudoFields) set(f hpack.HeaderField) bool {
	to := &p.authority
	switch f.Name {
	case ":method":
		to = &p.method
	case ":scheme":
		to = &p.scheme
	case ":path":
		to = &p.path
	case ":authority":
	default:
		return false
	}
	if *to != "" {
		return false
	}
	*to = f.Value
	return true
}

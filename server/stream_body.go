package server

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// streamedEvent is an event of a streamed body.
type streamedEvent struct {
	draft feed.Draft
	line  int // on which it begins, from 1
}

// bodyParser parses a streamed body piece by piece. It calls take with each event that
// is complete. It holds one event at most, and no more of that than the size limit.
type bodyParser struct {
	feed      string
	eventType string // of events without a type
	lines     bool   // each line is a JSON object; otherwise the body is an event stream
	limit     int    // on the bytes of an event's data
	take      func(streamedEvent) error

	rest   []byte // the beginning of the line at hand
	number int    // of the last complete line
	skipLF bool   // the last line ended with CR, and LF may follow

	// The block at hand.
	data    []byte
	hasData bool
	kind    string
	begins  int // its first line; 0 before that
	strange int // a line of a block without data; 0 for none
}

var byteOrderMark = []byte("\uFEFF")

// lineLimit is the limit on the bytes of a line.
func (p *bodyParser) lineLimit() int {
	if p.lines {
		return 6*p.limit + 1<<10 // \u0041 is one byte of text
	}
	return p.limit + len("data: ")
}

// write parses the next piece of the body. Its errors are those of take, and lineErrors
// that wrap feed.ErrInvalid or feed.ErrTooLarge.
func (p *bodyParser) write(piece []byte) error {
	for len(piece) > 0 {
		if p.skipLF {
			p.skipLF = false
			if piece[0] == '\n' {
				piece = piece[1:]
				continue
			}
		}
		n := p.lineEnd(piece)
		if len(p.rest)+max(n, 0) > p.lineLimit() || n < 0 && len(p.rest)+len(piece) > p.lineLimit() {
			return &lineError{p.number + 1, fmt.Errorf("%w: it has more than %d bytes", feed.ErrTooLarge, p.lineLimit())}
		}
		if n < 0 {
			p.rest = append(p.rest, piece...)
			return nil
		}
		line := piece[:n]
		if len(p.rest) > 0 {
			p.rest = append(p.rest, line...)
			line = p.rest
		}
		p.skipLF = piece[n] == '\r'
		piece = piece[n+1:]
		if err := p.line(line); err != nil {
			return err
		}
		p.rest = reuse(p.rest)
	}
	return nil
}

// lineEnd returns where the first line ends, or -1.
func (p *bodyParser) lineEnd(piece []byte) int {
	n := bytes.IndexByte(piece, '\n')
	if p.lines {
		return n
	}
	before := piece
	if n >= 0 {
		before = piece[:n]
	}
	if cr := bytes.IndexByte(before, '\r'); cr >= 0 {
		return cr
	}
	return n
}

// end parses what is left at the end of a complete body.
func (p *bodyParser) end() error {
	if len(p.rest) > 0 {
		if err := p.line(p.rest); err != nil {
			return err
		}
		p.rest = nil
	}
	return p.endBlock()
}

func (p *bodyParser) line(line []byte) error {
	p.number++
	if p.number == 1 && !p.lines {
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	var err error
	switch {
	case p.lines:
		err = p.jsonLine(line)
	case len(line) == 0:
		return p.endBlock()
	case !utf8.Valid(line) || bytes.IndexByte(line, 0) >= 0:
		err = &lineError{p.number, invalid("it is not UTF-8 without NUL")}
	case line[0] != ':':
		err = p.field(line)
	}
	return err
}

func (p *bodyParser) jsonLine(line []byte) error {
	if len(bytes.Trim(line, jsonSpace)) == 0 {
		return nil
	}
	m, err := parseObject(line)
	if err == nil && m.feed != nil {
		err = invalid("the address has the feed; a line of a stream names none")
	}
	var d feed.Draft
	if err == nil {
		d, err = m.draft(p.feed)
	}
	if err != nil {
		return &lineError{p.number, err}
	}
	if m.eventType == nil {
		d.Type = p.eventType
	}
	return p.take(streamedEvent{d, p.number})
}

// field takes a line of a block that is not a comment.
func (p *bodyParser) field(line []byte) error {
	if p.begins == 0 {
		p.begins = p.number
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if p.hasData {
			p.data = append(p.data, '\n')
		}
		if len(p.data)+len(value) > p.limit {
			return &lineError{p.begins, fmt.Errorf("%w: the data has more than %d bytes", feed.ErrTooLarge, p.limit)}
		}
		p.data, p.hasData = append(p.data, value...), true
	case "event":
		if err := feed.CheckType(string(value)); err != nil {
			return &lineError{p.number, err}
		}
		p.kind = string(value)
	}
	return nil
}

// endBlock takes the event of a block. A block without data is none.
func (p *bodyParser) endBlock() error {
	e := streamedEvent{feed.Draft{Feed: p.feed, Type: p.eventType, Data: string(p.data)}, p.begins}
	if p.kind != "" {
		e.draft.Type = p.kind
	}
	hasData := p.hasData
	if !hasData && p.begins > 0 && p.strange == 0 {
		p.strange = p.begins
	}
	p.data, p.hasData, p.kind, p.begins = reuse(p.data), false, "", 0
	if !hasData {
		return nil
	}
	return p.take(e)
}

// held returns how many bytes the parser has in memory.
func (p *bodyParser) held() int { return cap(p.rest) + cap(p.data) }

// reuse returns the empty buffer, or none in place of a large one: most lines are short.
func reuse(b []byte) []byte {
	if cap(b) > 4<<10 {
		return nil
	}
	return b[:0]
}

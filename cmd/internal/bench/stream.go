package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// errEnded is a stream that ended as a response ends.
var errEnded = errors.New("the stream ended")

// event is an event of this run as it comes out of a stream.
type event struct {
	feed   int    // number of the feed, from 0
	number uint64 // in its feed, from 1, in the order of publishing
	due    time.Duration
	id     []byte
}

// SmallestEvent is the size of the data that has room for the marks: the run's,
// the three numbers and spaces.
const SmallestEvent = 60

// appendData appends the data of an event: its marks, filled up to size.
func (e *event) appendData(to []byte, mark string, size int) []byte {
	begin := len(to)
	to = append(to, mark...)
	to = strconv.AppendInt(append(to, ' '), int64(e.feed), 10)
	to = strconv.AppendUint(append(to, ' '), e.number, 10)
	to = strconv.AppendInt(append(to, ' '), int64(e.due), 10)
	to = append(to, ' ')
	for len(to)-begin < size {
		to = append(to, 'x')
	}
	return to
}

// parseData reads what appendData wrote.
func (e *event) parseData(data []byte, mark string) bool {
	if len(data) < len(mark) || string(data[:len(mark)]) != mark {
		return false
	}
	data = data[len(mark):]
	var numbers [3]uint64
	for i := range numbers {
		if len(data) == 0 || data[0] != ' ' {
			return false
		}
		var digits int
		if numbers[i], digits = leadingNumber(data[1:]); digits == 0 {
			return false
		}
		data = data[1+digits:]
	}
	e.feed, e.number, e.due = int(numbers[0]), numbers[1], time.Duration(numbers[2])
	return true
}

// leadingNumber reads the digits that text begins with.
func leadingNumber(text []byte) (n uint64, digits int) {
	for digits < len(text) && digits < 19 && text[digits] >= '0' && text[digits] <= '9' {
		n = n*10 + uint64(text[digits]-'0')
		digits++
	}
	return n, digits
}

// stream parses the body of one event stream, where it lies: it allocates
// only for lines that do not come in one piece.
type stream struct {
	mark    string // of this run's data
	chunked bool
	deliver func(*event) // what it is given is good until it returns
	stray   func()       // for data that is not of this run

	chunk chunkPart
	left  int    // bytes of the chunk yet to come, or its size as far as it is read
	carry []byte // the line so far

	// Of the block so far:
	event        event
	id           []byte
	found, other bool // it has data of this run, other data
	control      bool // it is not an event of the feed
}

type chunkPart uint8

const (
	chunkSize chunkPart = iota
	chunkExtension
	chunkData
	chunkEnd
)

var errLongLine = errors.New("a line of the stream is longer than a mebibyte")

// take parses what came next. It returns errEnded at the end of a chunked body.
func (s *stream) take(p []byte) error {
	if !s.chunked {
		return s.lines(p)
	}
	for len(p) > 0 {
		switch s.chunk {
		case chunkData:
			n := min(s.left, len(p))
			if err := s.lines(p[:n]); err != nil {
				return err
			}
			p, s.left = p[n:], s.left-n
			if s.left == 0 {
				s.chunk = chunkEnd
			}
		case chunkEnd:
			if p[0] == '\n' {
				s.chunk = chunkSize
			}
			p = p[1:]
		default:
			if err := s.size(p[0]); err != nil {
				return err
			}
			p = p[1:]
		}
	}
	return nil
}

// size takes one byte of the line before a chunk.
func (s *stream) size(c byte) error {
	digit := -1
	switch {
	case c >= '0' && c <= '9':
		digit = int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		digit = int(c|0x20-'a') + 10
	}
	switch {
	case c == '\n' && s.left == 0:
		return errEnded
	case c == '\n':
		s.chunk = chunkData
	case s.chunk == chunkExtension:
	case digit >= 0 && s.left < 1<<40:
		s.left = s.left<<4 | digit
	case c == ';' || c == '\r' || c == ' ':
		s.chunk = chunkExtension
	default:
		return fmt.Errorf("the size of a chunk has %q in it", c)
	}
	return nil
}

// lines cuts the text into lines.
func (s *stream) lines(p []byte) error {
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			if s.carry = append(s.carry, p...); len(s.carry) > 1<<20 {
				return errLongLine
			}
			return nil
		}
		line := p[:end]
		p = p[end+1:]
		if len(s.carry) > 0 {
			s.carry = append(s.carry, line...)
			line = s.carry
		}
		s.line(bytes.TrimSuffix(line, []byte("\r")))
		s.carry = s.carry[:0]
	}
}

func (s *stream) line(line []byte) {
	if len(line) == 0 {
		s.block()
		return
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "data":
		if !s.found && s.event.parseData(value, s.mark) {
			s.found = true
		} else {
			s.other = true
		}
	case "id":
		s.id = append(s.id[:0], value...) // the buffer may be gone at the block's end
	case "event":
		s.control = bytes.HasPrefix(value, []byte("feed."))
	}
}

// block ends a block.
func (s *stream) block() {
	switch {
	case s.control:
	case s.found && !s.other:
		s.event.id = s.id
		s.deliver(&s.event)
	case s.other:
		s.stray()
	}
	s.id, s.found, s.other, s.control = s.id[:0], false, false, false
}

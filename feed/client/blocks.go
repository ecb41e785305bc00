package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// blockBytes bounds a block. Servers once took an event of 60,000 control
// characters, each of which takes six bytes in an envelope.
const blockBytes = 1 << 20

var errBlockTooLong = errors.New("a block of the stream has more than 1 MiB")

// block is one block of an event stream that has data. Clients in general carry
// the last id over to a block without one; a caller that counts ids must not.
type block struct {
	kind  string // empty for none
	data  string
	id    string
	hasID bool
}

// blockReader reads an event stream (HTML Living Standard, 9.2.6). What a cut
// leaves of a block is dropped, as there.
type blockReader struct {
	lines *bufio.Scanner
	retry time.Duration // the last one that was read
	tail  bool          // the last block needs no empty line
}

// Drafts yields the events of an event stream that is to be published: their types and
// data, as they come. The last one may lack its empty line. An error is the last thing
// that it yields.
func Drafts(r io.Reader) iter.Seq2[feed.Draft, error] {
	return func(yield func(feed.Draft, error) bool) {
		blocks := newBlockReader(r)
		blocks.tail = true
		for {
			b, err := blocks.next()
			if err == io.EOF || !yield(feed.Draft{Type: b.kind, Data: b.data}, err) || err != nil {
				return
			}
		}
	}
}

func newBlockReader(r io.Reader) *blockReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, blockBytes)
	return &blockReader{lines: lines}
}

// next returns the next block, io.EOF when the stream ends as a response does.
func (r *blockReader) next() (b block, err error) {
	var data []byte
	hasData := false
	for r.lines.Scan() {
		name, value, _ := bytes.Cut(r.lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if hasData {
				data = append(data, '\n')
			}
			if hasData = true; len(data)+len(value) > blockBytes {
				return b, errBlockTooLong
			}
			data = append(data, value...)
		case "event":
			b.kind = string(value)
		case "id":
			b.id, b.hasID = string(value), true
		case "retry":
			r.readRetry(string(value))
		case "":
			if len(r.lines.Bytes()) > 0 {
				continue // a comment
			}
			if hasData {
				b.data = string(data)
				return b, nil
			}
			b = block{}
		}
	}
	switch err := r.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return b, errBlockTooLong
	case err != nil:
		return b, err
	case r.tail && hasData:
		b.data = string(data)
		return b, nil
	}
	return b, io.EOF
}

func (r *blockReader) readRetry(value string) {
	if strings.Trim(value, "0123456789") != "" {
		return
	}
	if ms, err := strconv.ParseUint(value, 10, 32); err == nil {
		r.retry = time.Duration(ms) * time.Millisecond
	}
}

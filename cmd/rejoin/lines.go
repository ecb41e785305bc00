package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// line is a line of standard input without its end, or why there is none.
type line struct {
	number int // from 1
	data   string
	err    error
}

// lineReader reads events from lines of text.
type lineReader struct {
	in     io.Reader
	mend   bool // replace what no event can hold
	mended int  // how many lines had something replaced; for after all
}

// all yields each line as soon as it has been read, until the input ends or ctx
// does. An error is the last thing it yields.
func (r *lineReader) all(ctx context.Context) iter.Seq[line] {
	return func(yield func(line) bool) {
		lines := make(chan line)
		done := make(chan struct{})
		defer close(done)
		// A read from a terminal or a pipe cannot be called off: when ctx
		// ends in one, the reader is left to end with the process.
		go func() {
			defer close(lines)
			r.read(func(l line) bool {
				select {
				case lines <- l:
					return true
				case <-done:
					return false
				}
			})
		}()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case l, ok := <-lines:
				if !ok {
					return
				}
				r.check(&l)
				if ctx.Err() != nil {
					return // with the line: nothing would be sent of it
				}
				if !yield(l) || l.err != nil {
					return
				}
			}
		}
	}
}

// read hands lines to give until the input ends or give is not interested.
func (r *lineReader) read(give func(line) bool) {
	// Room for the largest line, its CR LF, and one byte to tell that it is
	// too long.
	buffered := bufio.NewReaderSize(r.in, feed.DefaultEventBytes+3)
	for number := 1; ; number++ {
		text, err := buffered.ReadSlice('\n')
		if err == io.EOF && len(text) == 0 {
			return
		}
		text = bytes.TrimSuffix(text, []byte("\n"))
		if err == nil {
			text = bytes.TrimSuffix(text, []byte("\r"))
		}
		switch {
		case len(text) > feed.DefaultEventBytes:
			err = fmt.Errorf("it has more than the %d bytes that an event can have", feed.DefaultEventBytes)
		case err == io.EOF:
			err = nil // the last line may lack its end; the next read says so again
		case err != nil:
			err = fmt.Errorf("read standard input: %w", err)
		}
		if !give(line{number, string(text), err}) || err != nil {
			return
		}
	}
}

func (r *lineReader) check(l *line) {
	if l.err != nil {
		return
	}
	data, err := checkData(l.data, r.mend)
	if err == nil && data != l.data {
		r.mended++
	}
	l.data, l.err = data, err
}

// checkData returns data if an event can hold it. With mend, it puts U+FFFD
// where it cannot.
func checkData(data string, mend bool) (string, error) {
	if utf8.ValidString(data) && strings.IndexByte(data, 0) < 0 {
		return data, nil
	}
	if !mend {
		// An event is for good, so it is not changed unasked.
		return "", errors.New("it is not UTF-8 text, or holds NUL; --mend publishes it with U+FFFD for such bytes")
	}
	return strings.ReplaceAll(strings.ToValidUTF8(data, "\uFFFD"), "\x00", "\uFFFD"), nil
}

package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// lines is a parsed batch.
type lines struct {
	drafts  []feed.Draft
	numbers []int // of each draft's line
}

// lineError is an error in one line of a batch. The first line has the number 1.
type lineError struct {
	number int
	err    error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.number, detailOf(e.err)) }
func (e *lineError) Unwrap() error { return e.err }

// feeds returns the feeds of the drafts, each once.
func (l lines) feeds() (names []string) {
	seen := make(map[string]bool, len(l.drafts))
	for _, d := range l.drafts {
		if !seen[d.Feed] {
			seen[d.Feed] = true
			names = append(names, d.Feed)
		}
	}
	return names
}

// blame turns an error about a draft into one about its line.
func (l lines) blame(err error) error {
	if bad, ok := errors.AsType[*feed.DraftError](err); ok {
		return &lineError{l.numbers[bad.Index], bad.Err}
	}
	if len(l.drafts) == 1 && (errors.Is(err, feed.ErrInvalid) || errors.Is(err, feed.ErrTooLarge)) {
		return &lineError{l.numbers[0], err}
	}
	return err
}

// parseLines parses a batch of up to limit events, one JSON object per line. A blank
// line counts as a line and has no event. If feedName is empty, each line names its
// feed.
func parseLines(body []byte, feedName string, limit int) (lines, error) {
	var l lines
	number := 0
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		number++
		if len(bytes.Trim(line, jsonSpace)) == 0 {
			continue
		}
		if len(l.drafts) == limit {
			return lines{}, fmt.Errorf("%w: the batch has more than %d events", feed.ErrTooLarge, limit)
		}
		draft, err := parseLine(line, feedName)
		if err != nil {
			return lines{}, &lineError{number, err}
		}
		l.drafts, l.numbers = append(l.drafts, draft), append(l.numbers, number)
	}
	if len(l.drafts) == 0 {
		return lines{}, invalid("the batch has no events")
	}
	return l, nil
}

func parseLine(line []byte, feedName string) (feed.Draft, error) {
	members, err := parseObject(line)
	if err != nil {
		return feed.Draft{}, err
	}
	return members.draft(feedName)
}

// draft returns the event that the members describe.
func (members *members) draft(feedName string) (d feed.Draft, err error) {
	d = feed.Draft{Feed: feedName}
	if members.eventType != nil {
		if d.Type, err = parseText("type", members.eventType); err != nil {
			return feed.Draft{}, err
		}
	}
	switch {
	case members.feed != nil:
		if d.Feed, err = parseText("feed", members.feed); err != nil {
			return feed.Draft{}, err
		}
		if feedName != "" && d.Feed != feedName {
			return feed.Draft{}, invalid("it is for the feed %.40q, but the batch is for %s", d.Feed, feedName)
		}
	case feedName == "":
		return feed.Draft{}, invalid(`the member "feed" is missing`)
	}
	switch {
	case members.data == nil:
		return feed.Draft{}, invalid(`the member "data" is missing`)
	case members.data[0] == '"':
		d.Data, err = parseText("data", members.data)
	default:
		d.Data, d.JSON = string(members.data), true
		err = checkDepth(d.Data)
	}
	return d, err
}

// members holds the JSON values of a line; nil means that a member is absent.
type members struct{ feed, eventType, data []byte }

// parseObject parses a line strictly: encoding/json would accept a name twice, and
// ignore its case.
func parseObject(line []byte) (m members, err error) {
	if !utf8.Valid(line) {
		return m, invalid("it is not UTF-8")
	}
	if !feed.ValidJSON(line) {
		return m, invalid("it is not JSON: %v", json.Unmarshal(line, new(json.RawMessage)))
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, jsonSpace), []byte("{"))
	if !ok {
		return m, invalid("it is not a JSON object")
	}
	for {
		var quoted, value []byte
		if quoted, rest = cutValue(rest); len(quoted) == 0 {
			return m, nil
		}
		value, rest = cutValue(rest)
		name, err := unquote(quoted)
		if err != nil {
			return m, err
		}
		member := m.named(name)
		switch {
		case member == nil:
			return m, invalid("the member %.40q is unknown", name)
		case *member != nil:
			return m, invalid("the member %q occurs twice", name)
		}
		*member = value
	}
}

func (m *members) named(name string) *[]byte {
	switch name {
	case "feed":
		return &m.feed
	case "type":
		return &m.eventType
	case "data":
		return &m.data
	}
	return nil
}

const jsonSpace = " \t\r"

// cutValue cuts the next name or value off the rest of an object in valid JSON. The
// value is empty at the end of the object.
func cutValue(s []byte) (value, rest []byte) {
	s = bytes.TrimLeft(s, jsonSpace+",:")
	n := 0
	switch s[0] {
	case '"':
		n = stringLen(s)
	case '{', '[':
		n = nestedLen(s)
	default:
		n = bytes.IndexAny(s, jsonSpace+",}")
	}
	return s[:n], s[n:]
}

func stringLen(s []byte) int {
	for i := 1; ; i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

func nestedLen(s []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch s[i] {
		case '"':
			i += stringLen(s[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

// parseText returns the text of a JSON string.
func parseText(name string, value []byte) (text string, err error) {
	if value[0] != '"' {
		return "", invalid("the member %q is not a string", name)
	}
	if halfCharacter(value) {
		return "", invalid("the member %q has an escape for half a character, which is not text", name)
	}
	if text, err = unquote(value); err != nil {
		return "", invalid("the member %q: %v", name, err)
	}
	return text, nil
}

// unquote returns the text of a valid JSON string in valid UTF-8.
func unquote(s []byte) (text string, err error) {
	if bytes.IndexByte(s, '\\') < 0 {
		return string(s[1 : len(s)-1]), nil
	}
	err = json.Unmarshal(s, &text)
	return text, err
}

// halfCharacter reports whether a JSON string has a surrogate without its other half,
// which encoding/json would replace by U+FFFD.
func halfCharacter(s []byte) bool {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return false
		}
		half, ok := escape(s[i:])
		if !ok {
			s = s[i+2:]
			continue
		}
		s = s[i+6:]
		if !utf16.IsSurrogate(half) {
			continue
		}
		other, ok := escape(s)
		if !ok || utf16.DecodeRune(half, other) == unicode.ReplacementChar {
			return true
		}
		s = s[6:]
	}
}

// escape parses \uXXXX at the start of s.
func escape(s []byte) (r rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}

// maxDepth limits how deep arrays and objects may be nested in data. Some parsers fail
// at about 500 levels, and then refuse the whole page that holds the event: one
// publisher could stop all readers.
const maxDepth = 500

// checkDepth returns an error if JSON is nested too deep.
func checkDepth(text string) error {
	if strings.Count(text, "[")+strings.Count(text, "{") <= maxDepth {
		return nil // it cannot be deeper than that, and counting is quick
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return invalid("the data is JSON that is nested deeper than %d levels", maxDepth)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

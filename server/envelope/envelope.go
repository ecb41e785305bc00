// Package envelope writes events as JSON objects with all of their fields, for pages,
// lines, and streams of several feeds.
package envelope

import (
	"strings"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Append appends the event to dst, on one line without its line break:
// {"feed","id","type","time","data"}. An event without a type has the type "message", as
// in a browser. The data is the published JSON value, or a string. An event that is not
// stored has no id.
func Append(dst []byte, e *feed.Event) []byte {
	dst = append(dst, `{"feed":`...)
	dst = appendString(dst, e.Feed)
	if e.ID != 0 {
		dst = append(dst, `,"id":`...)
		dst = e.ID.Append(dst)
	}
	dst = append(dst, `,"type":`...)
	if e.Type == "" {
		dst = append(dst, `"message"`...)
	} else {
		dst = appendString(dst, e.Type)
	}
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `","data":`...)
	if e.JSON {
		dst = appendJSON(dst, e.Data)
	} else {
		dst = appendString(dst, e.Data)
	}
	return append(dst, '}')
}

// appendJSON appends a JSON value on one line. In valid JSON, line breaks are only white
// space: those in strings are escaped.
func appendJSON(dst []byte, value string) []byte {
	start := len(dst)
	dst = append(dst, value...)
	if strings.IndexByte(value, '\n') < 0 && strings.IndexByte(value, '\r') < 0 {
		return dst
	}
	for i, c := range dst[start:] {
		if c == '\n' || c == '\r' {
			dst[start+i] = ' '
		}
	}
	return dst
}

// appendString appends s as a JSON string. It escapes U+2028 and U+2029, which some
// readers take for the end of a line, and replaces invalid UTF-8 by U+FFFD. Unlike
// encoding/json, it allocates nothing and does not escape HTML.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	plain := 0 // s[plain:i] needs no escapes and is not copied yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		r := rune(c)
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			bad := r == utf8.RuneError && size == 1
			if !bad && r != '\u2028' && r != '\u2029' {
				i += size
				continue
			}
		}
		dst = append(dst, s[plain:i]...)
		dst = appendEscaped(dst, r)
		i += size
		plain = i
	}
	dst = append(dst, s[plain:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

package feed

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultEventBytes is the size limit of one event, see [Draft].
const DefaultEventBytes = 60_000

// Event is one entry of a feed, as the store committed it. Events are values
// and never change: an id, once seen, means the same bytes everywhere.
type Event struct {
	Feed string
	ID   ID        // 1, 2, 3 … within the feed, without holes
	Type string    // empty for none, which a browser calls "message"
	Data string    // UTF-8 without NUL; line breaks are LF
	JSON bool      // Data was published as JSON, and is valid JSON
	Time time.Time // of the commit; UTC, whole milliseconds; never before the previous event's

	// Trace is the Trace of the event's Publication, where a [Bus] brings it, and empty
	// where a store does.
	Trace string
}

// Draft is an event that is yet to be stored: the store gives it id and time.
//
// [CheckWritable] tells which feeds a draft may have, and [CheckType] which types. Its data
// is UTF-8 without NUL; if JSON is set, valid JSON. The data is no larger than the limit
// of the publisher in the longest form in which a subscriber may ask for it:
// Server-Sent Events frame every line, so that a line break takes 7 bytes, and text in
// an envelope is a JSON string.
type Draft struct {
	Feed string
	Type string
	Data string
	JSON bool
}

// clean returns the draft as it is to be stored: line breaks become LF, the
// type "message" none. Its error wraps ErrInvalid or ErrTooLarge.
func (d Draft) clean(limit int) (Draft, error) {
	if err := CheckWritable(d.Feed); err != nil {
		return Draft{}, err
	}
	return d.cleanContent(limit)
}

// cleanContent is clean of all but the feed.
func (d Draft) cleanContent(limit int) (Draft, error) {
	if err := CheckType(d.Type); err != nil {
		return Draft{}, err
	}
	if d.Type == "message" {
		d.Type = ""
	}
	// The size comes first, before the data is looked through. Only CR LF shrinks,
	// by half at most.
	if len(d.Data) > 2*limit {
		return Draft{}, fmt.Errorf("%w: the data has %d bytes, the limit is %d", ErrTooLarge, len(d.Data), limit)
	}
	if i := invalidByte(d.Data); i >= 0 {
		return Draft{}, fmt.Errorf("%w: data must be UTF-8 without NUL, byte %d is not", ErrInvalid, i)
	}
	d.Data = lineFeeds(d.Data)
	if err := d.checkSize(limit); err != nil {
		return Draft{}, err
	}
	if d.JSON && !ValidJSON(d.Data) {
		return Draft{}, fmt.Errorf("%w: the data is not valid JSON", ErrInvalid)
	}
	return d, nil
}

// invalidByte returns the offset of the first byte that is NUL or not part of
// valid UTF-8, or -1.
func invalidByte(s string) int {
	nul := strings.IndexByte(s, 0)
	if utf8.ValidString(s) {
		return nul
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return nul
}

// lineFeeds turns CR LF and CR into LF, the only line break that survives
// Server-Sent Events as it is.
func lineFeeds(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// CheckName returns an error unless name can name a feed: 1 to 255 characters, a letter
// or digit first, then letters, digits and any of . _ : @ ~ -
// The error wraps ErrInvalid.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > 255 {
		return fmt.Errorf("%w: a feed name has 1 to 255 characters, not %d", ErrInvalid, len(name))
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && (i == 0 || strings.IndexByte("._:@~-", c) < 0) {
			return fmt.Errorf("%w: a feed name is a letter or digit, then letters, digits and . _ : @ ~ -; character %d of %s is not", ErrInvalid, i+1, quote(name))
		}
	}
	return nil
}

// CheckType returns an error unless t can be the type of a published event: none, or 1
// to 100 characters of letters, digits and . _ : / -
// Types that begin with "feed." belong to the server. "open" and "error" are refused
// because a browser passes them to the listeners for the state of its connection. The
// error wraps ErrInvalid.
func CheckType(t string) error {
	if len(t) > 100 {
		return fmt.Errorf("%w: an event type has at most 100 characters, not %d", ErrInvalid, len(t))
	}
	for i := range len(t) {
		if c := t[i]; !alphanumeric(c) && strings.IndexByte("._:/-", c) < 0 {
			return fmt.Errorf("%w: an event type is letters, digits and . _ : / -; character %d of %s is not", ErrInvalid, i+1, quote(t))
		}
	}
	switch {
	case strings.HasPrefix(t, "feed."):
		return fmt.Errorf("%w: event types that begin with \"feed.\" belong to the server", ErrInvalid)
	case t == "open" || t == "error":
		return fmt.Errorf("%w: event type %q would reach the connection listeners of a browser", ErrInvalid, t)
	}
	return nil
}

// CheckKey returns an error unless name can name an idempotency key: 1 to 255 visible
// ASCII characters. The error wraps ErrInvalid.
func CheckKey(name string) error {
	if len(name) == 0 || len(name) > 255 {
		return fmt.Errorf("%w: an idempotency key has 1 to 255 characters, not %d", ErrInvalid, len(name))
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' {
			return fmt.Errorf("%w: an idempotency key is visible ASCII; character %d of %s is not", ErrInvalid, i+1, quote(name))
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// quote shows a refused value in an error without repeating all of a huge one.
func quote(s string) string {
	const most = 40
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", bytes.ToValidUTF8([]byte(s[:most]), []byte("\uFFFD")))
}

package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// The readers of paths, queries and headers that several requests share. Their errors
// wrap feed.ErrInvalid.

// The query parameters of all routes. Others are ignored.
var (
	// listParams may occur several times, which is the same as commas between the
	// values.
	listParams = []string{"feed", "types", "control"}
	// singleParams may occur once: to choose one of two values would be a guess.
	singleParams = []string{
		"access_token", "after", "before", "close", "closed", "envelope", "ephemeral", "from", "gap", "heartbeat",
		"lastEventID", "lastEventId", "last_event_id", "limit", "prefix", "startIndex", "stream", "type", "wait",
	}
)

// feedName returns the name of the feed in the path.
func feedName(r *http.Request) (string, error) {
	name := pathParam(r, "feed")
	return name, feed.CheckName(name)
}

// writableName is feedName for requests that change the feed.
func writableName(r *http.Request) (string, error) {
	name := pathParam(r, "feed")
	return name, feed.CheckWritable(name)
}

// pathParam returns an unescaped part of the path, or the part as it is if it cannot be
// unescaped.
func pathParam(r *http.Request, name string) string {
	value := chi.URLParam(r, name)
	if unescaped, err := url.PathUnescape(value); err == nil {
		return unescaped
	}
	return value
}

// readQuery parses the query strictly: it refuses what it cannot parse. In its result,
// each parameter has one value.
func readQuery(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query cannot be read: %w", feed.ErrInvalid, err)
	}
	for _, name := range singleParams {
		if len(query[name]) > 1 {
			return nil, invalid("the query parameter %s is given more than once", name)
		}
	}
	for _, name := range listParams {
		if values := query[name]; len(values) > 1 {
			// An empty one counts as absent.
			values = slices.DeleteFunc(values, func(value string) bool { return value == "" })
			query.Set(name, strings.Join(values, ","))
		}
	}
	return query, nil
}

// refuse returns an error if the query has one of the parameters.
func refuse(query url.Values, why string, names ...string) error {
	for _, name := range names {
		if query.Has(name) {
			return invalid("%s %s", name, why)
		}
	}
	return nil
}

// readFlag returns the value of a query parameter that is true or false.
func readFlag(query url.Values, name string) (bool, error) {
	switch value := query.Get(name); {
	case !query.Has(name):
		return false, nil
	case value == "true" || value == "false":
		return value == "true", nil
	}
	return false, invalid("the query parameter %s is true or false", name)
}

// readID parses an id or a cursor.
func readID(name, value string) (feed.ID, error) {
	c, err := feed.ParseCursor(value)
	if err != nil {
		return 0, invalid("%s is a decimal number from 0 to %d without sign or leading zero, not %.40q", name, feed.MaxID, value)
	}
	return c, nil
}

// The default and the maximum of ?limit=, for pages and for lists of feeds.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

func readLimit(query url.Values) (int, error) {
	value := query.Get("limit")
	if value == "" {
		return defaultLimit, nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n < 1 || n > maxLimit {
		return 0, invalid("limit is a number from 1 to %d, not %.40q", maxLimit, value)
	}
	return int(n), nil
}

// readGap reports whether the client wants an error in place of a gap.
func readGap(query url.Values) (fails bool, err error) {
	switch value := query.Get("gap"); value {
	case "":
		return false, nil
	case "fail":
		return true, nil
	default:
		return false, invalid("gap is fail, or not given, not %.40q", value)
	}
}

// checkGap returns an error that wraps errGone if events are missing after the cursor.
func checkGap(c feed.ID, b feed.Bounds) error {
	switch {
	case c > b.Last:
		return fmt.Errorf("cursor %d is ahead of the feed, which ends with %d: what was there is %w", c, b.Last, errGone)
	case c+1 < b.First:
		return fmt.Errorf("what follows cursor %d is %w: the oldest event is %d", c, errGone, b.First)
	}
	return nil
}

// readFrom returns where the client starts in one feed: at its cursor if it sends one.
// If it does not say where, it starts at standard.
func readFrom(header http.Header, query url.Values, standard string) (feed.From, error) {
	if cursor := readCursor(header, query); cursor != "" {
		c, err := feed.ParseCursor(cursor)
		return feed.FromCursor(c), err
	}
	return feed.ParseFrom(valueOr(query.Get("from"), standard))
}

// cursorParams are the query parameters that hold a cursor. The first that has a value
// counts.
var cursorParams = []string{"lastEventId", "lastEventID", "last_event_id"}

// readCursor returns the client's cursor as text. The header wins over the query,
// because a browser's EventSource never changes its URL. An empty value counts as
// absent. Several headers form a list (RFC 9110, section 5.3), which is no cursor of one
// feed: choosing one of them could lose events.
func readCursor(header http.Header, query url.Values) string {
	values := header["Last-Event-Id"]
	if len(values) > 1 {
		values = slices.DeleteFunc(slices.Clone(values), func(cursor string) bool { return cursor == "" })
	}
	if cursor := strings.Join(values, ","); cursor != "" {
		return cursor
	}
	for _, name := range cursorParams {
		if cursor := query.Get(name); cursor != "" {
			return cursor
		}
	}
	return ""
}

// readHeader returns the value of a header that may occur once.
func readHeader(h http.Header, name string) (value string, given bool, err error) {
	values := h.Values(name)
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	}
	return "", true, invalid("the header %s is given more than once", name)
}

func valueOr(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{feed.ErrInvalid}, args...)...)
}

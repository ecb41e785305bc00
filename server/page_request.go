package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rejoin/rejoin/feed"
)

const (
	listLimit     = 100 // of a page and of a list of feeds
	listLimitMost = 1000
	pageWaitMost  = 60 * time.Second
)

// pageRequest is the part of a feed's history that a client asks for.
type pageRequest struct {
	feed     string
	query    url.Values
	backward bool // the events before an id; else those that follow from
	before   uint64
	from     feed.From // a client's cursor, if it has one: see feed.From.Cursor
	limit    int
	wait     time.Duration
	gapFails bool
}

func readPageRequest(r *http.Request) (q pageRequest, err error) {
	if q.feed, err = feedName(r); err != nil {
		return q, err
	}
	if q.query, err = readQuery(r); err != nil {
		return q, err
	}
	// Whoever asks for these would take the page for something that it is not.
	// heartbeat and envelope change nothing that anybody could rely on.
	if err := refuse(q.query, "is for streams, and a page has no such thing", "types", "control"); err != nil {
		return q, err
	}
	if q.limit, err = readLimit(q.query); err != nil {
		return q, err
	}
	if q.wait, err = readWait(q.query); err != nil {
		return q, err
	}
	if q.gapFails, err = readGap(q.query); err != nil {
		return q, err
	}
	return q, q.readStart(r.Header)
}

// readStart decides which events the client wants: those next to the id that it
// names as after or before, else those that a stream would begin with, else the
// oldest. Here, an empty value counts as none.
func (q *pageRequest) readStart(header http.Header) (err error) {
	after, before := q.query.Get("after"), q.query.Get("before")
	switch {
	case after != "" && before != "":
		return invalid("a page has after or before, not both")
	case before != "" && q.wait > 0:
		return invalid("wait is for what comes after, and before is given")
	case before != "":
		q.backward = true
		q.before, err = readNumber("before", before)
		return err
	case after != "":
		n, err := readNumber("after", after)
		q.from = feed.FromCursor(feed.Cursor(n))
		return err
	}
	if q.from, err = readFrom(header, q.query); err != nil {
		return err
	}
	if q.from == (feed.From{}) && q.query.Get("from") == "" {
		q.from = feed.FromStart()
	}
	return nil
}

// readNumber reads an id or a cursor.
func readNumber(name, value string) (uint64, error) {
	c, err := feed.ParseCursor(value)
	if err != nil {
		return 0, invalid("%s is a decimal number from 0 to %d without sign or leading zero, not %.40q", name, feed.MaxCursor, value)
	}
	return uint64(c), nil
}

func readLimit(query url.Values) (int, error) {
	value := query.Get("limit")
	if value == "" {
		return listLimit, nil
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n < 1 || n > listLimitMost {
		return 0, invalid("limit is a number from 1 to %d, not %.40q", listLimitMost, value)
	}
	return int(n), nil
}

// readWait returns how long the client wants to wait, brought into bounds.
func readWait(query url.Values) (time.Duration, error) {
	value := query.Get("wait")
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, invalid("wait is a time such as 30s, not %.40q", value)
	}
	return min(max(d, 0), pageWaitMost), nil
}

// readGap says whether a gap is to be an error.
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

// checkGap returns an error if events are missing behind the cursor.
func checkGap(c feed.Cursor, b feed.Bounds) error {
	switch {
	case uint64(c) > b.Last:
		return fmt.Errorf("cursor %d is ahead of the feed, which ends with %d: what was there is %w", c, b.Last, errGone)
	case uint64(c)+1 < b.First:
		return fmt.Errorf("what follows cursor %d is %w: the oldest event is %d", c, errGone, b.First)
	}
	return nil
}

package server

import (
	"net/http"
	"net/url"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// maxPageWait limits ?wait=.
const maxPageWait = 60 * time.Second

// pageRequest is a parsed request for a page.
type pageRequest struct {
	feed     string
	query    url.Values
	backward bool // the page has the events before an id, not those after from
	before   feed.ID
	from     feed.From
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
	// A client that sends these expects something else than a page. It may send
	// heartbeat and envelope, which would not change the events.
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

// readStart sets which events the page has: those next to the id in after or before,
// else those that a stream would begin with, else the oldest. An empty value counts as
// absent.
func (q *pageRequest) readStart(header http.Header) (err error) {
	after, before := q.query.Get("after"), q.query.Get("before")
	switch {
	case after != "" && before != "":
		return invalid("a page has after or before, not both")
	case before != "" && q.wait > 0:
		return invalid("wait cannot be combined with before")
	case before != "":
		q.backward = true
		q.before, err = readID("before", before)
		return err
	case after != "":
		n, err := readID("after", after)
		q.from = feed.FromCursor(n)
		return err
	}
	q.from, err = readFrom(header, q.query, "start")
	return err
}

// readWait returns how long the client wants to wait, within the limits.
func readWait(query url.Values) (time.Duration, error) {
	value := query.Get("wait")
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, invalid("wait is a time such as 30s, not %.40q", value)
	}
	return min(max(d, 0), maxPageWait), nil
}

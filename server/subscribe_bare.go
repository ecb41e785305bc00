package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// A bare stream is for clients that take every data: line for an event of the feed and
// ignore event:. So its data: lines have nothing but the events' data. Blocks without
// data, the status and the end of the stream replace the control events.

// subscribeBare answers with a bare stream of one feed: GET /v1/feeds/{feed}/stream.
func (s *Server) subscribeBare(w http.ResponseWriter, r *http.Request) {
	request, err := s.readSubscribeBare(r)
	s.answerSubscribe(w, r, request, err)
}

// closedAnswer is the answer to a request for a closed feed.
type closedAnswer int

const (
	closedDelivered closedAnswer = iota // 204 for a client that comes back with the last event
	closedInactive                      // 204 for any client, and also for a feed that was never written to
	closedEmpty                         // never 204, but a stream without events
)

// readSubscribeBare reads a request for a bare stream.
func (s *Server) readSubscribeBare(r *http.Request) (subscribeRequest, error) {
	name, err := feedName(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	request, query, err := s.readStream(r, bareFormat{})
	if err != nil {
		return subscribeRequest{}, err
	}
	if err := refuse(query, "adds control events, and a bare stream has none", "control"); err != nil {
		return subscribeRequest{}, err
	}
	request.gapFails = true
	if request.closed, err = readClosed(query); err != nil {
		return subscribeRequest{}, err
	}
	from, tellsTail, err := readBareFrom(r.Header, query)
	request.tellsTail = tellsTail
	request.subscriptions = []feed.SubscribeRequest{{Feed: name, From: from}}
	return request, err
}

func readClosed(query url.Values) (closedAnswer, error) {
	switch value := query.Get("closed"); value {
	case "":
		return closedDelivered, nil
	case "204":
		return closedInactive, nil
	case "200":
		return closedEmpty, nil
	default:
		return 0, invalid("closed is 204 or 200, not %.40q", value)
	}
}

// readBareFrom returns where the client starts. tellsTail is true if it counts from the
// end, and so needs to know where that is.
func readBareFrom(header http.Header, query url.Values) (from feed.From, tellsTail bool, err error) {
	index := query.Get("startIndex")
	if index == "" || readCursor(header, query) != "" {
		from, err = readFrom(header, query, "start")
		return from, false, err
	}
	number, tellsTail := strings.CutPrefix(index, "-")
	n, err := feed.ParseCursor(number)
	switch {
	case err != nil:
		return feed.From{}, false, invalid("startIndex is the number of events that the client has, or -N for the newest N, not %.40q", index)
	case tellsTail:
		return feed.FromNewest(uint64(n)), true, nil
	}
	return feed.FromCursor(n), false, nil
}

// tailIndexHeader is what a client that sends startIndex=-N counts from.
const tailIndexHeader = "X-Workflow-Stream-Tail-Index"

// setTailIndex sets the index of the newest event, counted from 0. It is -1 for a feed
// without one.
func setTailIndex(h http.Header, b feed.Bounds) {
	h.Set(tailIndexHeader, strconv.FormatInt(int64(b.Last)-1, 10))
}

// errUnwritten answers a request with closed=204 for a feed that was never written to.
// Its status is 204.
var errUnwritten = fmt.Errorf("%w: it was never written to", errDelivered)

// bareFormat is Server-Sent Events whose data is that of the feed's events alone.
type bareFormat struct{ sseFormat }

// appendControl appends a block without data, if the client has something to keep.
func (bareFormat) appendControl(dst []byte, c controlEvent) []byte {
	if c.cursor == "" {
		return dst
	}
	if c.retry > 0 {
		dst = sse.AppendRetry(dst, c.retry)
	}
	return sse.AppendEnd(dst, []byte(c.cursor))
}

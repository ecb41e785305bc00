package server

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// subscribeRequest is a parsed request for a stream.
type subscribeRequest struct {
	subscriptions []feed.SubscribeRequest
	many          bool // the request is to /v1/events, even if it names one feed
	format        streamFormat
	types         filter
	envelope      bool
	control       controlFlags
	gapFails      bool
	closed        closedAnswer
	tellsTail     bool // the head of the answer has the index of the newest event
	heartbeat     time.Duration
}

// controlFlags holds the control events that ?control= adds to a stream.
type controlFlags struct{ live, heartbeat bool }

// cost returns about how much more memory the stream takes than one of a single feed.
func (r subscribeRequest) cost() int { return len(r.types) + (len(r.subscriptions)-1)*feedCost }

// feedCost is about what one feed of a stream takes in memory.
const feedCost = 192

// errDelivered answers a client that has, or wants, nothing more of the feeds, which are
// closed. Its status, 204, stops an EventSource.
var errDelivered = errors.New("nothing more will come")

// check returns an error if there is nothing to stream: errDelivered, errUnwritten, or
// one that wraps errGone.
func (r subscribeRequest) check(subscriber *feed.Subscriber) error {
	delivered := r.closed != closedEmpty
	for i := range subscriber.Size() {
		sub := subscriber.At(i)
		switch b := sub.Bounds(); {
		case r.closed != closedInactive:
		case b.Closed:
			return errDelivered
		case b.Last == 0:
			return errUnwritten
		}
		if r.gapFails && sub.Gap() != nil {
			if err := checkGap(sub.Cursor(), sub.Bounds()); err != nil {
				return fmt.Errorf("%s: %w", sub.Feed(), err)
			}
		}
		_, resumed := r.subscriptions[i].From.Cursor()
		if b := sub.Bounds(); !resumed || !b.Closed || sub.Cursor() != b.Last {
			delivered = false
		}
	}
	if delivered {
		return errDelivered
	}
	return nil
}

// requestedFormat returns the format of the stream that the client accepts, or nil if
// it wants a page.
func requestedFormat(r *http.Request) streamFormat {
	lines, page := preference(r, "application/x-ndjson"), preference(r, "application/json")
	switch {
	case accepts(r, "text/event-stream"):
		return sseFormat{}
	case lines > 0 && lines >= page:
		return ndjsonFormat{}
	case page > 0:
		return nil
	}
	return sseFormat{}
}

// accepts reports whether the Accept header names the media type itself.
func accepts(r *http.Request, mediaType string) bool { return preference(r, mediaType) > 0 }

// preference returns the weight that the Accept header gives the media type itself,
// from 0 to 1 (RFC 9110, section 12.5.1).
func preference(r *http.Request, mediaType string) (weight float64) {
	for _, header := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(header, ",") {
			// Parsing is slow, so it is for the items that matter.
			t, _, more := strings.Cut(item, ";")
			if !strings.EqualFold(strings.TrimSpace(t), mediaType) {
				continue
			}
			if !more {
				return 1
			}
			_, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			q, err := strconv.ParseFloat(valueOr(params["q"], "1"), 64)
			if err == nil && q <= 1 {
				weight = max(weight, q)
			}
		}
	}
	return weight
}

// readSubscribe reads a request for one feed.
func (s *Server) readSubscribe(r *http.Request, format streamFormat) (subscribeRequest, error) {
	name, err := feedName(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	request, query, err := s.readStream(r, format)
	if err != nil {
		return subscribeRequest{}, err
	}
	from, err := readFrom(r.Header, query, "now")
	request.subscriptions = []feed.SubscribeRequest{{Feed: name, From: from}}
	return request, err
}

// readSubscribeMany reads a request for several feeds.
func (s *Server) readSubscribeMany(w http.ResponseWriter, r *http.Request, format streamFormat) (subscribeRequest, error) {
	request, query, err := s.readStream(r, format)
	if err != nil {
		return subscribeRequest{}, err
	}
	request.many = true
	names, err := s.readFeeds(query)
	if err != nil {
		return subscribeRequest{}, err
	}
	cursors, err := readCursors(readCursor(r.Header, query))
	if err != nil {
		return subscribeRequest{}, err
	}
	from, err := feed.ParseFrom(valueOr(query.Get("from"), "now"))
	if err != nil {
		return subscribeRequest{}, err
	}
	if err := s.authorize(w, r, subscribing, names...); err != nil && !accessOf(r.Context()).hold(r, err) {
		return subscribeRequest{}, err
	}
	for _, name := range names {
		subscription := feed.SubscribeRequest{Feed: name, From: from}
		if cursor, resumed := cursors[name]; resumed {
			subscription.From = feed.FromCursor(cursor)
		}
		request.subscriptions = append(request.subscriptions, subscription)
	}
	return request, nil
}

// readStream reads the part that requests for one feed and for several share.
func (s *Server) readStream(r *http.Request, format streamFormat) (request subscribeRequest, query url.Values, err error) {
	request.format = format
	if query, err = readQuery(r); err != nil {
		return request, nil, err
	}
	if err := refuse(query, "is for pages, which are at /v1/feeds/{feed}/events with Accept: application/json", "after", "before", "limit", "wait"); err != nil {
		return request, nil, err
	}
	if request.types, err = readFilter(query.Get("types")); err != nil {
		return request, nil, err
	}
	if request.envelope, err = readFlag(query, "envelope"); err != nil {
		return request, nil, err
	}
	if request.control, err = readControl(query.Get("control")); err != nil {
		return request, nil, err
	}
	if request.gapFails, err = readGap(query); err != nil {
		return request, nil, err
	}
	request.heartbeat, err = readHeartbeat(query, s.options().Heartbeat)
	return request, query, err
}

// cursorBytes limits the cursor of several feeds, which has to fit in a header field.
const cursorBytes = 4096

// readFeeds reads ?feed=a&feed=b and ?feed=a,b. Naming a feed twice has no effect.
func (s *Server) readFeeds(query url.Values) (names []string, err error) {
	longest, most := 0, s.options().FeedsPerSubscription
	for _, value := range query["feed"] {
		for name := range strings.SplitSeq(value, ",") {
			if slices.Contains(names, name) {
				continue
			}
			if err := feed.CheckName(name); err != nil {
				return nil, err
			}
			if len(names) == most {
				return nil, invalid("more than %d feeds in one subscription", most)
			}
			names = append(names, name)
			longest += len(",") + len(name) + len("=") + len(feed.MaxID.String())
		}
	}
	if len(names) == 0 {
		return nil, invalid("no feed is named: use ?feed=")
	}
	if longest--; longest > cursorBytes {
		return nil, invalid("the cursor of these feeds can become %d bytes long, the limit is %d: follow fewer feeds, or feeds with shorter names", longest, cursorBytes)
	}
	return names, nil
}

// readCursors parses the cursor of several feeds: chat=42,news=7.
func readCursors(value string) (map[string]feed.ID, error) {
	if value == "" {
		return nil, nil
	}
	if len(value) > cursorBytes {
		return nil, invalid("the cursor has %d bytes, the limit is %d", len(value), cursorBytes)
	}
	cursors := make(map[string]feed.ID)
	for part := range strings.SplitSeq(value, ",") {
		name, number, ok := strings.Cut(part, "=")
		if !ok {
			return nil, invalid("a cursor of several feeds is like chat=42,news=7")
		}
		if err := feed.CheckName(name); err != nil {
			return nil, fmt.Errorf("in the cursor: %w", err)
		}
		c, err := feed.ParseCursor(number)
		if err != nil {
			return nil, fmt.Errorf("in the cursor, for %s: %w", name, err)
		}
		if _, twice := cursors[name]; twice {
			return nil, invalid("the cursor names %s twice", name)
		}
		cursors[name] = c
	}
	return cursors, nil
}

func readControl(value string) (c controlFlags, err error) {
	if value == "" {
		return c, nil
	}
	for name := range strings.SplitSeq(value, ",") {
		switch name {
		case "live":
			c.live = true
		case "heartbeat":
			c.heartbeat = true
		default:
			return c, invalid("control is live, heartbeat or both with a comma between them, not %.40q", value)
		}
	}
	return c, nil
}

// readHeartbeat returns the requested period, within 2 and 60 seconds.
func readHeartbeat(query url.Values, standard time.Duration) (time.Duration, error) {
	value := query.Get("heartbeat")
	if value == "" {
		return standard, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, invalid("heartbeat is a time such as 4s, not %.40q", value)
	}
	return min(max(d, 2*time.Second), 60*time.Second), nil
}

package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// subscribeRequest is what a client asks for.
type subscribeRequest struct {
	subscriptions []feed.SubscribeRequest
	many          bool // the address is that of several feeds, even if it is one
	format        streamFormat
	types         filter
	envelope      bool
	control       controlFlags
	gapFails      bool
	heartbeat     time.Duration
}

// controlFlags is what ?control= adds to a stream.
type controlFlags struct{ live, heartbeat bool }

// cost is what the stream takes in memory beyond one of a single feed, roughly.
func (r subscribeRequest) cost() int { return len(r.types) + (len(r.subscriptions)-1)*feedCost }

// feedCost is what a stream takes for a feed.
const feedCost = 192

// done says whether the client has all there will ever be.
func (r subscribeRequest) done(group *feed.Subscriber) bool {
	for i := range group.Size() {
		sub := group.At(i)
		_, resumed := r.subscriptions[i].From.Cursor()
		if b := sub.Bounds(); !resumed || !b.Closed || uint64(sub.Cursor()) != b.Last {
			return false
		}
	}
	return true
}

// readSubscribe reads a request for one feed.
func (s *Server) readSubscribe(r *http.Request) (subscribeRequest, error) {
	name, err := feedName(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	request, query, err := s.readStream(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	from, err := readFrom(r.Header, query)
	request.subscriptions = []feed.SubscribeRequest{{Feed: name, From: from}}
	return request, err
}

// readSubscribeMany reads a request for several feeds.
func (s *Server) readSubscribeMany(r *http.Request) (subscribeRequest, error) {
	request, query, err := s.readStream(r)
	if err != nil {
		return subscribeRequest{}, err
	}
	request.many = true
	names, err := s.readFeeds(query)
	if err != nil {
		return subscribeRequest{}, err
	}
	cursors, err := readCursors(cursorOf(r.Header, query))
	if err != nil {
		return subscribeRequest{}, err
	}
	from, err := feed.ParseFrom(valueOr(query.Get("from"), "now"))
	if err != nil {
		return subscribeRequest{}, err
	}
	for _, name := range names {
		if err := subscribing.check(grantOf(r.Context()), name); err != nil {
			return subscribeRequest{}, err
		}
		start := feed.SubscribeRequest{Feed: name, From: from}
		if cursor, resumed := cursors[name]; resumed {
			start.From = feed.FromCursor(cursor)
		}
		request.subscriptions = append(request.subscriptions, start)
	}
	return request, nil
}

func valueOr(value, standard string) string {
	if value == "" {
		return standard
	}
	return value
}

// cursorBytes is how long the cursor of several feeds may become: it has to fit
// a header field wherever it goes.
const cursorBytes = 4096

// readFeeds reads ?feed=a&feed=b and ?feed=a,b. A feed that is named twice is
// followed once.
func (s *Server) readFeeds(query url.Values) (names []string, err error) {
	longest := 0
	for _, value := range query["feed"] {
		for name := range strings.SplitSeq(value, ",") {
			if slices.Contains(names, name) {
				continue
			}
			if err := feed.CheckName(name); err != nil {
				return nil, err
			}
			if len(names) == s.options.FeedsPerSubscription {
				return nil, invalid("more than %d feeds in one subscription", s.options.FeedsPerSubscription)
			}
			names = append(names, name)
			longest += len(",") + len(name) + len("=") + len(feed.MaxCursor.String())
		}
	}
	if len(names) == 0 {
		return nil, invalid("which feeds? name them with ?feed=")
	}
	if longest--; longest > cursorBytes {
		return nil, invalid("the cursor of these feeds can become %d bytes long, the limit is %d: follow fewer feeds, or feeds with shorter names", longest, cursorBytes)
	}
	return names, nil
}

// readCursors reads the cursor of several feeds: chat=42,news=7.
func readCursors(value string) (map[string]feed.Cursor, error) {
	if value == "" {
		return nil, nil
	}
	if len(value) > cursorBytes {
		return nil, invalid("the cursor has %d bytes, the limit is %d", len(value), cursorBytes)
	}
	cursors := make(map[string]feed.Cursor)
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

// readStream reads what streams of one feed and of several have in common.
func (s *Server) readStream(r *http.Request) (request subscribeRequest, query url.Values, err error) {
	request.format = requestedFormat(r)
	if query, err = readQuery(r); err != nil {
		return request, nil, err
	}
	if err := refuse(query, "is for pages, which Accept: application/json asks for", "after", "before", "limit", "wait"); err != nil {
		return request, nil, err
	}
	if request.types, err = readFilter(query.Get("types")); err != nil {
		return request, nil, err
	}
	if request.envelope, err = readFlag(query, "envelope"); err != nil {
		return request, nil, err
	}
	if request.control, err = readControls(query.Get("control")); err != nil {
		return request, nil, err
	}
	if request.gapFails, err = readGap(query); err != nil {
		return request, nil, err
	}
	request.heartbeat, err = readHeartbeat(query, s.options.Heartbeat)
	return request, query, err
}

func readControls(value string) (c controlFlags, err error) {
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

// cursorOf returns the cursor that the client has, as it wrote it. The header
// wins over the query: a browser's EventSource keeps its first URL for life. An
// empty value counts as none. Headers of one name are a list (RFC 9110, section
// 5.3), which no cursor of one feed is: to choose one would lose events.
func cursorOf(header http.Header, query url.Values) string {
	values := header.Values("Last-Event-ID")
	if len(values) > 1 {
		values = slices.DeleteFunc(slices.Clone(values), func(cursor string) bool { return cursor == "" })
	}
	if cursor := strings.Join(values, ","); cursor != "" {
		return cursor
	}
	for _, name := range []string{"lastEventId", "lastEventID", "last_event_id"} {
		if cursor := query.Get(name); cursor != "" {
			return cursor
		}
	}
	return ""
}

// readFrom decides where the client wants to start.
func readFrom(header http.Header, query url.Values) (feed.From, error) {
	if cursor := cursorOf(header, query); cursor != "" {
		c, err := feed.ParseCursor(cursor)
		return feed.FromCursor(c), err
	}
	return feed.ParseFrom(valueOr(query.Get("from"), "now"))
}

// readHeartbeat returns the period that the client asks for, brought into
// bounds.
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

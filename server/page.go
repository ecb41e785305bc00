package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

const (
	// pageBytes bounds the data of a page, and with it what one request holds in
	// memory. A page of large events ends before its limit.
	pageBytes = 4 << 20

	// pagePiece is about how much of a page is encoded and written at once.
	pagePiece = 64 << 10
)

// page answers with a page of history: GET /v1/feeds/{feed}/events for clients
// that accept JSON and no event stream.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept") // the same URL has a stream for others
	q, err := readPageRequest(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	waiting, done, err := s.mayWait(r, q.wait)
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	defer done()
	h, err := s.history(r.Context(), waiting, q)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if link := h.link(q); link != "" {
		w.Header().Set("Link", link)
	}
	// No page stays as it is, not even of a closed feed: it can be trimmed.
	if notModified(w, r, h.tag(s.hub.StoreID(), q.feed), "private, no-cache") {
		return
	}
	s.writePage(w, q.feed, h)
}

// history is a stretch of a feed's history, and where a subscription goes on
// that was shown it.
type history struct {
	feed.Page
	cursor feed.Cursor
}

// mayWait returns a context to wait in: it ends when the time is up, when the
// token expires and when the server drains. Who waits is a subscriber, and is
// turned away where another would be; on a node that drains nobody waits.
func (s *Server) mayWait(r *http.Request, wait time.Duration) (waiting context.Context, done func(), err error) {
	if wait == 0 {
		return r.Context(), func() {}, nil
	}
	until := time.Now().Add(wait)
	if expires := grantOf(r.Context()).Expires(); !expires.IsZero() && expires.Before(until) {
		until = expires
	}
	waiting, cancel := context.WithDeadline(r.Context(), until)
	one := &pageWaiter{seat{address: addressOf(r)}, cancel}
	if err = s.admit(one); err != nil {
		cancel()
		if errors.Is(err, errDraining) {
			err = nil
		}
		return waiting, cancel, err
	}
	return waiting, func() {
		s.dismiss(one)
		cancel()
	}, nil
}

// pageWaiter is a subscriber that waits for a page.
type pageWaiter struct {
	seat
	cancel context.CancelFunc
}

func (p *pageWaiter) drain() { p.cancel() }

// history reads what q asks for. If q says so, it waits until that is more than
// nothing, or waiting ends.
func (s *Server) history(ctx, waiting context.Context, q pageRequest) (history, error) {
	if q.backward {
		p, err := s.readBefore(ctx, q.feed, q.before, q.limit)
		return newHistory(p, min(feed.Cursor(max(q.before, 1)-1), feed.Cursor(p.Last))), err
	}
	after, resumes := q.from.Cursor()
	if q.wait > 0 || !resumes && q.from != feed.FromStart() {
		sub, err := s.hub.Subscribe(ctx, q.feed, q.from)
		if err != nil {
			return history{}, err
		}
		defer sub.Close()
		after = sub.Cursor()
		if q.wait > 0 && (!q.gapFails || sub.Gap() == nil) {
			await(waiting, sub)
		}
	}
	p, err := s.hub.Read(ctx, q.feed, after, feed.Limit{Events: q.limit, Bytes: pageBytes})
	if err != nil {
		return history{}, err
	}
	if !resumes {
		after = max(after, feed.Cursor(p.First-1)) // only a client's own cursor finds a gap
	} else if q.gapFails {
		err = checkGap(after, p.Bounds)
	}
	return newHistory(p, after), err
}

// newHistory returns the history that p is, or cursor if p is empty.
func newHistory(p feed.Page, cursor feed.Cursor) history {
	if n := len(p.Events); n > 0 {
		cursor = feed.Cursor(p.Events[n-1].ID)
	}
	return history{p, cursor}
}

// await returns when the feed has an event after the subscription's cursor or
// is closed, and when ctx ends. What there is then is for the store to say.
func await(ctx context.Context, sub *feed.Subscription) {
	for after := sub.Cursor(); ; {
		d, err := sub.Next(ctx, nil)
		// What comes from behind a gap can be what the client has seen, or thinks
		// it has: it waits for what follows its cursor.
		if err != nil || len(d.Events()) > 0 && !d.Ephemeral && sub.Cursor() > after {
			return
		}
	}
}

// readBefore returns the newest events before an id: limit of them, or as many
// as fit in a page. A store reads forwards, so where they do not fit it takes
// several reads to find out where the page begins.
func (s *Server) readBefore(ctx context.Context, name string, before uint64, limit int) (feed.Page, error) {
	var events []feed.Event
	last := max(before, 1) - 1 // the newest that is still missing
	count := uint64(limit)     // how many to read at once
	for size := 0; ; {
		n := min(count, last, uint64(limit-len(events)))
		p, err := s.hub.Read(ctx, name, feed.Cursor(last-n), feed.Limit{Events: int(max(n, 1)), Bytes: pageBytes})
		if err != nil {
			return feed.Page{}, err
		}
		if p.Last < last && len(events) == 0 {
			last = p.Last
			continue
		}
		part := upTo(p.Events, last)
		if k := len(part); k > 0 && part[k-1].ID < last {
			count = max(1, uint64(k)/2) // too large to be read at once
			continue
		}
		fits := len(part)
		for fits > 0 && (size+len(part[fits-1].Data) <= pageBytes || size == 0) {
			fits--
			size += max(1, len(part[fits].Data))
		}
		events = slices.Concat(part[fits:], events)
		whole := fits == 0 && uint64(len(part)) == n // nothing of it was trimmed, or too much
		if !whole || n == last || len(events) == limit {
			// The bounds are newer than the events: what has gone meanwhile goes.
			gone := func(e feed.Event) bool { return e.ID < p.First || e.ID > p.Last }
			return feed.Page{Bounds: p.Bounds, Events: slices.DeleteFunc(events, gone)}, nil
		}
		last -= n
		count *= 2
	}
}

// upTo returns the events whose ids are not above last.
func upTo(events []feed.Event, last uint64) []feed.Event {
	n := len(events)
	for n > 0 && events[n-1].ID > last {
		n--
	}
	return events[:n]
}

// link returns the value of the Link header: where there is more. The links
// carry what a page understands, and nothing else that the URL may have: it is
// where tokens travel.
func (h history) link(q pageRequest) string {
	// The ends of the page, as cursors.
	low := min(max(uint64(h.cursor), h.First-1), h.Last)
	high := low
	if n := len(h.Events); n > 0 {
		low, high = h.Events[0].ID-1, h.Events[n-1].ID
	}
	var links []string
	add := func(name string, id uint64, rel string) {
		query := url.Values{name: {strconv.FormatUint(id, 10)}}
		for _, name := range []string{"limit", "gap"} {
			if value := q.query.Get(name); value != "" {
				query.Set(name, value)
			}
		}
		links = append(links, "</v1/feeds/"+q.feed+"/events?"+query.Encode()+`>; rel="`+rel+`"`)
	}
	if high < h.Last {
		add("after", high, "next")
	}
	if low >= h.First {
		add("before", low+1, "prev")
	}
	return strings.Join(links, ", ")
}

// writePage writes the page piece by piece: the events are in memory already,
// and would be there twice.
func (s *Server) writePage(w http.ResponseWriter, name string, h history) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	// The connection may go on to another request.
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	send := func(b []byte) error {
		_ = control.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout))
		_, err := w.Write(b)
		return err
	}
	body := append(make([]byte, 0, pagePiece), `{"feed":"`...)
	body = append(body, name...)
	body = append(body, `","events":[`...)
	pieces := 0
	for i := range h.Events {
		if i > 0 {
			body = append(body, ',')
		}
		body = envelope.Append(body, &h.Events[i])
		if len(body) >= pagePiece {
			if send(body) != nil {
				return // the reader has gone, or does not read
			}
			body = body[:0]
			pieces++
		}
	}
	body = append(body, `],"cursor":"`+h.cursor.String()+`","first":`...)
	body = strconv.AppendUint(body, h.First, 10)
	body = append(body, `,"last":`...)
	body = strconv.AppendUint(body, h.Last, 10)
	body = append(body, `,"closed":`...)
	body = strconv.AppendBool(body, h.Closed)
	body = append(body, "}\n"...)
	if pieces == 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if send(body) == nil {
		_ = control.Flush()
	}
}

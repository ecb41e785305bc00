package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
)

// A page is read in stretches and written in pieces of about these sizes, so that a page
// for a client that does not read holds no more than one stretch in memory.
const (
	stretchEvents = 256
	stretchBytes  = 32 << 10

	pagePiece = 16 << 10
)

// page answers with a page of history: GET /v1/feeds/{feed}/events, for clients that
// accept JSON and not event streams.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Accept") // the same URL also has a stream
	q, err := readPageRequest(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	waiting, done, err := s.admitWait(r, q.wait)
	if err != nil {
		s.rejectFull(w, r, err)
		return
	}
	defer done()
	h, err := s.history(r.Context(), waiting, q)
	if err == nil && q.wait > 0 {
		err = accessOf(r.Context()).ask(r.Context()) // the answer may be different now
	}
	if err != nil {
		s.deny(w, r, err)
		return
	}
	held := h.size()
	if !s.memory.Take(feed.HoldPages, held) {
		s.rejectFull(w, r, errNoMemory)
		return
	}
	defer s.memory.Give(feed.HoldPages, held)
	if link := h.link(basePathOf(r), q); link != "" {
		w.Header().Set("Link", link)
	}
	// Every page can change: even a closed feed can be trimmed.
	tag := entityTag(s.hub.StoreID(), q.feed, h.after, h.end, h.newest.UnixMilli(), h.cursor, h.First, h.Last, h.Closed)
	if notModified(w, r, tag, "private, no-cache") {
		return
	}
	s.writePage(w, r, q.feed, h)
}

// history is a page. Its events are consecutive, so two cursors determine them; only
// the first stretch of them is in memory.
type history struct {
	feed.Bounds              // at the time of the first read
	after       feed.ID      // the page has the events after this one …
	end         feed.ID      // … up to this one
	newest      time.Time    // the time of the last one
	events      []feed.Event // the first stretch
	cursor      feed.ID      // where a subscription continues after the page
}

// size returns about how much memory it takes to write the page.
func (h *history) size() int {
	if len(h.events) < int(h.end-h.after) {
		return 4 * stretchBytes // for the later stretches
	}
	size := pagePiece
	for i := range h.events {
		size += len(h.events[i].Data) + 128
	}
	return size
}

// admitWait returns a context that ends after the wait, when the token expires, and
// when the server drains. A page that waits needs admission as any subscriber does; on a
// draining node it does not wait.
func (s *Server) admitWait(r *http.Request, wait time.Duration) (waiting context.Context, done func(), err error) {
	if wait == 0 {
		return r.Context(), func() {}, nil
	}
	until := time.Now().Add(wait)
	if expires := grantOf(r.Context()).Expires(); !expires.IsZero() && expires.Before(until) {
		until = expires
	}
	waiting, cancel := context.WithDeadline(r.Context(), until)
	one := &pageWaiter{slot{address: s.addressOf(r)}, cancel}
	if err = s.admit(one, 0); err != nil {
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

// pageWaiter is the subscriber of a page that waits.
type pageWaiter struct {
	slot
	cancel context.CancelFunc
}

func (p *pageWaiter) drain() { p.cancel() }

// history reads the page that q asks for. If q has a wait, it waits until the page has
// events or the context waiting ends.
func (s *Server) history(ctx, waiting context.Context, q pageRequest) (history, error) {
	if q.backward {
		return s.historyBefore(ctx, q.feed, q.before, q.limit)
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
	h, err := s.historyAfter(ctx, q.feed, after, q.limit)
	if err != nil {
		return history{}, err
	}
	if !resumes {
		h.cursor = max(h.cursor, h.First-1) // only a client's own cursor can have a gap
	} else if q.gapFails {
		err = checkGap(after, h.Bounds)
	}
	return h, err
}

// historyAfter returns the page of the events after a cursor.
func (s *Server) historyAfter(ctx context.Context, name string, after feed.ID, limit int) (history, error) {
	for {
		p, err := s.hub.Read(ctx, name, after, stretch(limit))
		if err != nil {
			return history{}, err
		}
		h := history{Bounds: p.Bounds, events: p.Events, after: max(after, p.First-1), cursor: after}
		h.end = max(h.after, min(h.after+feed.ID(limit), p.Last))
		n := len(p.Events)
		if n == 0 {
			return h, nil
		}
		h.cursor = h.end
		if h.newest = p.Events[n-1].Time; p.Events[n-1].ID == h.end {
			return h, nil
		}
		last, err := s.hub.Read(ctx, name, h.end-1, feed.Limit{Events: 1, Bytes: 1})
		switch {
		case err != nil:
			return history{}, err
		case len(last.Events) == 1 && last.Events[0].ID == h.end:
			h.newest = last.Events[0].Time
			return h, nil
		}
		// The events were trimmed since: read again.
	}
}

func stretch(limit int) feed.Limit {
	return feed.Limit{Events: min(limit, stretchEvents), Bytes: stretchBytes}
}

// historyBefore returns the page of the newest events before an id.
func (s *Server) historyBefore(ctx context.Context, name string, before feed.ID, limit int) (history, error) {
	last := max(before, 1) - 1
	for {
		after := last - min(last, feed.ID(limit))
		h, err := s.historyAfter(ctx, name, after, int(max(last-after, 1)))
		switch {
		case err != nil:
			return history{}, err
		case h.Last < last:
			last = h.Last
			continue
		}
		// After a trim, the page has the remaining events.
		if h.end = max(h.after, min(h.end, last)); h.end == h.after {
			h.events = nil
		}
		h.events = upTo(h.events, last)
		if n := len(h.events); n > 0 && h.events[n-1].ID == h.end {
			h.newest = h.events[n-1].Time
		}
		h.cursor = last
		return h, nil
	}
}

// await returns when the feed has an event after the subscription's cursor or is
// closed, or when ctx ends. The caller then reads the store.
func await(ctx context.Context, sub *feed.Subscription) {
	for after := sub.Cursor(); ; {
		d, err := sub.Next(ctx, nil)
		// After a gap, events may come that precede the client's cursor: it waits
		// for one that follows it.
		if err != nil || len(d.Events()) > 0 && !d.Ephemeral && sub.Cursor() > after {
			return
		}
	}
}

// upTo returns the events up to the id last.
func upTo(events []feed.Event, last feed.ID) []feed.Event {
	n := len(events)
	for n > 0 && events[n-1].ID > last {
		n--
	}
	return events[:n]
}

// link returns the value of the Link header, with the neighbouring pages. The links have
// only the parameters of a page: the URL may also hold a token.
func (h history) link(base string, q pageRequest) string {
	// The ends of the page, as cursors.
	low := min(max(h.cursor, h.First-1), h.Last)
	high := low
	if h.end > h.after {
		low, high = h.after, h.end
	}
	var links []string
	add := func(name string, id feed.ID, rel string) {
		query := url.Values{name: {id.String()}}
		for _, name := range []string{"limit", "gap"} {
			if value := q.query.Get(name); value != "" {
				query.Set(name, value)
			}
		}
		links = append(links, "<"+base+"/v1/feeds/"+q.feed+"/events?"+query.Encode()+`>; rel="`+rel+`"`)
	}
	if high < h.Last {
		add("after", high, "next")
	}
	if low >= h.First {
		add("before", low+1, "prev")
	}
	return strings.Join(links, ", ")
}

// writePage writes the page piece by piece. It reads each stretch when the one before is
// written.
func (s *Server) writePage(w http.ResponseWriter, r *http.Request, name string, h history) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	// The connection may serve another request.
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	body := append(make([]byte, 0, pagePiece), `{"feed":"`...)
	body = append(body, name...)
	body = append(body, `","events":[`...)
	pieces := 0
	send := func() error {
		_ = control.SetWriteDeadline(time.Now().Add(s.options().WriteTimeout))
		_, err := w.Write(body)
		body = body[:0]
		pieces++
		return err
	}
	for at, events := h.after, h.events; at < h.end; {
		for i := range events {
			if at > h.after {
				body = append(body, ',')
			}
			body = envelope.Append(body, &events[i])
			at++
			if len(body) >= pagePiece && send() != nil {
				return // the client has gone, or does not read
			}
		}
		if at == h.end || r.Method == http.MethodHead {
			break
		}
		var err error
		if events, err = s.nextStretch(r.Context(), name, at, h.end); err != nil {
			s.logger.Debug("page broken off", "feed", name, "error", err)
			panic(http.ErrAbortHandler) // the client must notice that the page is incomplete
		}
	}
	body = append(body, `],"cursor":"`+h.cursor.String()+`","first":`...)
	body = h.First.Append(body)
	body = append(body, `,"last":`...)
	body = h.Last.Append(body)
	body = append(body, `,"closed":`...)
	body = strconv.AppendBool(body, h.Closed)
	body = append(body, "}\n"...)
	if pieces == 0 && int(h.end-h.after) == len(h.events) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if send() == nil {
		_ = control.Flush()
	}
}

// nextStretch reads the next events of a page.
func (s *Server) nextStretch(ctx context.Context, name string, after, end feed.ID) ([]feed.Event, error) {
	p, err := s.hub.Read(ctx, name, after, stretch(int(end-after)))
	if err != nil {
		return nil, err
	}
	if len(p.Events) == 0 || p.Events[0].ID != after+1 {
		return nil, fmt.Errorf("what follows event %d is %w", after, errGone)
	}
	return p.Events, nil
}

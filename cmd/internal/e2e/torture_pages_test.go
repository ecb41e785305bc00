package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// pager reads a feed by pages. What a page that goes forwards shows is judged as
// a connection of a subscriber is; what one that goes backwards shows, event by
// event.
type pager struct {
	*verify.Subscriber
	name  string // of the feed
	waits bool   // for what is yet to come
}

// historyPage is the answer.
type historyPage struct {
	Feed        string
	Events      []client.Event
	Cursor      feed.ID `json:",string"`
	First, Last feed.ID
	Closed      bool

	next bool // it has a link to the next page
}

// startPagers starts two that read forwards, two that wait for what is to come,
// and two that go backwards from time to time. Those that read forwards have to
// get everything, as subscribers have.
func (s *schedule) startPagers(ctx context.Context) {
	feeds := []string{s.feeds[0], s.wide[0], s.closing[0], s.feeds[1], s.feeds[2], s.closing[1]}
	for i, name := range feeds {
		kind := []string{"pages", "pages that wait", "pages backwards"}[i/2]
		w := s.subscriber(tortureKind{name: kind, client: []int{clientHTTP1, clientShared}[i%2]}, []string{name}, i)
		w.At = make([]feed.ID, 1)
		p := &pager{Subscriber: w, name: name, waits: i/2 == 1}
		step := p.forward
		if i/2 == 2 {
			w.Log.Leave()
			step = p.backward
		} else {
			s.subscribers = append(s.subscribers, w)
		}
		s.following(w.Clients, func() error { return p.run(ctx, step) })
	}
}

func (p *pager) run(ctx context.Context, step func(context.Context) error) error {
	for ctx.Err() == nil {
		err := step(ctx)
		p.Log.Cut(time.Now())
		if errors.Is(err, client.ErrViolation) {
			p.Log.Broke(err.Error(), time.Now())
		}
		if errors.Is(err, verify.ErrRefused) {
			return err
		}
		_ = sleep(ctx, 20*time.Millisecond+time.Duration(p.Random.Int64N(int64(150*time.Millisecond)))) // the loop looks at ctx
	}
	return nil
}

// get reads a page from any node.
func (p *pager) get(ctx context.Context, query url.Values) (page historyPage, err error) {
	p.Counts.Connections.Add(1)
	ctx, cancel := context.WithTimeout(ctx, p.Silence)
	defer cancel()
	c := p.Clients[p.Random.IntN(len(p.Clients))]
	u := c.URL("v1", "feeds", p.name, "events")
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return page, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.HTTP().Do(req)
	if err != nil {
		return page, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		problem := client.ReadProblem(resp)
		if !problem.Temporary() {
			return page, fmt.Errorf("%w: a page: %w", verify.ErrRefused, problem)
		}
		return page, problem
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		if syntax, _ := errors.AsType[*json.SyntaxError](err); syntax != nil {
			return page, verify.Broken("a page cannot be read: %w", err)
		}
		return page, err // cut off
	}
	page.next = strings.Contains(resp.Header.Get("Link"), `rel="next"`)
	return page, p.sound(page, query)
}

// sound judges what a page says of itself.
func (p *pager) sound(page historyPage, query url.Values) error {
	limit, _ := strconv.Atoi(query.Get("limit")) // it was made of a number
	switch {
	case page.Feed != p.name:
		return verify.Broken("a page of %.100q", page.Feed)
	case len(page.Events) > limit:
		return verify.Broken("a page has %d events, the limit is %d", len(page.Events), limit)
	case page.First == 0 || page.First > page.Last+1:
		return verify.Broken("a page says that its feed has events %d to %d", page.First, page.Last)
	case page.next != (max(page.Cursor, page.First-1) < page.Last):
		return verify.Broken("a page ends with event %d of %d, and it is %t that it has a link to the next", page.Cursor, page.Last, page.next)
	}
	for _, e := range page.Events {
		if e.ID == 0 || e.Feed != p.name || e.Time.IsZero() {
			return verify.Broken("an event of a page is not in an envelope")
		}
		if id := e.ID; id < page.First || id > page.Last {
			return verify.Broken("a page has event %d, and says that its feed has %d to %d", id, page.First, page.Last)
		}
	}
	if n := len(page.Events); n > 0 && page.Events[n-1].ID != page.Cursor {
		return verify.Broken("a page ends with event %d, and has the cursor %d", page.Events[n-1].ID, page.Cursor)
	}
	return nil
}

// forward reads the page after the pager's cursor.
func (p *pager) forward(ctx context.Context) error {
	at := &p.At[0]
	now := time.Now()
	p.Log.Connects(now)
	p.Log.Asks(p.name, *at, now)
	query := url.Values{"after": {at.String()}, "limit": {strconv.Itoa(1 + p.Random.IntN(200))}}
	if p.Hurry.Load() {
		query.Set("limit", "1000")
	} else if p.waits {
		query.Set("wait", "2s")
	}
	page, err := p.get(ctx, query)
	if err != nil {
		return err
	}
	p.Log.Opened(p.name, *at, now)
	began := page.First // what the page begins with, and the next one would
	if len(page.Events) > 0 {
		began = page.Events[0].ID
	} else if *at < page.Last && page.First <= *at+1 {
		return verify.Broken("the page after event %d of %d is empty", *at, page.Last)
	}
	now = time.Now()
	if began == page.First && began > *at+1 {
		p.Log.Gap(p.name, feed.Gap{After: *at, Resumes: began, Reason: feed.Trimmed}, now)
		*at = began - 1
	}
	for i := range page.Events {
		e := &page.Events[i]
		*at = e.ID
		p.Counts.Delivered.Add(1)
		p.Log.Delivered(p.name, *at, feedtest.SumOf(e.Type, e.Data), now)
	}
	return nil
}

// backward reads all of the feed from its end, page by page.
func (p *pager) backward(ctx context.Context) error {
	page, err := p.get(ctx, url.Values{"after": {"0"}, "limit": {"1"}})
	if err != nil {
		return err
	}
	for before := page.Last + 1; before > 1; {
		p.Log.Connects(time.Now())
		limit := 1 + p.Random.IntN(200)
		page, err := p.get(ctx, url.Values{"before": {before.String()}, "limit": {strconv.Itoa(limit)}})
		if err != nil {
			return err
		}
		now := time.Now()
		if len(page.Events) == 0 {
			p.Log.LookedBelow(p.name, before, now)
			return nil
		}
		for i := len(page.Events) - 1; i >= 0; i-- {
			e := &page.Events[i]
			if before--; e.ID != before {
				return verify.Broken("event %d is in the place of %d, in a page backwards", e.ID, before)
			}
			p.Log.Looked(p.name, before, feedtest.SumOf(e.Type, e.Data), now)
		}
	}
	return nil
}

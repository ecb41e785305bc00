package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// trimOrder is a trim, as far as it is known.
type trimOrder struct {
	feedtest.Trim
	again bool // it may be carried out at a later time as well, for what there is then
}

// trim trims or deletes a feed, at any node, until one has done it.
func (s *schedule) trim(t laidTrim, start time.Time) {
	time.Sleep(time.Until(start.Add(t.at)))
	order := trimOrder{Trim: feedtest.Trim{Feed: t.feed, Asked: time.Now()}, again: t.deletes}
	newest := s.newest(t.feed)
	if newest <= t.keep {
		return
	}
	order.Before = newest - t.keep
	client := tortureClient(clientHTTP1)
	client.Timeout = 2 * time.Second
	defer client.CloseIdleConnections()
	urls := s.urls()
	attempts := 0
	for i := int(s.seed % 100); order.Gone.IsZero() && time.Since(order.Asked) < 10*time.Second; i++ {
		attempts++
		at := urls[i%len(urls)].JoinPath("v1", "feeds", t.feed)
		if !t.deletes {
			at = at.JoinPath("events")
			at.RawQuery = "before=" + order.Before.String()
		}
		if err := sendDelete(client, at); err == nil {
			order.Gone = time.Now()
			break
		}
		time.Sleep(100 * time.Millisecond) // until another may take it
	}
	if t.deletes {
		s.deleted(&order, attempts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, order)
}

// newest returns the last id of a feed that any subscriber has.
func (s *schedule) newest(feed string) (newest feed.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.subscribers {
		newest = max(newest, w.Log.Reached(feed))
	}
	return newest
}

// deleted finds out what a delete took: all that was there when it was carried
// out, which nobody but the feed can tell. If it was sent more than once, an
// older one may be carried out at any time.
func (s *schedule) deleted(order *trimOrder, attempts int) {
	order.Before = 0
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	transport := newTransport(clientHTTP1)
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil && !order.Gone.IsZero() {
		for _, u := range s.urls() {
			c, err := client.New(u.String(), client.Options{Transport: transport})
			if err != nil {
				panic(err) // it is the address of a node
			}
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			info, err := c.Feed(short, order.Feed)
			cancel()
			if err == nil && info.First > 0 {
				order.Before, order.Gone, order.again = info.First, time.Now(), attempts > 1
				return
			}
		}
		_ = sleep(ctx, 100*time.Millisecond) // until one of them answers
	}
	order.Gone = time.Time{}
}

// sendDelete sends a DELETE.
func sendDelete(client *http.Client, at *url.URL) error {
	req, err := http.NewRequest(http.MethodDelete, at.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // the status says it all
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s %s: %s", req.Method, at.Path, resp.Status)
	}
	return nil
}

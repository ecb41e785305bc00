package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// FeedInfo describes a feed.
type FeedInfo struct {
	Feed    string
	First   feed.ID // the oldest event kept; Last + 1 if none is
	Last    feed.ID // the newest id ever given
	Closed  bool
	Updated time.Time // the time of the newest event, or of the close of a feed without any

	// The list of feeds leaves these 0.
	Subscribers int   // on all nodes
	Bytes       int64 // of data; that of trimmed events counts until it is swept from the disk
}

// feedsAtOnce is how many feeds a request lists: the most that a server allows.
const feedsAtOnce = 1000

// Feeds lists the feeds whose names begin with prefix, in the order of their
// names. It asks for the next ones when the caller has read those that came. An
// error is the last thing that it yields, a [*Problem] if the server answered.
func (c *Client) Feeds(ctx context.Context, prefix string) iter.Seq2[FeedInfo, error] {
	return func(yield func(FeedInfo, error) bool) {
		query := url.Values{"limit": {strconv.Itoa(feedsAtOnce)}}
		if prefix != "" {
			query.Set("prefix", prefix)
		}
		for {
			to := c.URL("v1", "feeds")
			to.RawQuery = query.Encode()
			var page struct {
				Feeds []FeedInfo
				Next  string
			}
			if err := c.call(ctx, http.MethodGet, to, &page); err != nil {
				yield(FeedInfo{}, err)
				return
			}
			for _, info := range page.Feeds {
				if !yield(info, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			if page.Next == query.Get("after") {
				yield(FeedInfo{}, violation("the list of feeds after %.100q begins again there", page.Next))
				return
			}
			query.Set("after", page.Next)
		}
	}
}

// Feed describes one feed. For a feed that does not exist, the error is a
// [*Problem] with the status 404.
func (c *Client) Feed(ctx context.Context, name string) (info FeedInfo, err error) {
	if err := feed.CheckName(name); err != nil {
		return info, err
	}
	return info, c.call(ctx, http.MethodGet, c.URL("v1", "feeds", name), &info)
}

// Trim deletes the events of a feed below the id before. It can be repeated.
func (c *Client) Trim(ctx context.Context, name string, before feed.ID) error {
	if err := feed.CheckName(name); err != nil {
		return err
	}
	to := c.URL("v1", "feeds", name, "events")
	to.RawQuery = url.Values{"before": {before.String()}}.Encode()
	return c.call(ctx, http.MethodDelete, to, nil)
}

// Delete deletes all events of a feed, whether or not there are any. The numbering
// continues, and a closed feed stays closed. It can be repeated.
func (c *Client) Delete(ctx context.Context, name string) error {
	if err := feed.CheckName(name); err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, c.URL("v1", "feeds", name), nil)
}

// listBytes bounds what is read of an answer about feeds: a full page, with the
// longest names, takes a twentieth of it.
const listBytes = 8 << 20

// call makes one request without a body, and reads the JSON of its answer into
// result, if that is not nil.
func (c *Client) call(ctx context.Context, method string, to *url.URL, result any) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return lost(err)
	}
	defer resp.Body.Close()
	want := http.StatusOK
	if result == nil {
		want = http.StatusNoContent
	}
	if resp.StatusCode != want {
		return ReadProblem(resp)
	}
	if result == nil {
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, listBytes))
	if err != nil {
		return lost(err)
	}
	if err := json.Unmarshal(answer, result); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

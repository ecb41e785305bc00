package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// Publisher publishes events that no other publisher has, each with a key of its
// own, and records every answer.
type Publisher struct {
	Recording *feedtest.Recording
	Name      string // no other publisher's
	Feeds     []string
	Clients   []*client.Client // each attempt goes by any of them
	Random    *rand.Rand
	Pause     time.Duration // between two events, on average
	Attempt   time.Duration // how long one attempt may take
	Patience  time.Duration // how long an event is attempted when its outcome stays unknown
	Large     float64       // the share of the events that have tens of kilobytes
	Again     float64       // the share that is sent again although acknowledged
	Twice     float64       // the share that is sent to two servers at the same time
	GiveUp    float64       // the share that is abandoned when the first attempt fails
	Closing   bool          // another program closes the feeds, and the server then refuses to publish to them
	Counts    *Counts
}

// Counts are the figures of a run that goes on.
type Counts struct {
	Acknowledged, Attempts, Delivered, Connections atomic.Int64
}

// Run publishes until ctx ends, and then until the outcome of the last event is
// known, or settling ends. It returns an error for what no attempt will change.
func (p *Publisher) Run(ctx, settling context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		if err := p.Publish(settling, n); err != nil {
			return err
		}
		_ = sleep(ctx, time.Duration(float64(p.Pause)*(0.5+p.Random.Float64()))) // the loop looks at ctx
	}
	return nil
}

// Event is one event to publish.
type Event struct {
	Feed, Key  string
	Type, Data string
	JSON       bool // the data is JSON
	Close      bool // the event closes the feed
}

// Next makes the event number n: text of one line or several, or JSON, some of
// it large.
func (p *Publisher) Next(n int) Event {
	e := Event{Feed: p.Feeds[p.Random.IntN(len(p.Feeds))], Key: fmt.Sprintf("%s-%d", p.Name, n)}
	padding := p.Random.IntN(200)
	if p.Random.Float64() < p.Large {
		padding = p.Random.IntN(40_000)
	}
	filler := strings.Repeat("·x", padding/3)
	switch p.Random.IntN(4) {
	case 0:
		e.JSON = true
		e.Data = fmt.Sprintf(`{"by":%q,"n":%d,"filler":%q}`, p.Name, n, filler)
	case 1:
		e.Type = "proof.lines"
		e.Data = fmt.Sprintf("%s\n\n  %d: %s\n", p.Name, n, filler)
	default:
		e.Data = fmt.Sprintf("%s %d %s", p.Name, n, filler)
	}
	return e
}

// Publish publishes one event until its outcome is known.
func (p *Publisher) Publish(ctx context.Context, n int) error {
	e := p.Next(n)
	gives := p.Random.Float64() < p.GiveUp
	// Late enough to be known, an outcome is worth more than a prompt end.
	for deadline := time.Now().Add(p.Patience); ; {
		var twin sync.WaitGroup
		if p.Random.Float64() < p.Twice {
			c := p.AnyClient()
			twin.Go(func() { _, _ = p.try(ctx, e, c) }) // a failure that stays fails here as well
		}
		outcome, err := p.try(ctx, e, p.AnyClient())
		twin.Wait()
		switch {
		case err != nil:
			return err
		case outcome == feedtest.Acknowledged:
			p.Counts.Acknowledged.Add(1)
			if p.Random.Float64() < p.Again {
				_, err = p.try(ctx, e, p.AnyClient())
			}
			return err
		case gives, time.Now().After(deadline), sleep(ctx, RetryPause/2+rand.N(RetryPause)) != nil:
			return nil
		}
	}
}

// RetryPause lies between two attempts, on average.
const RetryPause = 100 * time.Millisecond

func (p *Publisher) AnyClient() *client.Client { return p.Clients[p.Random.IntN(len(p.Clients))] }

// try makes one attempt and writes it down. It returns an error for what no
// attempt will change.
func (p *Publisher) try(ctx context.Context, e Event, at *client.Client) (outcome feedtest.Outcome, err error) {
	p.Counts.Attempts.Add(1)
	ctx, cancel := context.WithTimeout(ctx, p.Attempt)
	defer cancel()
	entry := feedtest.Attempt{Feed: e.Feed, Key: e.Key, Type: e.Type, Sum: feedtest.SumOf(e.Type, e.Data), Began: time.Now()}
	entry.Outcome, entry.ID, err = p.Post(ctx, e, at)
	entry.At = time.Now()
	p.Recording.Attempted(entry)
	return entry.Outcome, err
}

func (p *Publisher) Post(ctx context.Context, e Event, at *client.Client) (outcome feedtest.Outcome, id feed.ID, err error) {
	draft := feed.Draft{Type: e.Type, Data: e.Data, JSON: e.JSON}
	result, err := at.Send(ctx, client.Publication{Feed: e.Feed, Drafts: []feed.Draft{draft}, Key: e.Key, Close: e.Close})
	outcome, err = p.Judge(e.Feed, e.Key, result, err)
	if outcome == feedtest.Acknowledged {
		id = result.IDs[0]
	}
	return outcome, id, err
}

// Judge returns what is known after an attempt, and an error for what no other
// will change.
func (p *Publisher) Judge(name, key string, result client.Result, err error) (feedtest.Outcome, error) {
	found := func(what error) {
		p.Recording.Found(feedtest.Finding{Kind: feedtest.BadAnswer, Feed: name, Detail: fmt.Sprintf("the key %s: %v", key, what)})
	}
	outcome := feedtest.Unknown
	switch {
	case result.Outcome == client.Stored && err == nil:
		return feedtest.Acknowledged, nil
	case result.Outcome == client.Stored:
		found(err)
		return feedtest.Unknown, nil
	case result.Outcome == client.Refused:
		outcome = feedtest.Refused
	}
	problem, answered := errors.AsType[*client.Problem](err)
	switch {
	case !answered && !errors.Is(err, feed.ErrInvalid), answered && problem.Temporary():
		return outcome, nil
	case answered && p.Closing && problem.Status == http.StatusConflict:
		return feedtest.Refused, ErrFeedClosed
	case answered && (problem.Status == http.StatusConflict || problem.Status == http.StatusUnprocessableEntity):
		found(err)
		return feedtest.Refused, nil
	}
	return feedtest.Refused, fmt.Errorf("publish to %s: %w", name, err)
}

// ErrFeedClosed reports a publish to a closed feed.
var ErrFeedClosed = errors.New("the feed is closed")

// ErrRefused reports a subscription that the server will go on refusing.
var ErrRefused = errors.New("refused")

package main

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

// prover publishes events that nobody else publishes, each with a key of its
// own, and writes down what it was answered.
type prover struct {
	recording *feedtest.Recording
	name      string // no other prover's
	feeds     []string
	clients   []*client.Client // each attempt goes by any of them
	random    *rand.Rand
	pause     time.Duration // between two events, on average
	attempt   time.Duration // how long one attempt may take
	patience  time.Duration // how long an event is attempted when its outcome stays unknown
	large     float64       // the part of the events that has tens of kilobytes
	again     float64       // the part of the events that is sent again although acknowledged
	twice     float64       // the part that is sent to two at the same time
	giveUp    float64       // the part that is given up when the first attempt fails
	closing   bool          // the feeds are closed by somebody, and publishing to them is refused then
	counts    *proofCounts
}

// proofCounts is what there is to say while a proof goes on.
type proofCounts struct {
	acknowledged, attempts, delivered, connections atomic.Int64
}

// run publishes until ctx ends, and then until the outcome of the last event is
// known, or settling ends. It returns an error if there is no going on.
func (p *prover) run(ctx, settling context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		if err := p.publish(settling, n); err != nil {
			return err
		}
		_ = sleep(ctx, time.Duration(float64(p.pause)*(0.5+p.random.Float64()))) // the loop looks at ctx
	}
	return nil
}

// proof is one event to publish.
type proof struct {
	feed, key  string
	kind, data string
	json       bool // the data is
	closes     bool // the feed
}

// next makes the event number n: text of one line or several, or JSON, some of
// it large.
func (p *prover) next(n int) proof {
	e := proof{feed: p.feeds[p.random.IntN(len(p.feeds))], key: fmt.Sprintf("%s-%d", p.name, n)}
	padding := p.random.IntN(200)
	if p.random.Float64() < p.large {
		padding = p.random.IntN(40_000)
	}
	filler := strings.Repeat("·x", padding/3)
	switch p.random.IntN(4) {
	case 0:
		e.json = true
		e.data = fmt.Sprintf(`{"by":%q,"n":%d,"filler":%q}`, p.name, n, filler)
	case 1:
		e.kind = "proof.lines"
		e.data = fmt.Sprintf("%s\n\n  %d: %s\n", p.name, n, filler)
	default:
		e.data = fmt.Sprintf("%s %d %s", p.name, n, filler)
	}
	return e
}

// publish publishes one event until its outcome is known.
func (p *prover) publish(ctx context.Context, n int) error {
	e := p.next(n)
	gives := p.random.Float64() < p.giveUp
	// Late enough to be known, an outcome is worth more than a prompt end.
	for deadline := time.Now().Add(p.patience); ; {
		var twin sync.WaitGroup
		if p.random.Float64() < p.twice {
			c := p.anywhere()
			twin.Go(func() { _, _ = p.try(ctx, e, c) }) // what fails for good fails here as well
		}
		outcome, err := p.try(ctx, e, p.anywhere())
		twin.Wait()
		switch {
		case err != nil:
			return err
		case outcome == feedtest.Acknowledged:
			p.counts.acknowledged.Add(1)
			if p.random.Float64() < p.again {
				_, err = p.try(ctx, e, p.anywhere())
			}
			return err
		case gives, time.Now().After(deadline), sleep(ctx, proofPause/2+rand.N(proofPause)) != nil:
			return nil
		}
	}
}

// proofPause is what lies between two attempts, on average.
const proofPause = 100 * time.Millisecond

func (p *prover) anywhere() *client.Client { return p.clients[p.random.IntN(len(p.clients))] }

// try makes one attempt and writes it down. It returns an error for what no
// attempt will change.
func (p *prover) try(ctx context.Context, e proof, at *client.Client) (outcome feedtest.Outcome, err error) {
	p.counts.attempts.Add(1)
	ctx, cancel := context.WithTimeout(ctx, p.attempt)
	defer cancel()
	entry := feedtest.Attempt{Feed: e.feed, Key: e.key, Type: e.kind, Sum: feedtest.SumOf(e.kind, e.data), Began: time.Now()}
	entry.Outcome, entry.ID, err = p.post(ctx, e, at)
	entry.At = time.Now()
	p.recording.Attempted(entry)
	return entry.Outcome, err
}

func (p *prover) post(ctx context.Context, e proof, at *client.Client) (outcome feedtest.Outcome, id uint64, err error) {
	draft := feed.Draft{Type: e.kind, Data: e.data, JSON: e.json}
	result, err := at.Send(ctx, client.Publication{Feed: e.feed, Drafts: []feed.Draft{draft}, Key: e.key, Close: e.closes})
	outcome, err = p.judge(e.feed, e.key, result, err)
	if outcome == feedtest.Acknowledged {
		id = result.IDs[0]
	}
	return outcome, id, err
}

// judge returns what is known after an attempt, and an error for what no other
// will change.
func (p *prover) judge(name, key string, result client.Result, err error) (feedtest.Outcome, error) {
	found := func(what error) {
		p.recording.Found(feedtest.Finding{Kind: feedtest.BadAnswer, Feed: name, Detail: fmt.Sprintf("the key %s: %v", key, what)})
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
	case answered && p.closing && problem.Status == http.StatusConflict:
		return feedtest.Refused, errFeedClosed
	case answered && (problem.Status == http.StatusConflict || problem.Status == http.StatusUnprocessableEntity):
		found(err)
		return feedtest.Refused, nil
	}
	return feedtest.Refused, fmt.Errorf("publish to %s: %w", name, err)
}

// errFeedClosed is for what is published to a closed feed.
var errFeedClosed = errors.New("the feed is closed")

// errNoGoing is for what a subscriber is refused for good.
var errNoGoing = errors.New("refused for good")

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

// batcher publishes batches: all events of one are stored, or none.
type batcher struct {
	*prover
	many    bool     // a batch goes to many feeds
	closing []string // feeds that get closed; one of ten batches to many feeds has an event for one
}

// batch is one request.
type batch struct {
	feed   string // empty for many
	key    string
	events []proof
	body   string
}

// startBatches starts the publishers of batches: two for one feed at a time, two
// for many.
func (s *schedule) startBatches(ctx context.Context) {
	for i := range 4 {
		b := &batcher{prover: s.prover(200+i, s.feeds)}
		b.name = fmt.Sprintf("t%d-%s", s.seed, b.name) // keys of batches to many feeds are not by feed
		b.pause = 400 * time.Millisecond * slower()
		if i%2 == 1 {
			b.many, b.prover.feeds, b.closing, b.prover.closing = true, s.wide, s.closing, true
		}
		s.publishing(&b.client, func() error { return b.run(ctx) })
	}
}

func (b *batcher) run(ctx context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		if err := b.publish(ctx, b.next(n)); err != nil && !errors.Is(err, errFeedClosed) {
			return err
		}
		_ = sleep(ctx, time.Duration(float64(b.pause)*(0.5+b.random.Float64()))) // the loop looks at ctx
	}
	return nil
}

// next makes the batch number n.
func (b *batcher) next(n int) batch {
	made := batch{feed: b.anyFeed(), key: fmt.Sprintf("%s-batch%d", b.name, n)}
	if b.many {
		made.feed = ""
	}
	var body strings.Builder
	for i := range 1 + b.random.IntN(30) {
		e := proof{feed: made.feed, key: fmt.Sprintf("%s/%d", made.key, i), kind: tortureTypes[b.random.IntN(len(tortureTypes))]}
		if b.many {
			e.feed = b.anyFeed()
		}
		if b.many && i == 0 && b.random.IntN(10) == 0 {
			e.feed = b.closing[b.random.IntN(len(b.closing))]
		}
		e.data = fmt.Sprintf("%s of %s %s", e.key, b.name, strings.Repeat("·", b.random.IntN(100)))
		line := map[string]string{"data": e.data}
		if e.kind != "" {
			line["type"] = e.kind
		}
		if b.many {
			line["feed"] = e.feed
		}
		text, _ := json.Marshal(line) // strings always can be
		body.Write(append(text, '\n'))
		made.events = append(made.events, e)
	}
	made.body = body.String()
	return made
}

func (b *batcher) anyFeed() string { return b.feeds[b.random.IntN(len(b.feeds))] }

// publish sends a batch until its outcome is known, or gives it up.
func (b *batcher) publish(ctx context.Context, made batch) error {
	gives := b.random.Float64() < b.giveUp
	for deadline := time.Now().Add(b.patience); ; {
		outcome, err := b.try(ctx, made, b.anywhere())
		switch {
		case err != nil:
			return err
		case outcome == feedtest.Acknowledged:
			b.counts.acknowledged.Add(int64(len(made.events)))
			if b.random.Float64() < b.again {
				_, err = b.try(ctx, made, b.anywhere())
			}
			return err
		case gives, time.Now().After(deadline):
			return nil
		}
		time.Sleep(proofPause/2 + rand.N(proofPause)) // also when ctx has ended
	}
}

// try makes one attempt and writes it down, event by event.
func (b *batcher) try(ctx context.Context, made batch, at *url.URL) (feedtest.Outcome, error) {
	b.counts.attempts.Add(1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.attempt)
	defer cancel()
	began := time.Now()
	outcome, ids, err := b.post(ctx, made, at)
	for i, e := range made.events {
		attempt := feedtest.Attempt{
			Feed: e.feed, Key: e.key, Type: e.kind, Batch: made.key, Sum: feedtest.SumOf(e.kind, e.data),
			Outcome: outcome, Began: began, At: time.Now(),
		}
		if outcome == feedtest.Acknowledged {
			attempt.ID = ids[i]
		}
		b.recording.Attempted(attempt)
	}
	return outcome, err
}

func (b *batcher) post(ctx context.Context, made batch, at *url.URL) (outcome feedtest.Outcome, ids []uint64, err error) {
	outcome = feedtest.Refused // without a connection, nothing was sent
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { outcome = feedtest.Unknown }}
	to := at.JoinPath("v1", "events")
	if made.feed != "" {
		to = at.JoinPath("v1", "feeds", made.feed, "events")
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, to.String(), strings.NewReader(made.body))
	if err != nil {
		return outcome, nil, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", made.key)
	resp, err := b.client.Do(req)
	if err != nil {
		return outcome, nil, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		outcome, _, err = b.refused(proof{feed: made.feed, key: made.key}, readRefusal(resp))
		return outcome, nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return feedtest.Unknown, nil, nil // cut off in the middle of its answer
	}
	if ids = made.answered(body); ids == nil {
		b.recording.Found(feedtest.Finding{Kind: feedtest.BadAnswer, Feed: made.feed, Detail: fmt.Sprintf("the batch %s was answered with %.200q", made.key, body)})
		return feedtest.Unknown, nil, nil
	}
	return feedtest.Acknowledged, ids, nil
}

// answered reads the ids of a batch's events from the answer; nil if they are
// not there.
func (made batch) answered(body []byte) (ids []uint64) {
	var answer struct {
		Events []struct {
			Feed string
			ID   uint64
		}
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Events) != len(made.events) {
		return nil
	}
	for i, e := range answer.Events {
		if e.ID == 0 || e.Feed != made.events[i].feed {
			return nil
		}
		ids = append(ids, e.ID)
	}
	return ids
}

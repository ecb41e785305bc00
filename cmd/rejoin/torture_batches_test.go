package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
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
		s.publishing(b.clients, func() error { return b.run(ctx) })
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
	for i := range 1 + b.random.IntN(30) {
		e := proof{feed: made.feed, key: fmt.Sprintf("%s/%d", made.key, i), kind: tortureTypes[b.random.IntN(len(tortureTypes))]}
		if b.many {
			e.feed = b.anyFeed()
		}
		if b.many && i == 0 && b.random.IntN(10) == 0 {
			e.feed = b.closing[b.random.IntN(len(b.closing))]
		}
		e.data = fmt.Sprintf("%s of %s %s", e.key, b.name, strings.Repeat("·", b.random.IntN(100)))
		made.events = append(made.events, e)
	}
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
func (b *batcher) try(ctx context.Context, made batch, at *client.Client) (feedtest.Outcome, error) {
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

func (b *batcher) post(ctx context.Context, made batch, at *client.Client) (outcome feedtest.Outcome, ids []uint64, err error) {
	what := client.Publication{Feed: made.feed, Key: made.key}
	for _, e := range made.events {
		what.Drafts = append(what.Drafts, feed.Draft{Feed: e.feed, Type: e.kind, Data: e.data})
	}
	result, err := at.Send(ctx, what)
	outcome, err = b.judge(made.feed, made.key, result, err)
	return outcome, result.IDs, err
}

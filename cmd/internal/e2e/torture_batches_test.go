package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// batcher publishes batches: all events of one are stored, or none.
type batcher struct {
	*verify.Publisher
	many    bool     // a batch goes to many feeds
	closing []string // feeds that get closed; one of ten batches to many feeds has an event for one
}

// batch is one request.
type batch struct {
	feed   string // empty for many
	key    string
	events []verify.Event
}

// startBatches starts the publishers of batches: two for one feed at a time, two
// for many.
func (s *schedule) startBatches(ctx context.Context) {
	for i := range 4 {
		b := &batcher{Publisher: s.publisher(200+i, s.feeds)}
		b.Name = fmt.Sprintf("t%d-%s", s.seed, b.Name) // keys of batches to many feeds are not by feed
		b.Pause = 400 * time.Millisecond * slower()
		if i%2 == 1 {
			b.many, b.Publisher.Feeds, b.closing, b.Publisher.Closing = true, s.wide, s.closing, true
		}
		s.publishing(b.Clients, func() error { return b.run(ctx) })
	}
}

func (b *batcher) run(ctx context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		if err := b.publish(ctx, b.next(n)); err != nil && !errors.Is(err, verify.ErrFeedClosed) {
			return err
		}
		_ = sleep(ctx, time.Duration(float64(b.Pause)*(0.5+b.Random.Float64()))) // the loop looks at ctx
	}
	return nil
}

// next makes the batch number n.
func (b *batcher) next(n int) batch {
	made := batch{feed: b.anyFeed(), key: fmt.Sprintf("%s-batch%d", b.Name, n)}
	if b.many {
		made.feed = ""
	}
	for i := range 1 + b.Random.IntN(30) {
		e := verify.Event{Feed: made.feed, Key: fmt.Sprintf("%s/%d", made.key, i), Type: tortureTypes[b.Random.IntN(len(tortureTypes))]}
		if b.many {
			e.Feed = b.anyFeed()
		}
		if b.many && i == 0 && b.Random.IntN(10) == 0 {
			e.Feed = b.closing[b.Random.IntN(len(b.closing))]
		}
		e.Data = fmt.Sprintf("%s of %s %s", e.Key, b.Name, strings.Repeat("·", b.Random.IntN(100)))
		made.events = append(made.events, e)
	}
	return made
}

func (b *batcher) anyFeed() string { return b.Feeds[b.Random.IntN(len(b.Feeds))] }

// publish sends a batch until its outcome is known, or gives it up.
func (b *batcher) publish(ctx context.Context, made batch) error {
	gives := b.Random.Float64() < b.GiveUp
	for deadline := time.Now().Add(b.Patience); ; {
		outcome, err := b.try(ctx, made, b.AnyClient())
		switch {
		case err != nil:
			return err
		case outcome == feedtest.Acknowledged:
			b.Counts.Acknowledged.Add(int64(len(made.events)))
			if b.Random.Float64() < b.Again {
				_, err = b.try(ctx, made, b.AnyClient())
			}
			return err
		case gives, time.Now().After(deadline):
			return nil
		}
		time.Sleep(verify.RetryPause/2 + rand.N(verify.RetryPause)) // also when ctx has ended
	}
}

// try makes one attempt and writes it down, event by event.
func (b *batcher) try(ctx context.Context, made batch, at *client.Client) (feedtest.Outcome, error) {
	b.Counts.Attempts.Add(1)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.Attempt)
	defer cancel()
	began := time.Now()
	outcome, ids, err := b.post(ctx, made, at)
	for i, e := range made.events {
		attempt := feedtest.Attempt{
			Feed: e.Feed, Key: e.Key, Type: e.Type, Batch: made.key, Sum: feedtest.SumOf(e.Type, e.Data),
			Outcome: outcome, Began: began, At: time.Now(),
		}
		if outcome == feedtest.Acknowledged {
			attempt.ID = ids[i]
		}
		b.Recording.Attempted(attempt)
	}
	return outcome, err
}

func (b *batcher) post(ctx context.Context, made batch, at *client.Client) (outcome feedtest.Outcome, ids []feed.ID, err error) {
	what := client.Publication{Feed: made.feed, Key: made.key}
	for _, e := range made.events {
		what.Drafts = append(what.Drafts, feed.Draft{Feed: e.Feed, Type: e.Type, Data: e.Data})
	}
	result, err := at.Send(ctx, what)
	outcome, err = b.Judge(made.feed, made.key, result, err)
	return outcome, result.IDs, err
}

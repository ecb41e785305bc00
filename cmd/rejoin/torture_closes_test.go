package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// closer publishes to a feed of its own, closes it in the middle of a schedule,
// and tries to publish to it afterwards.
type closer struct {
	*prover
	after     time.Duration
	withEvent bool // the last event closes it
}

// startClosers starts a closer for each feed that gets closed, and a publisher
// that knows nothing of that.
func (s *schedule) startClosers(ctx context.Context) {
	for i, name := range s.closing {
		c := &closer{prover: s.prover(300+i, []string{name}), withEvent: i%2 == 0}
		c.after = time.Duration(c.random.Int64N(int64(tortureHealth + tortureOverlay + tortureLongest)))
		c.prover.closing, c.pause = true, 70*time.Millisecond*slower()
		s.publishing(c.clients, func() error { return c.run(ctx) })
	}
	p := s.prover(350, s.closing)
	p.closing, p.pause = true, 70*time.Millisecond*slower()
	s.publishing(p.clients, func() error {
		for n := 1; ctx.Err() == nil; n++ {
			if err := p.publish(ctx, n); err != nil && !errors.Is(err, errFeedClosed) {
				return err
			}
			_ = sleep(ctx, p.pause) // the loop looks at ctx
		}
		return nil
	})
}

func (c *closer) run(ctx context.Context) error {
	n := 1
	open, cancel := context.WithTimeout(ctx, c.after)
	defer cancel()
	for ; open.Err() == nil; n++ {
		if err := c.publish(ctx, n); err != nil {
			return err
		}
		_ = sleep(open, c.pause) // the loop looks at it
	}
	closed, err := c.close(ctx, n)
	if err != nil || !closed {
		return err
	}
	for range 3 {
		n++
		if err := c.publish(ctx, n); err != nil && !errors.Is(err, errFeedClosed) {
			return err
		}
	}
	return nil
}

// close closes the feed, at any node, until one has done it.
func (c *closer) close(ctx context.Context, n int) (closed bool, err error) {
	last := c.next(n)
	last.closes = true
	order := feedtest.Close{Feed: c.feeds[0], Asked: time.Now()}
	c.recording.Closed(order)
	for deadline := time.Now().Add(c.patience); time.Now().Before(deadline); {
		if c.withEvent {
			var outcome feedtest.Outcome
			outcome, order.Last, err = c.closeWith(ctx, last)
			closed = outcome == feedtest.Acknowledged
		} else {
			closed, err = c.closeWithout(ctx)
		}
		if err != nil {
			return false, err
		}
		if closed {
			order.Done = time.Now()
			c.recording.Closed(order)
			return true, nil
		}
		time.Sleep(proofPause) // until another may do it, also when ctx has ended
	}
	return false, nil
}

// closeWith publishes the event that closes the feed.
func (c *closer) closeWith(ctx context.Context, last proof) (outcome feedtest.Outcome, id uint64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.attempt)
	defer cancel()
	began := time.Now()
	outcome, id, err = c.post(ctx, last, c.anywhere())
	c.recording.Attempted(feedtest.Attempt{
		Feed: last.feed, Key: last.key, Type: last.kind, Sum: feedtest.SumOf(last.kind, last.data),
		Outcome: outcome, ID: id, Began: began, At: time.Now(),
	})
	if errors.Is(err, errFeedClosed) {
		err = fmt.Errorf("what closes %s is refused: %w", last.feed, err)
	}
	return outcome, id, err
}

func (c *closer) closeWithout(ctx context.Context) (closed bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.attempt)
	defer cancel()
	result, err := c.anywhere().Send(ctx, client.Publication{Feed: c.feeds[0], Close: true})
	if problem, answered := errors.AsType[*client.Problem](err); answered && !problem.Temporary() {
		return false, fmt.Errorf("close %s: %w", c.feeds[0], err)
	}
	return result.Outcome == client.Stored, nil
}

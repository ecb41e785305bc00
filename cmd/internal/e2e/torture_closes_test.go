package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// closer publishes to a feed of its own, closes it in the middle of a schedule,
// and tries to publish to it afterwards.
type closer struct {
	*verify.Publisher
	after     time.Duration
	withEvent bool // the last event closes it
}

// startClosers starts a closer for each feed that gets closed, and a publisher
// that knows nothing of that.
func (s *schedule) startClosers(ctx context.Context) {
	for i, name := range s.closing {
		c := &closer{Publisher: s.publisher(300+i, []string{name}), withEvent: i%2 == 0}
		c.after = time.Duration(c.Random.Int64N(int64(tortureHealth + tortureOverlay + tortureLongest)))
		c.Publisher.Closing, c.Pause = true, 70*time.Millisecond*slower()
		s.publishing(c.Clients, func() error { return c.run(ctx) })
	}
	p := s.publisher(350, s.closing)
	p.Closing, p.Pause = true, 70*time.Millisecond*slower()
	s.publishing(p.Clients, func() error {
		for n := 1; ctx.Err() == nil; n++ {
			if err := p.Publish(ctx, n); err != nil && !errors.Is(err, verify.ErrFeedClosed) {
				return err
			}
			_ = sleep(ctx, p.Pause) // the loop looks at ctx
		}
		return nil
	})
}

func (c *closer) run(ctx context.Context) error {
	n := 1
	open, cancel := context.WithTimeout(ctx, c.after)
	defer cancel()
	for ; open.Err() == nil; n++ {
		if err := c.Publish(ctx, n); err != nil {
			return err
		}
		_ = sleep(open, c.Pause) // the loop looks at it
	}
	closed, err := c.close(ctx, n)
	if err != nil || !closed {
		return err
	}
	for range 3 {
		n++
		if err := c.Publish(ctx, n); err != nil && !errors.Is(err, verify.ErrFeedClosed) {
			return err
		}
	}
	return nil
}

// close closes the feed, at any node, until one has done it.
func (c *closer) close(ctx context.Context, n int) (closed bool, err error) {
	last := c.Next(n)
	last.Close = true
	order := feedtest.Close{Feed: c.Feeds[0], Asked: time.Now()}
	c.Recording.Closed(order)
	for deadline := time.Now().Add(c.Patience); time.Now().Before(deadline); {
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
			c.Recording.Closed(order)
			return true, nil
		}
		time.Sleep(verify.RetryPause) // until another may do it, also when ctx has ended
	}
	return false, nil
}

// closeWith publishes the event that closes the feed.
func (c *closer) closeWith(ctx context.Context, last verify.Event) (outcome feedtest.Outcome, id feed.ID, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Attempt)
	defer cancel()
	began := time.Now()
	outcome, id, err = c.Post(ctx, last, c.AnyClient())
	c.Recording.Attempted(feedtest.Attempt{
		Feed: last.Feed, Key: last.Key, Type: last.Type, Sum: feedtest.SumOf(last.Type, last.Data),
		Outcome: outcome, ID: id, Began: began, At: time.Now(),
	})
	if errors.Is(err, verify.ErrFeedClosed) {
		err = fmt.Errorf("what closes %s is refused: %w", last.Feed, err)
	}
	return outcome, id, err
}

func (c *closer) closeWithout(ctx context.Context) (closed bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Attempt)
	defer cancel()
	result, err := c.AnyClient().Send(ctx, client.Publication{Feed: c.Feeds[0], Close: true})
	if problem, answered := errors.AsType[*client.Problem](err); answered && !problem.Temporary() {
		return false, fmt.Errorf("close %s: %w", c.Feeds[0], err)
	}
	return result.Outcome == client.Stored, nil
}

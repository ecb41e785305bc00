package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rejoin/rejoin/feed"
)

// Append implements [feed.Store]. If another transaction holds a feed, it waits for
// the feed up to the lock timeout. If one of the batches is NoWait, it does not wait,
// and refuses the batches that need the feed with [feed.ErrBusy].
//
// ctx can end an append only until its transaction begins.
func (s *Store) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	end, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	defer end()
	results, err := s.append(ctx, batches)
	if err != nil {
		return nil, fmt.Errorf("append: %w", err)
	}
	return results, nil
}

func (s *Store) append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable(err)
	}
	p := planLocks(batches)
	if len(p.names) == 0 {
		return make([]feed.Result, len(batches)), nil
	}
	unlock, err := s.fast.lock(ctx, s.done, p.names)
	if err != nil {
		return nil, err
	}
	results, lost, err := s.attempt(ctx, p, batches, 0)
	unlock() // the outcome below may take as long as an outage
	if lost != nil {
		err = s.outcome(lost.tx, lost.cause)
	}
	if err != nil {
		return nil, err
	}
	if !p.mayWait {
		return results, nil
	}
	return s.finish(ctx, batches, results)
}

// finish appends the batches that the first attempt left out. It waits for their
// feeds.
func (s *Store) finish(ctx context.Context, batches []feed.Batch, results []feed.Result) ([]feed.Result, error) {
	var late []feed.Batch
	var places []int
	for i, r := range results {
		if busy(r) {
			late, places = append(late, batches[i]), append(places, i)
		}
	}
	if len(late) == 0 {
		return results, nil
	}
	rest, lost, err := s.wait(ctx, late)
	if lost != nil {
		err = s.outcome(lost.tx, lost.cause)
	}
	if err != nil && len(late) == len(batches) {
		return nil, err
	}
	for i, place := range places {
		if err != nil {
			results[place] = feed.Result{Err: err}
		} else {
			results[place] = rest[i]
		}
	}
	return results, nil
}

// held returns the error for a feed or a key that was not free in time.
func held(err error) error {
	return fmt.Errorf("%w: held by another transaction: %w", feed.ErrBusy, err)
}

func busy(r feed.Result) bool { return errors.Is(r.Err, feed.ErrBusy) }

// wait appends, and waits for the feeds up to the lock timeout. Only one append of
// this process waits for a feed at a time, and one connection always remains for
// appends that do not wait.
func (s *Store) wait(ctx context.Context, batches []feed.Batch) ([]feed.Result, *unansweredCommit, error) {
	p := planLocks(batches)
	deadline := time.Now().Add(s.o.LockTimeout)
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, held(fmt.Errorf("not free within %v", s.o.LockTimeout)))
	defer cancel()
	unlock, err := s.slow.lock(ctx, s.done, p.names)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	select {
	case s.slowSlots <- struct{}{}:
		defer func() { <-s.slowSlots }()
	case <-ctx.Done():
		return nil, nil, unavailable(context.Cause(ctx))
	case <-s.done:
		return nil, nil, feed.ErrStopped
	}
	results, lost, err := s.attempt(ctx, p, batches, max(time.Millisecond, time.Until(deadline)))
	for state(err) == deadlockDetected && time.Now().Before(deadline) {
		// Transactions elsewhere wait for each other, and this one stood between them.
		results, lost, err = s.attempt(ctx, p, batches, max(time.Millisecond, time.Until(deadline)))
	}
	if err == nil && slices.ContainsFunc(results, busy) {
		return nil, nil, unavailable(errors.New("the row of a feed has been deleted"))
	}
	return results, lost, err
}

// attempt stores the batches in one transaction. It waits up to patience for the
// feeds; with no patience it leaves out the batches whose feeds are not free. If
// the answer to COMMIT is lost, the results hold only if it was committed.
func (s *Store) attempt(ctx context.Context, p lockPlan, batches []feed.Batch, patience time.Duration) (results []feed.Result, lost *unansweredCommit, err error) {
	err = s.once(ctx, s.publish, func(c *pgxpool.Conn) error {
		// From here on ctx is ignored.
		tx := &appending{conn: c.Conn(), pid: c.Conn().PgConn().PID()}
		if err := tx.hold(p, batches, patience, s.o.LockTimeout+transit); err != nil {
			tx.rollback()
			if state(err) == lockNotAvailable {
				err = held(err)
			}
			return unavailable(err)
		}
		tx.plan = feed.PlanAppend(batches, tx.in)
		results = tx.plan.Results
		if tx.empty() {
			tx.rollback()
			return nil
		}
		payload := s.notifier.forCommit(tx.plan.Feeds, len(tx.plan.Events))
		err := tx.commit(s.o.StatementTimeout+transit, payload)
		if err == nil {
			if payload != "" {
				s.notifier.committed(tx.plan.Feeds)
			}
			return nil
		}
		if tx.open() {
			// The server did not reach COMMIT.
			tx.rollback()
			return unavailable(err)
		}
		lost = &unansweredCommit{tx, err}
		return nil // not an error, so that once does not repeat it
	})
	if err != nil {
		return nil, nil, err
	}
	return results, lost, nil
}

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

// Append implements [feed.Store]. It waits for a feed that another transaction
// holds up to the lock timeout. If any of the batches says NoWait, it does not,
// and refuses those that need such a feed with [feed.ErrBusy].
//
// It heeds ctx only until its transaction begins. From there on the answer is
// what Postgres says.
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
	unlock() // finding out what a lost answer was may take long
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

// finish appends the batches that the first attempt left out, and waits for
// their feeds.
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

// held is for what needs a feed, or a key, that was not free in time.
func held(err error) error {
	return fmt.Errorf("%w: held by another transaction: %w", feed.ErrBusy, err)
}

func busy(r feed.Result) bool { return errors.Is(r.Err, feed.ErrBusy) }

// wait appends, and waits for the feeds as long as the lock timeout allows. One
// append of this process at a time waits for a feed, and one connection is always
// left for those that do not wait.
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
	if err == nil && slices.ContainsFunc(results, busy) {
		return nil, nil, unavailable(errors.New("the row of a feed has been deleted"))
	}
	return results, lost, err
}

// attempt stores the batches in one transaction. It waits up to patience for the
// feeds; with none it leaves out the batches whose feeds are not free. The
// results hold if no answer is lost, or if it turns out to be good.
func (s *Store) attempt(ctx context.Context, p lockPlan, batches []feed.Batch, patience time.Duration) (results []feed.Result, lost *unansweredCommit, err error) {
	err = s.once(ctx, s.publish, func(c *pgxpool.Conn) error {
		// From here on ctx is not heeded.
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
		err := tx.commit(s.o.StatementTimeout + transit)
		if err == nil {
			return nil
		}
		if tx.open() {
			// COMMIT was not reached.
			tx.rollback()
			return unavailable(err)
		}
		lost = &unansweredCommit{tx, err}
		return nil // it is not to be tried again
	})
	if err != nil {
		return nil, nil, err
	}
	return results, lost, nil
}

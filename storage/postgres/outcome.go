package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

const (
	// The pause between two queries for the outcome: at first, and at most.
	firstPause, longestPause = 20 * time.Millisecond, 500 * time.Millisecond
	// How long a transaction may still run before its session is ended.
	endAfter = time.Second
)

// outcome finds out whether a transaction is committed whose COMMIT was sent and not
// answered. It returns nil if it is, and [feed.ErrUnavailable] if it is not and never
// will be. cause is the error that came instead of the answer.
func (s *Store) outcome(tx *appending, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.OutcomeTimeout)
	defer cancel()
	// Each query goes to the server that the pools connect to then: it may have
	// restarted or failed over.
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		state, err := s.ask(ctx, tx, time.Since(began) > endAfter)
		switch {
		case err != nil:
		case state == committed:
			return nil
		case state == rolledBack:
			return unavailable(cause)
		case state == forgotten:
			return fmt.Errorf("%w: commit: %w", feed.ErrUncertain, cause)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: commit: %w; query the outcome: %w", feed.ErrUncertain, cause, unanswered(err))
		case <-time.After(pause):
		}
	}
}

func unanswered(err error) error {
	if err == nil {
		return errors.New("the transaction is still running")
	}
	return err
}

// commitState is what is known of a transaction whose COMMIT was not answered.
type commitState int

const (
	running commitState = iota
	committed
	rolledBack
	forgotten // unknown: what it would have stored has been swept since
)

// ask queries the outcome once, on a connection of its own. If the transaction is
// still running and end is set, it ends the session, which settles the outcome.
func (s *Store) ask(ctx context.Context, tx *appending, end bool) (commitState, error) {
	c, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return running, err
	}
	defer c.Close(ctx)
	var status *string
	var endable *bool
	err = c.QueryRow(ctx, query("outcome"), tx.xid, int32(tx.pid)).Scan(&status, &endable)
	switch {
	case state(err) == invalidParameter:
		// The id is yet to be given: after a crash the server continues from the last
		// transaction that left a trace, and this one did not.
		return rolledBack, nil
	case err != nil:
		return running, err
	case status != nil && *status == "aborted":
		return rolledBack, nil
	case status == nil || *status == "committed":
		return tx.find(ctx, c)
	}
	if end && endable != nil && *endable {
		_, err = c.Exec(ctx, query("end_backend"), tx.xid, int32(tx.pid))
	}
	return running, err
}

// find looks for what the transaction stored. A commit under its id is no proof:
// after a crash, or on a standby that took over, the id may have been given again.
func (tx *appending) find(ctx context.Context, c *pgx.Conn) (state commitState, err error) {
	closed := tx.closed()
	switch {
	case len(tx.plan.Events) > 0:
		state, err = tx.findEvents(ctx, c)
	case len(closed) > 0:
		return findClosed(ctx, c, closed)
	default:
		state = forgotten
	}
	if state == forgotten && err == nil {
		state, err = tx.findKey(ctx, c)
	}
	return state, err
}

// findEvents looks for the events. Their time tells them from events that another
// append stored under the same numbers.
func (tx *appending) findEvents(ctx context.Context, c *pgx.Conn) (commitState, error) {
	rows, err := c.Query(ctx, query("find_events"), eventColumns(newestEvents(tx.plan.Events))...)
	if err != nil {
		return running, err
	}
	defer rows.Close()
	result := forgotten
	for rows.Next() {
		var found, trimmed bool
		if err := rows.Scan(&found, &trimmed); err != nil {
			return running, err
		}
		if found {
			result = committed
		} else if !trimmed && result != committed {
			result = rolledBack
		}
	}
	return result, rows.Err()
}

// newestEvents returns the newest event of each feed, which is trimmed last.
func newestEvents(events []feed.PlannedEvent) []feed.PlannedEvent {
	newest := make(map[*feed.FeedRow]feed.PlannedEvent)
	for _, e := range events {
		newest[e.Feed] = e
	}
	return slices.Collect(maps.Values(newest))
}

// closed returns the feeds that the transaction closes.
func (tx *appending) closed() (rows []*feed.FeedRow) {
	for _, c := range tx.plan.Feeds {
		if c.Closes {
			rows = append(rows, c.Row)
		}
	}
	return rows
}

// findClosed looks at the feeds that are closed, where no event was stored. A feed
// that is closed behind the right event is as it should be, even if another
// transaction closed it.
func findClosed(ctx context.Context, c *pgx.Conn, closed []*feed.FeedRow) (commitState, error) {
	ids, lasts := make([]int64, len(closed)), make([]int64, len(closed))
	for i, f := range closed {
		ids[i], lasts[i] = f.ID, int64(f.Last)
	}
	var found bool
	if err := c.QueryRow(ctx, query("find_closed"), ids, lasts).Scan(&found); err != nil {
		return running, err
	}
	if !found {
		return rolledBack, nil
	}
	return committed, nil
}

// findKey looks for the keys of the transaction: if one is stored, so is the rest.
func (tx *appending) findKey(ctx context.Context, c *pgx.Conn) (commitState, error) {
	for name, k := range tx.plan.Keys {
		firsts, times := startColumns(k.Starts)
		var found bool
		err := c.QueryRow(ctx, query("find_key"), tx.space(name), name.Name, k.Fingerprint[:], k.Time, firsts, times).Scan(&found)
		switch {
		case err != nil:
			return running, err
		case found:
			return committed, nil
		}
	}
	return forgotten, nil
}

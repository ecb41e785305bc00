package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

const (
	// Between two questions for the outcome: at first, and at most.
	firstPause, longestPause = 20 * time.Millisecond, 500 * time.Millisecond
	// How long a transaction may still be running before it is ended.
	endAfter = time.Second
)

// outcome finds out what became of a transaction whose COMMIT was sent and not
// answered: nil when it is committed, [feed.ErrUnavailable] when it is not and
// never will be. cause is what came instead of the answer.
func (s *Store) outcome(tx *appending, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.OutcomeTimeout)
	defer cancel()
	// To the server that the pools connect to now, restarted or failed over.
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		verdict, err := s.ask(ctx, tx, time.Since(began) > endAfter)
		switch {
		case err != nil:
		case verdict == committed:
			return nil
		case verdict == rolledBack:
			return unavailable(cause)
		case verdict == forgotten:
			return fmt.Errorf("%w: commit: %w", feed.ErrUncertain, cause)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: commit: %w; ask for the outcome: %w", feed.ErrUncertain, cause, unanswered(err))
		case <-time.After(pause):
		}
	}
}

func unanswered(err error) error {
	if err == nil {
		return fmt.Errorf("it is still running")
	}
	return err
}

type verdict int

const (
	running verdict = iota
	committed
	rolledBack
	forgotten // it was committed or not, and what it stored is no longer kept
)

// ask asks once, on a connection of its own. If the transaction is still running
// and end says so, its session is ended, which decides it.
func (s *Store) ask(ctx context.Context, tx *appending, end bool) (verdict, error) {
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
		// An id that is yet to be given: after a crash the server counts on
		// from the last transaction that left a trace, and ours did not.
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

// find looks for what the transaction stored. That one of this id is committed
// does not say that it was this one: after a crash, or on a standby that took
// over, the same id may have been given again.
func (tx *appending) find(ctx context.Context, c *pgx.Conn) (v verdict, err error) {
	switch {
	case len(tx.rows.seqs) > 0:
		v, err = tx.findEvents(ctx, c)
	case len(tx.closed()) > 0:
		return tx.findClosed(ctx, c)
	default:
		v = forgotten
	}
	if v == forgotten && err == nil {
		v, err = tx.findKey(ctx, c)
	}
	return v, err
}

// findEvents looks for the events. The time tells ours from what another append
// stored under the same numbers.
func (tx *appending) findEvents(ctx context.Context, c *pgx.Conn) (verdict, error) {
	rows, err := c.Query(ctx, query("find_events"), tx.rows.newest().args()...)
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

// closed returns the feeds that the transaction closes.
func (tx *appending) closed() (feeds []*growth) {
	for _, f := range tx.feeds {
		if f.closing {
			feeds = append(feeds, f)
		}
	}
	return feeds
}

// findClosed looks at the feeds that are closed, where no event was stored. Closed
// for good behind the same event is what they were to be, whoever did it.
func (tx *appending) findClosed(ctx context.Context, c *pgx.Conn) (verdict, error) {
	var ids, lasts []int64
	for _, f := range tx.closed() {
		ids, lasts = append(ids, f.id), append(lasts, f.last)
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

// findKey looks for a key of the transaction: where there is one, everything is.
func (tx *appending) findKey(ctx context.Context, c *pgx.Conn) (verdict, error) {
	for name, k := range tx.keys {
		if !k.fresh {
			continue
		}
		var found bool
		err := c.QueryRow(ctx, query("find_key"), tx.space(name), name.name, k.print[:], k.time, k.firsts, k.times).Scan(&found)
		switch {
		case err != nil:
			return running, err
		case found:
			return committed, nil
		}
	}
	return forgotten, nil
}

// newest returns the row of each feed that is trimmed last.
func (r *rows) newest() *rows {
	last := make(map[int64]int)
	for i, f := range r.feeds {
		last[f] = i
	}
	out := &rows{}
	for f, i := range last {
		out.feeds, out.seqs, out.times = append(out.feeds, f), append(out.seqs, r.seqs[i]), append(out.times, r.times[i])
		out.json, out.types, out.data = append(out.json, r.json[i]), append(out.types, r.types[i]), append(out.data, r.data[i])
	}
	return out
}

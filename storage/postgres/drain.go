package postgres

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rejoin/rejoin/feed"
)

// Applications queue events with rejoin_enqueue. One node at a time takes them from the
// queue, in the order in which their transactions committed, and appends them as a
// publisher would. Each is deleted in the transaction that appends it, so however a
// drain ends, nothing is lost or stored twice.

const (
	// drainLock is the advisory lock of the transaction that drains.
	drainLock = migrationLock + 3

	// drainIdle is how long a drain may be silent between two statements. No other node
	// drains meanwhile, and the server ends the session of one that has vanished.
	drainIdle = 2 * time.Second

	drainEvents = 500 // in one transaction
	drainHeld   = 200 // feeds that are left out because another transaction holds them

	// When to look again without being notified: where feeds are held or another node
	// drains, after an error, and otherwise.
	drainAgain, drainFailed, drainSeldom = 50 * time.Millisecond, time.Second, 5 * time.Second
)

// queued is a row of the queue.
type queued struct {
	place int64
	draft feed.Draft
	key   *string
	close bool
}

// batch returns what the row asks to append.
func (q *queued) batch(window time.Duration) feed.Batch {
	b := feed.Batch{Feed: q.draft.Feed, Drafts: []feed.Draft{q.draft}, Close: q.close, NoWait: true}
	if q.key != nil {
		b.Key = &feed.Key{Name: *q.key, Fingerprint: b.Fingerprint(), Window: window}
	}
	return b
}

// drainLoop empties the queue whenever something may be in it, until ctx ends.
func (s *Store) drainLoop(ctx context.Context, queued <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	d := drain{held: []string{}} // nil would be NULL
	for wait := drainSeldom; ; {
		select {
		case <-ctx.Done():
			return
		case <-queued:
		case <-timer.C:
			if wait == drainSeldom {
				d.low = 0
			}
		}
		rest, err := s.drainAll(ctx, &d)
		s.noteDrain(ctx, err)
		switch {
		case err != nil:
			wait = drainFailed
		case rest:
			wait = drainAgain
		default:
			wait = drainSeldom
		}
		timer.Reset(wait)
	}
}

func (s *Store) noteDrain(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	switch s.draining.Note(err) {
	case feed.OutageBegan:
		s.o.Logger.Warn("the queue cannot be drained; what applications enqueue arrives late", "store", s.String(), "error", err)
	case feed.OutageChanged:
		s.o.Logger.Warn("the queue still cannot be drained, for another reason", "store", s.String(), "error", err)
	case feed.OutageEnded:
		s.o.Logger.Info("the queue is drained again", "store", s.String(), "after", s.draining.Lasted())
	}
}

// drain is how far this node has read the queue.
type drain struct {
	low  int64 // nothing is left up to this place
	held []string
}

// drainAll empties the queue. rest reports whether something may be left: events of
// feeds that other transactions hold, or all of them because another node drains.
func (s *Store) drainAll(ctx context.Context, d *drain) (rest bool, err error) {
	d.held = d.held[:0]
	for ctx.Err() == nil {
		more, locked, err := s.drainSome(ctx, d)
		switch {
		case err != nil:
			return true, err
		case !locked:
			return true, nil
		case !more || len(d.held) > drainHeld:
			return len(d.held) > 0, nil
		}
	}
	return true, nil
}

// drainSome appends the first events of the queue, in one transaction. more reports
// whether there may be others; locked is false if another node drains.
func (s *Store) drainSome(ctx context.Context, d *drain) (more, locked bool, err error) {
	end, err := s.begin()
	if err != nil {
		return false, false, err
	}
	defer end()
	// It waits in turn with appends, some of which still need a connection of theirs.
	err = s.once(ctx, s.queue, func(c *pgxpool.Conn) error {
		tx := &appending{conn: c.Conn(), pid: c.Conn().PgConn().PID()}
		// It has COMMIT behind it or nothing: a lost answer costs no more than a look.
		defer tx.rollback()
		var rows []queued
		rows, locked, err = s.readQueue(tx, d)
		if err != nil || len(rows) == 0 {
			more = false
			return err
		}
		more, err = s.appendQueued(ctx, tx, d, rows)
		return err
	})
	if err != nil {
		return false, false, err
	}
	return more, locked, nil
}

// readQueue begins the transaction and reads rows, unless another node drains.
func (s *Store) readQueue(tx *appending, d *drain) (rows []queued, locked bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.StatementTimeout+transit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(beginTransaction)
	b.Queue(query("try_drain"), int64(drainLock)).QueryRow(func(row pgx.Row) error { return row.Scan(&locked) })
	if err := tx.conn.SendBatch(ctx, b).Close(); err != nil || !locked {
		return nil, false, err
	}
	// Only now: the snapshot of the read must be younger than the lock.
	found, err := tx.conn.Query(ctx, query("read_queue"), d.low, d.held, drainEvents)
	if err != nil {
		return nil, true, err
	}
	rows, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (q queued, err error) {
		err = row.Scan(&q.place, &q.draft.Feed, &q.draft.Type, &q.draft.Data, &q.draft.JSON, &q.key, &q.close)
		return q, err
	})
	return rows, true, err
}

// appendQueued appends the rows, removes them from the queue and commits.
func (s *Store) appendQueued(ctx context.Context, tx *appending, d *drain, rows []queued) (more bool, err error) {
	batches := make([]feed.Batch, len(rows))
	for i := range rows {
		batches[i] = rows[i].batch(s.o.KeyWindow)
	}
	p := planLocks(batches)
	unlock, err := s.fast.lock(ctx, s.done, p.names)
	if err != nil {
		return false, err
	}
	defer unlock()
	limit, cancel := context.WithTimeout(context.Background(), s.o.StatementTimeout+transit)
	defer cancel()
	b := &pgx.Batch{}
	tx.queueHold(b, p, batches, false)
	if err := tx.conn.SendBatch(limit, b).Close(); err != nil {
		return false, err
	}
	tx.plan = feed.PlanAppend(batches, tx.in)
	var done, refused []int64
	var reasons []string
	held := make(map[string]bool)
	for i, r := range tx.plan.Results {
		switch {
		case r.Err == nil:
			done = append(done, rows[i].place)
		case errors.Is(r.Err, feed.ErrBusy):
			held[rows[i].draft.Feed] = true
		case errors.Is(r.Err, feed.ErrClosed), errors.Is(r.Err, feed.ErrKeyReused):
			refused, reasons = append(refused, rows[i].place), append(reasons, r.Err.Error())
		default:
			return false, r.Err
		}
	}
	d.held = append(d.held, slices.Sorted(maps.Keys(held))...)
	if len(d.held) == 0 {
		d.low = rows[len(rows)-1].place
	}
	if len(done)+len(refused) == 0 {
		return true, nil
	}
	b = &pgx.Batch{}
	tx.queuePlan(b)
	b.Queue(query("delete_queue"), done)
	b.Queue(query("refuse_queue"), refused, reasons)
	payload := ""
	if len(tx.plan.Events) > 0 {
		payload = growthOf(tx.plan.Feeds).payload(noNode)
	}
	if err := tx.sendCommit(limit, b, payload); err != nil {
		d.low = 0
		return false, err
	}
	s.refused.Add(uint64(len(refused)))
	for i, reason := range reasons {
		if i == refusedLines {
			s.o.Logger.Warn("more enqueued events cannot be numbered; they are in the table rejoin.refused", "store", s.String(), "more", len(reasons)-i)
			break
		}
		s.o.Logger.Warn("an enqueued event cannot be numbered; it is in the table rejoin.refused", "store", s.String(), "place", refused[i], "reason", reason)
	}
	return true, nil
}

// refusedLines bounds the lines about the refused events of one transaction.
const refusedLines = 10

// Refused returns how many queued events this node could not number.
func (s *Store) Refused() uint64 { return s.refused.Load() }

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	names, patient := survey(batches)
	if len(names) == 0 {
		return make([]feed.Result, len(batches)), nil
	}
	leave, err := s.turns.enter(ctx, s.done, names)
	if err != nil {
		return nil, err
	}
	results, lost, err := s.attempt(ctx, names, batches, 0)
	leave() // nobody waits for what takes an outage to find out
	if lost != nil {
		err = s.outcome(lost.tx, lost.cause)
	}
	if err != nil {
		return nil, err
	}
	if !patient {
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

func busy(r feed.Result) bool { return errors.Is(r.Err, feed.ErrBusy) }

// survey returns the names of the feeds, sorted, and says whether the append is
// one that waits for them.
func survey(batches []feed.Batch) (names []string, patient bool) {
	patient = true
	seen := make(map[string]bool)
	for _, b := range batches {
		patient = patient && !b.NoWait
		for _, d := range b.Drafts {
			if !seen[d.Feed] {
				seen[d.Feed] = true
				names = append(names, d.Feed)
			}
		}
	}
	slices.Sort(names)
	return names, patient
}

// wait appends, and waits for the feeds as long as the lock timeout allows. One
// append of this process at a time waits for a feed, and one connection is always
// left for those that do not wait.
func (s *Store) wait(ctx context.Context, batches []feed.Batch) ([]feed.Result, *lostAnswer, error) {
	names, _ := survey(batches)
	deadline := time.Now().Add(s.o.LockTimeout)
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, fmt.Errorf("another transaction has held the feed for %v", s.o.LockTimeout))
	defer cancel()
	leave, err := s.waits.enter(ctx, s.done, names)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	case <-ctx.Done():
		return nil, nil, unavailable(context.Cause(ctx))
	case <-s.done:
		return nil, nil, feed.ErrStopped
	}
	results, lost, err := s.attempt(ctx, names, batches, max(time.Millisecond, time.Until(deadline)))
	if err == nil && slices.ContainsFunc(results, busy) {
		return nil, nil, unavailable(errors.New("the row of a feed has been deleted"))
	}
	return results, lost, err
}

// appending is one transaction that appends.
type appending struct {
	conn  *pgx.Conn
	xid   string
	pid   uint32
	now   int64
	feeds map[string]*growth
	rows  rows
}

// growth is what the transaction knows of a feed's row.
type growth struct{ id, last, time int64 }

// lostAnswer is a transaction whose COMMIT was sent and not answered.
type lostAnswer struct {
	tx    *appending
	cause error // what came instead
}

// attempt stores the batches in one transaction. It waits up to patience for the
// feeds; with none it leaves out the batches whose feeds are not free. The
// results hold if no answer is lost, or if it turns out to be good.
func (s *Store) attempt(ctx context.Context, names []string, batches []feed.Batch, patience time.Duration) (results []feed.Result, lost *lostAnswer, err error) {
	err = s.once(ctx, s.publish, func(c *pgxpool.Conn) error {
		// From here on ctx is not heeded.
		tx := &appending{conn: c.Conn(), pid: c.Conn().PgConn().PID()}
		if err := tx.hold(names, patience, s.o.LockTimeout+transit); err != nil {
			tx.rollback()
			return unavailable(err)
		}
		results = tx.number(batches)
		if len(tx.rows.seqs) == 0 {
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
		lost = &lostAnswer{tx, err}
		return nil // it is not to be tried again
	})
	if err != nil {
		return nil, nil, err
	}
	return results, lost, nil
}

// hold begins the transaction and locks the feeds, those that it can get or all.
func (tx *appending) hold(names []string, patience, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(query("begin"))
	hold := query("hold_free")
	if patience > 0 {
		b.Queue(query("set_lock_timeout"), milliseconds(patience))
		b.Queue(query("create_feeds"), names)
		hold = query("hold_all")
	} else {
		b.Queue(query("make_feeds"), names)
	}
	tx.feeds = make(map[string]*growth, len(names))
	b.Queue(hold, names).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var name string
			f := &growth{}
			if err := rows.Scan(&name, &f.id, &f.last, &f.time); err != nil {
				return err
			}
			tx.feeds[name] = f
		}
		return nil
	})
	b.Queue(query("stamp")).QueryRow(func(row pgx.Row) error { return row.Scan(&tx.xid, &tx.now) })
	return tx.conn.SendBatch(ctx, b).Close()
}

// number gives the events their numbers and times.
func (tx *appending) number(batches []feed.Batch) []feed.Result {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		if name, ok := tx.lacks(b); ok {
			results[i].Err = fmt.Errorf("%w: another transaction holds %s", feed.ErrBusy, name)
			continue
		}
		results[i].Events = make([]feed.Event, len(b.Drafts))
		for j, d := range b.Drafts {
			f := tx.feeds[d.Feed]
			f.last++
			f.time = max(f.time, tx.now)
			tx.rows.add(f, d)
			results[i].Events[j] = feed.Event{
				Feed: d.Feed, ID: uint64(f.last), Type: d.Type, Data: d.Data, JSON: d.JSON,
				Time: time.UnixMilli(f.time).UTC(),
			}
		}
	}
	return results
}

// lacks returns a feed of the batch that the transaction does not hold, if there
// is one.
func (tx *appending) lacks(b feed.Batch) (name string, lacks bool) {
	for _, d := range b.Drafts {
		if tx.feeds[d.Feed] == nil {
			return d.Feed, true
		}
	}
	return "", false
}

// commit writes the events and commits, in one round trip. What fails before
// COMMIT keeps the server from reaching it.
func (tx *appending) commit(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var ids, lasts, times []int64
	for _, f := range tx.feeds {
		ids, lasts, times = append(ids, f.id), append(lasts, f.last), append(times, f.time)
	}
	b := &pgx.Batch{}
	b.Queue(query("grow_feeds"), ids, lasts, times)
	b.Queue(query("add_events"), tx.rows.args()...)
	b.Queue(query("commit")).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return errors.New("commit was answered with " + strconv.Quote(tag.String()))
		}
		return nil
	})
	return tx.conn.SendBatch(ctx, b).Close()
}

// open says whether the transaction is still to be ended. It is not when COMMIT
// has been answered, or when the connection is gone.
func (tx *appending) open() bool {
	return !tx.conn.IsClosed() && tx.conn.PgConn().TxStatus() != 'I'
}

// rollback ends a transaction that is still open. A connection that this fails
// on is not used again, and the server rolls back by itself.
func (tx *appending) rollback() {
	if !tx.open() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), transit)
	defer cancel()
	_, _ = tx.conn.Exec(ctx, query("rollback"), pgx.QueryExecModeSimpleProtocol)
}

// rows are the columns of the events to add.
type rows struct {
	feeds, seqs, times []int64
	json               []bool
	types, data        []string
}

func (r *rows) add(f *growth, d feed.Draft) {
	r.feeds, r.seqs, r.times = append(r.feeds, f.id), append(r.seqs, f.last), append(r.times, f.time)
	r.json, r.types, r.data = append(r.json, d.JSON), append(r.types, d.Type), append(r.data, d.Data)
}

func (r *rows) args() []any { return []any{r.feeds, r.seqs, r.times, r.json, r.types, r.data} }

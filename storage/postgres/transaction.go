package postgres

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
)

// appending is one transaction that appends. It takes two round trips: hold locks
// and loads what the batches name, and commit writes the plan.
type appending struct {
	conn *pgx.Conn
	xid  string
	pid  uint32
	in   feed.AppendInput
	plan feed.AppendPlan
}

// unansweredCommit is a transaction whose COMMIT was sent and not answered.
type unansweredCommit struct {
	tx    *appending
	cause error // the error that came instead of the answer
}

// hold begins the transaction, and locks and loads the feeds and keys of the
// batches. It waits up to patience for those that other transactions hold; with no
// patience it leaves them out.
func (tx *appending) hold(p lockPlan, batches []feed.Batch, patience, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(beginTransaction)
	if patience > 0 {
		b.Queue(query("set_lock_timeout"), milliseconds(patience))
	}
	tx.queueHold(b, p, batches, patience > 0)
	return tx.conn.SendBatch(ctx, b).Close()
}

// queueHold locks and loads, in a transaction that has begun, all that is named or what
// is free.
func (tx *appending) queueHold(b *pgx.Batch, p lockPlan, batches []feed.Batch, all bool) {
	if len(p.locks) > 0 {
		tx.queueLocks(b, p, batches, all)
	}
	tx.queueFeeds(b, p.feeds, all)
	if len(p.keyed) > 0 {
		tx.queueKeys(b, p.keyed, batches)
	}
	b.Queue(query("stamp")).QueryRow(func(row pgx.Row) error { return row.Scan(&tx.xid, &tx.in.Now) })
}

// queueLocks takes the advisory locks, all of them or those that are free.
func (tx *appending) queueLocks(b *pgx.Batch, p lockPlan, batches []feed.Batch, all bool) {
	if all {
		b.Queue(query("lock_all"), p.locks)
		return
	}
	b.Queue(query("lock_free"), p.locks).Query(func(rows pgx.Rows) error {
		ours := make(map[int64]bool, len(p.locks))
		for rows.Next() {
			var lock int64
			if err := rows.Scan(&lock); err != nil {
				return err
			}
			ours[lock] = true
		}
		tx.in.HeldKeys = make(map[feed.KeyName]bool)
		for _, i := range p.keyed {
			if key := batches[i].Key; batches[i].Feed == "" && !ours[keyLock(key.Name)] {
				tx.in.HeldKeys[feed.KeyName{Name: key.Name}] = true
			}
		}
		return nil
	})
}

// queueFeeds locks and loads the feeds' rows, all of them or those that are free.
func (tx *appending) queueFeeds(b *pgx.Batch, names []string, all bool) {
	hold := query("hold_free")
	if all {
		b.Queue(query("create_feeds"), names)
		hold = query("hold_all")
	} else {
		b.Queue(query("make_feeds"), names)
	}
	tx.in.Feeds = make(map[string]*feed.FeedRow, len(names))
	b.Queue(hold, names).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var name string
			f := &feed.FeedRow{}
			if err := rows.Scan(&name, &f.ID, &f.Last, &f.Updated, &f.Closed); err != nil {
				return err
			}
			tx.in.Feeds[name] = f
		}
		return nil
	})
}

// queueKeys loads the keys of the batches. It has to come after the locks: until
// then another transaction may store them.
func (tx *appending) queueKeys(b *pgx.Batch, keyed []int, batches []feed.Batch) {
	tx.in.Keys = make([]*feed.KeyRow, len(batches))
	feeds, keys := make([]string, len(keyed)), make([]string, len(keyed))
	for n, i := range keyed {
		feeds[n], keys[n] = batches[i].Feed, batches[i].Key.Name
	}
	b.Queue(query("find_keys"), feeds, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var place int
			var fingerprint []byte
			var firsts, times []int64
			k := &feed.KeyRow{}
			if err := rows.Scan(&place, &fingerprint, &firsts, &times, &k.Time); err != nil {
				return err
			}
			copy(k.Fingerprint[:], fingerprint)
			for i := range min(len(firsts), len(times)) {
				k.Starts = append(k.Starts, feed.BatchStart{ID: feed.ID(firsts[i]), Time: times[i]})
			}
			tx.in.Keys[keyed[place-1]] = k
		}
		return nil
	})
}

// empty reports whether the plan has nothing to write.
func (tx *appending) empty() bool { return len(tx.plan.Feeds) == 0 && len(tx.plan.Keys) == 0 }

// commit writes the plan, notifies the nodes unless the payload is empty, and commits,
// in one round trip. An error before COMMIT keeps the server from reaching it.
func (tx *appending) commit(limit time.Duration, payload string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := &pgx.Batch{}
	tx.queuePlan(b)
	return tx.sendCommit(ctx, b, payload)
}

// queuePlan writes the plan.
func (tx *appending) queuePlan(b *pgx.Batch) {
	if len(tx.plan.Feeds) > 0 {
		b.Queue(query("grow_feeds"), feedColumns(tx.plan.Feeds)...)
	}
	if len(tx.plan.Events) > 0 {
		b.Queue(query("add_events"), eventColumns(tx.plan.Events)...)
	}
	if len(tx.plan.Keys) > 0 {
		b.Queue(query("add_keys"), tx.keyColumns()...)
	}
}

// sendCommit sends what is queued, the notification and COMMIT.
func (tx *appending) sendCommit(ctx context.Context, b *pgx.Batch, payload string) error {
	if payload != "" {
		b.Queue(query("notify"), channel, payload)
	}
	b.Queue(commitTransaction).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return errors.New("commit was answered with " + strconv.Quote(tag.String()))
		}
		return nil
	})
	return tx.conn.SendBatch(ctx, b).Close()
}

// open reports whether the transaction is still to be ended. It is not when COMMIT
// has been answered, or when the connection is gone.
func (tx *appending) open() bool { return inTransaction(tx.conn) }

func (tx *appending) rollback() { rollback(tx.conn) }

// feedColumns returns the arguments of grow_feeds.
func feedColumns(changes []feed.FeedChange) []any {
	n := len(changes)
	ids, lasts, times, bytes := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	closed := make([]bool, n)
	for i, c := range changes {
		ids[i], lasts[i], times[i], bytes[i], closed[i] = c.Row.ID, int64(c.Row.Last), c.Row.Updated, c.Bytes, c.Row.Closed
	}
	return []any{ids, lasts, times, bytes, closed}
}

// eventColumns returns the arguments of add_events and find_events.
func eventColumns(events []feed.PlannedEvent) []any {
	n := len(events)
	feeds, seqs, times := make([]int64, n), make([]int64, n), make([]int64, n)
	json, types, data := make([]bool, n), make([]string, n), make([]string, n)
	for i, p := range events {
		e := p.Event
		feeds[i], seqs[i], times[i] = p.Feed.ID, int64(e.ID), e.Time.UnixMilli()
		json[i], types[i], data[i] = e.JSON, e.Type, e.Data
	}
	return []any{feeds, seqs, times, json, types, data}
}

// keyColumns returns the arguments of add_keys.
func (tx *appending) keyColumns() []any {
	var feeds, lows, highs []int64
	var names []string
	var fingerprints [][]byte
	firsts, times := []int64{}, []int64{}
	for name, k := range tx.plan.Keys {
		feeds, names, fingerprints = append(feeds, tx.space(name)), append(names, name.Name), append(fingerprints, k.Fingerprint[:])
		f, t := startColumns(k.Starts)
		lows, highs = append(lows, int64(len(firsts)+1)), append(highs, int64(len(firsts)+len(f)))
		firsts, times = append(firsts, f...), append(times, t...)
	}
	return []any{feeds, names, fingerprints, lows, highs, tx.in.Now, firsts, times}
}

// space returns the id of the feed that the key belongs to, 0 for none.
func (tx *appending) space(name feed.KeyName) int64 {
	if name.Feed == "" {
		return 0
	}
	return tx.in.Feeds[name.Feed].ID
}

// startColumns returns the columns firsts and times of a key, which are not NULL.
func startColumns(starts []feed.BatchStart) (firsts, times []int64) {
	firsts, times = make([]int64, len(starts)), make([]int64, len(starts))
	for i, s := range starts {
		firsts[i], times[i] = int64(s.ID), s.Time
	}
	return firsts, times
}

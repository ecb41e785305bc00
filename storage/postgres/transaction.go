package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rejoin/rejoin/feed"
)

// appending is one transaction that appends.
type appending struct {
	conn  *pgx.Conn
	xid   string
	pid   uint32
	now   int64
	feeds map[string]*growth
	locks map[int64]bool
	keys  map[keyName]*kept
	rows  rows
	fresh bool // there is something to store
}

// growth is what the transaction knows of a feed's row, and does to it.
type growth struct {
	id, last, time int64
	bytes          int64 // of what is added
	closed         bool
	closing        bool // by this transaction
	fresh          bool // there is something to store
}

// lostAnswer is a transaction whose COMMIT was sent and not answered.
type lostAnswer struct {
	tx    *appending
	cause error // what came instead
}

// hold begins the transaction and locks what the append needs, all of it or what
// it can get.
func (tx *appending) hold(n needs, patience, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(query("begin"))
	if patience > 0 {
		b.Queue(query("set_lock_timeout"), milliseconds(patience))
	}
	if len(n.locks) > 0 {
		tx.queueLocks(b, n.locks, patience > 0)
	}
	tx.queueFeeds(b, n.feeds, patience > 0)
	if len(n.keys) > 0 {
		tx.queueKeys(b, n.keys)
	}
	b.Queue(query("stamp")).QueryRow(func(row pgx.Row) error { return row.Scan(&tx.xid, &tx.now) })
	return tx.conn.SendBatch(ctx, b).Close()
}

// queueFeeds locks the feeds, those that it can get or all.
func (tx *appending) queueFeeds(b *pgx.Batch, names []string, all bool) {
	hold := query("hold_free")
	if all {
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
			if err := rows.Scan(&name, &f.id, &f.last, &f.time, &f.closed); err != nil {
				return err
			}
			tx.feeds[name] = f
		}
		return nil
	})
}

// number gives the events their numbers and times, and refuses what is not to be
// stored.
func (tx *appending) number(batches []feed.Batch) []feed.Result {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		known := false
		if results[i], known = tx.recall(b); known {
			continue
		}
		if err := tx.admit(b); err != nil {
			results[i].Err = err
			continue
		}
		results[i].Events = tx.grow(b)
		tx.remember(b, results[i].Events)
	}
	return results
}

// admit says why the batch cannot be stored, if it cannot.
func (tx *appending) admit(b feed.Batch) error {
	if b.Key != nil && b.Feed == "" && !tx.locks[keyLock(b.Key.Name)] {
		return fmt.Errorf("%w: another transaction holds the key", feed.ErrBusy)
	}
	about := tx.feeds[b.Feed]
	if b.Feed != "" && about == nil {
		return fmt.Errorf("%w: another transaction holds %s", feed.ErrBusy, b.Feed)
	}
	for _, d := range b.Drafts {
		if tx.feeds[d.Feed] == nil {
			return fmt.Errorf("%w: another transaction holds %s", feed.ErrBusy, d.Feed)
		}
	}
	for _, d := range b.Drafts {
		if tx.feeds[d.Feed].closed {
			return fmt.Errorf("%w: %s", feed.ErrClosed, d.Feed)
		}
	}
	if b.IfLast != nil && uint64(about.last) != *b.IfLast {
		return &feed.LastError{Last: uint64(about.last)}
	}
	return nil
}

// grow adds a batch to its feeds.
func (tx *appending) grow(b feed.Batch) []feed.Event {
	events := make([]feed.Event, len(b.Drafts))
	for i, d := range b.Drafts {
		f := tx.feeds[d.Feed]
		f.last++
		f.time = max(f.time, tx.now)
		f.bytes += int64(len(d.Data))
		f.fresh, tx.fresh = true, true
		tx.rows.add(f, d)
		events[i] = event(d, f.last, f.time)
	}
	if f := tx.feeds[b.Feed]; b.Close && !f.closed {
		f.closed, f.closing = true, true
		f.fresh, tx.fresh = true, true
		if f.last == 0 {
			f.time = max(f.time, tx.now)
		}
	}
	return events
}

func event(d feed.Draft, id, at int64) feed.Event {
	return feed.Event{
		Feed: d.Feed, ID: uint64(id), Type: d.Type, Data: d.Data, JSON: d.JSON,
		Time: time.UnixMilli(at).UTC(),
	}
}

// commit writes what there is to store and commits, in one round trip. What fails
// before COMMIT keeps the server from reaching it.
func (tx *appending) commit(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(query("grow_feeds"), tx.growths()...)
	if len(tx.rows.seqs) > 0 {
		b.Queue(query("add_events"), tx.rows.args()...)
	}
	if args := tx.keyArgs(); args != nil {
		b.Queue(query("add_keys"), args...)
	}
	b.Queue(query("commit")).Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return errors.New("commit was answered with " + strconv.Quote(tag.String()))
		}
		return nil
	})
	return tx.conn.SendBatch(ctx, b).Close()
}

// growths are the columns of the feeds that change.
func (tx *appending) growths() []any {
	var ids, lasts, times, bytes []int64
	var closed []bool
	for _, f := range tx.feeds {
		if f.fresh {
			ids, lasts, times = append(ids, f.id), append(lasts, f.last), append(times, f.time)
			bytes, closed = append(bytes, f.bytes), append(closed, f.closed)
		}
	}
	return []any{ids, lasts, times, bytes, closed}
}

// open says whether the transaction is still to be ended. It is not when COMMIT
// has been answered, or when the connection is gone.
func (tx *appending) open() bool { return inTransaction(tx.conn) }

func (tx *appending) rollback() { rollback(tx.conn) }

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

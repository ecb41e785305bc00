package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rejoin/rejoin/feed"
)

const (
	// How long a sweep waits for a feed, longer than appends hold one; and the number of
	// feeds for which it waits in vain before it leaves the others.
	sweepPatience, sweepHeld = 100 * time.Millisecond, 5

	aboveNames = "\x7f" // sorts after every character of a feed's name
)

// List implements [feed.RetentionStore].
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	after, _ = place(after)
	low, exact := place(prefix)
	if !exact {
		limit = 0 // no name has this prefix
	}
	var l feed.FeedList
	err := s.read(ctx, s.replay, func(rows pgx.Rows) error {
		l = feed.FeedList{}
		for rows.Next() {
			raw := rows.RawValues()
			l.Now = timeOf(raw[0])
			if raw[1] == nil {
				break
			}
			l.Feeds = append(l.Feeds, feed.Info{
				Feed: string(raw[1]), Bounds: boundsOf(raw[2:]), Updated: timeOf(raw[5]), Bytes: int8of(raw[6]),
			})
		}
		return nil
	}, query("list"), low, low+aboveNames, after, int64(limit))
	if err != nil {
		return feed.FeedList{}, fmt.Errorf("list feeds: %w", err)
	}
	return l, nil
}

// place returns a text that Postgres accepts and that sorts like s among the names of
// feeds, which are ASCII. exact reports whether it is s itself.
func place(s string) (text string, exact bool) {
	for i := range len(s) {
		switch {
		case s[i] == 0:
			return s[:i], false
		case s[i] > '~':
			return s[:i] + aboveNames, false
		}
	}
	return s, true
}

// Trim implements [feed.RetentionStore]. If another transaction holds the feed, it waits
// up to the lock timeout.
func (s *Store) Trim(ctx context.Context, name string, before feed.ID) error {
	_, err := s.count(ctx, query("trim"), name, int64(min(before, feed.MaxID)))
	if state(err) == lockNotAvailable {
		return fmt.Errorf("trim: %w: another transaction holds %s", feed.ErrBusy, name)
	}
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	return nil
}

// Sweep implements [feed.RetentionStore]. Each feed is swept in a transaction of its own,
// which locks the feed only at its end. A feed that is held longer than an append
// takes is left for another sweep: more is false if no other feed remains.
func (s *Store) Sweep(ctx context.Context, limit int, window time.Duration) (more bool, err error) {
	if more, err = s.sweep(ctx, limit, window.Milliseconds()); err != nil {
		return false, fmt.Errorf("sweep: %w", err)
	}
	return more, nil
}

func (s *Store) sweep(ctx context.Context, limit int, window int64) (more bool, err error) {
	freed, err := s.count(ctx, query("sweep_keys"), window, int64(limit))
	if err != nil {
		return false, err
	}
	ids, err := s.unswept(ctx, limit)
	if err != nil {
		return false, err
	}
	held := 0
	for _, id := range ids {
		if freed >= limit || held == sweepHeld {
			break
		}
		n, err := s.sweepFeed(ctx, id, limit-freed)
		switch {
		case state(err) == lockNotAvailable:
			held++
		case err != nil:
			return false, err
		}
		freed += n
	}
	if freed == 0 {
		return false, nil
	}
	err = s.read(ctx, s.keep, func(rows pgx.Rows) error {
		for rows.Next() {
			more = rows.RawValues()[0][0] != 0
		}
		return nil
	}, query("has_unswept"), window)
	return more, err
}

// unswept returns feeds that have rows to sweep, in random order, so that held feeds do
// not come first each time.
func (s *Store) unswept(ctx context.Context, limit int) (ids []int64, err error) {
	err = s.read(ctx, s.keep, func(rows pgx.Rows) error {
		ids = nil
		for rows.Next() {
			ids = append(ids, int8of(rows.RawValues()[0]))
		}
		return nil
	}, query("unswept"), int64(limit))
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids, err
}

// sweepFeed sweeps up to limit ids of one feed, and returns the number swept.
func (s *Store) sweepFeed(ctx context.Context, id int64, limit int) (freed int, err error) {
	end, err := s.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	err = s.once(ctx, s.keep, func(c *pgxpool.Conn) error {
		ctx, cancel := lenient(ctx, s.o.StatementTimeout+transit)
		defer cancel()
		b := &pgx.Batch{}
		b.Queue(beginTransaction)
		b.Queue(query("begin_sweep"), milliseconds(sweepPatience))
		b.Queue(query("sweep_feed"), id, int64(limit)).Query(func(rows pgx.Rows) error {
			freed = 0
			for rows.Next() {
				freed += int(int8of(rows.RawValues()[0]))
			}
			return nil
		})
		b.Queue(commitTransaction)
		if err := c.Conn().SendBatch(ctx, b).Close(); err != nil {
			freed = 0
			rollback(c.Conn())
			return unavailable(err)
		}
		return nil
	})
	return freed, err
}

// count runs a statement and returns the number of rows in its result.
func (s *Store) count(ctx context.Context, sql string, args ...any) (n int, err error) {
	err = s.read(ctx, s.keep, func(rows pgx.Rows) error {
		for n = 0; rows.Next(); n++ {
		}
		return nil
	}, sql, args...)
	return n, err
}

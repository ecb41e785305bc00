package postgres

import (
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/rejoin/rejoin/feed"
)

// keyLocks is how many advisory locks stand for the keys of batches without a
// feed, whose row would lock the others. One a key could be more than the server
// has room for.
const keyLocks = 1024

// needs is what an append looks at, and has to hold meanwhile.
type needs struct {
	feeds   []string  // sorted
	keys    []keyName // those to look up
	locks   []int64   // of the keys that have no feed, sorted
	gates   []string  // of all that it holds, sorted
	patient bool      // whether it waits
}

func survey(batches []feed.Batch) needs {
	n := needs{patient: true}
	seen, locks := make(map[string]bool), make(map[int64]bool)
	need := func(name string) {
		if !seen[name] {
			seen[name] = true
			n.feeds = append(n.feeds, name)
		}
	}
	for _, b := range batches {
		n.patient = n.patient && !b.NoWait
		for _, d := range b.Drafts {
			need(d.Feed)
		}
		if b.Feed != "" {
			need(b.Feed)
		}
		if b.Key == nil {
			continue
		}
		n.keys = append(n.keys, keyName{b.Feed, b.Key.Name})
		if b.Feed == "" {
			locks[keyLock(b.Key.Name)] = true
		}
	}
	slices.Sort(n.feeds)
	n.locks = slices.Sorted(maps.Keys(locks))
	n.gates = n.feeds
	if len(n.locks) > 0 {
		n.gates = slices.Clone(n.feeds)
		for _, lock := range n.locks {
			n.gates = append(n.gates, "key "+strconv.FormatInt(lock, 10)) // no feed's name
		}
		slices.Sort(n.gates)
	}
	return n
}

func keyLock(name string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return migrationLock<<16 + int64(h.Sum32()%keyLocks)
}

// keyName is a key in the space of its feed; feed is empty in the space of the
// batches for several.
type keyName struct{ feed, name string }

// kept is what the store keeps of a batch with a key: what became of it.
type kept struct {
	print         [32]byte
	firsts, times []int64 // of each feed, in the order of the drafts
	time          int64   // by the server's clock
	fresh         bool    // stored by this transaction
}

// queueKeys asks for what the store knows of the keys. Only what is asked once
// their feeds and locks are held is the last word.
func (tx *appending) queueKeys(b *pgx.Batch, names []keyName) {
	tx.keys = make(map[keyName]*kept, len(names))
	feeds, keys := make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		feeds[i], keys[i] = name.feed, name.name
	}
	b.Queue(query("find_keys"), feeds, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var name keyName
			var print []byte
			k := &kept{}
			if err := rows.Scan(&name.feed, &name.name, &print, &k.firsts, &k.times, &k.time); err != nil {
				return err
			}
			copy(k.print[:], print)
			tx.keys[name] = k
		}
		return nil
	})
}

// queueLocks takes the locks, those that it can get or all.
func (tx *appending) queueLocks(b *pgx.Batch, locks []int64, all bool) {
	tx.locks = make(map[int64]bool, len(locks))
	if all {
		b.Queue(query("lock_all"), locks)
		for _, lock := range locks {
			tx.locks[lock] = true
		}
		return
	}
	b.Queue(query("lock_free"), locks).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var lock int64
			if err := rows.Scan(&lock); err != nil {
				return err
			}
			tx.locks[lock] = true
		}
		return nil
	})
}

// recall returns the result of a batch whose key the store knows. That it does
// is true also if somebody holds the key's feed: nothing changes it before it
// expires.
func (tx *appending) recall(b feed.Batch) (r feed.Result, known bool) {
	if b.Key == nil {
		return r, false
	}
	k := tx.keys[keyName{b.Feed, b.Key.Name}]
	if k == nil || tx.now-k.time >= b.Key.Window.Milliseconds() {
		return r, false
	}
	if k.print != b.Key.Fingerprint {
		return feed.Result{Err: feed.ErrKeyReused}, true
	}
	return feed.Result{Events: k.events(b.Drafts), Replayed: true}, true
}

// events returns what became of the drafts.
func (k *kept) events(drafts []feed.Draft) []feed.Event {
	events := make([]feed.Event, len(drafts))
	places := make(map[string]int)
	next := slices.Clone(k.firsts)
	for i, d := range drafts {
		place, ok := places[d.Feed]
		if !ok {
			place = len(places)
			places[d.Feed] = place
		}
		events[i] = event(d, next[place], k.times[place])
		next[place]++
	}
	return events
}

// remember has the key of a batch stored with its events.
func (tx *appending) remember(b feed.Batch, events []feed.Event) {
	if b.Key == nil {
		return
	}
	k := &kept{print: b.Key.Fingerprint, time: tx.now, firsts: []int64{}, times: []int64{}, fresh: true}
	seen := make(map[string]bool)
	for _, e := range events {
		if !seen[e.Feed] {
			seen[e.Feed] = true
			k.firsts, k.times = append(k.firsts, int64(e.ID)), append(k.times, e.Time.UnixMilli())
		}
	}
	tx.keys[keyName{b.Feed, b.Key.Name}] = k
	tx.fresh = true
}

// space is the number that a key's feed has in the table of keys.
func (tx *appending) space(name keyName) int64 {
	if name.feed == "" {
		return 0
	}
	return tx.feeds[name.feed].id
}

// keyArgs are the columns of the keys to add, nil if there are none.
func (tx *appending) keyArgs() []any {
	var feeds, lows, highs []int64
	var names []string
	var prints [][]byte
	firsts, times := []int64{}, []int64{}
	for name, k := range tx.keys {
		if !k.fresh {
			continue
		}
		feeds, names, prints = append(feeds, tx.space(name)), append(names, name.name), append(prints, k.print[:])
		lows, highs = append(lows, int64(len(firsts)+1)), append(highs, int64(len(firsts)+len(k.firsts)))
		firsts, times = append(firsts, k.firsts...), append(times, k.times...)
	}
	if len(names) == 0 {
		return nil
	}
	return []any{feeds, names, prints, lows, highs, tx.now, firsts, times}
}
